"""Where a request carries its token, and how to keep it out of what people read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from tellwire.errors import Unauthorized

SUBPROTOCOL = "tellwire.token."
"""A WebSocket subprotocol that begins so holds a token: pages cannot set header fields there."""

_QUERY = b"token="


def find_token(
    headers: Iterable[tuple[bytes, bytes]],
    query_string: bytes = b"",
    subprotocols: Iterable[str] = (),
    cookie_name: str | None = None,
) -> str | None:
    """Return the token of a request, None where it has none; the first place wins.

    The places are ``Authorization: Bearer``, the query parameter ``token``, the subprotocol ``tellwire.token.*`` and
    the cookie of that name (None: cookies do not count). What is returned was not checked in any way. An
    ``Authorization`` of another scheme is for somebody else where the token stands elsewhere; alone it raises
    Unauthorized.
    """
    authorization = None
    cookies = []
    for name, value in headers:
        if name == b"authorization" and authorization is None:
            authorization = value
        elif name == b"cookie":
            cookies.append(value)  # HTTP/2 may send each by itself (RFC 9113, section 8.2.3)
    token = (
        _from_authorization(authorization)
        or _from_query(query_string)
        or next((text[len(SUBPROTOCOL) :] for text in subprotocols if text.startswith(SUBPROTOCOL)), None)
        or (_from_cookies(cookies, cookie_name.encode()) if cookie_name else None)
    )
    if not token and authorization is not None:
        raise Unauthorized("the Authorization field holds no token; write Authorization: Bearer TOKEN")
    return token or None


def _from_authorization(value: bytes | None) -> str | None:
    scheme, _, rest = (value or b"").strip().partition(b" ")
    return rest.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


def _from_query(query: bytes) -> str | None:
    # The name has to be written as it is: another spelling (%74oken) would not be known as a secret in logs.
    for part in query.split(b"&"):
        if part.startswith(_QUERY) and len(part) > len(_QUERY):
            return unquote_to_bytes(part[len(_QUERY) :]).decode("latin-1")
    return None


def _from_cookies(fields: Iterable[bytes], wanted: bytes) -> str | None:
    for text in fields:
        for pair in text.split(b";"):
            name, equals, value = pair.partition(b"=")
            if equals and name.strip() == wanted and (value := value.strip().strip(b'"')):
                return value.decode("latin-1")
    return None


_SECRETS = re.compile(
    r"""
    (?P<query> token(?:=|%3D)) [^&\s"'<>#;,]+               # in a URL, one within it, the usual cookie
  | (?P<bearer> \bBearer[ ]+) [^\s"'<>,;]{8,}
  | (?P<subprotocol> tellwire\.token\.) [^\s"'<>,;]+
  | eyJ[\w-]* \. [\w-]* \. [\w-]*                 # a JWT anywhere: its first part is the base64 of '{"'
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)


def redact(text: str) -> str:
    """Return a URL or a line of a log without the tokens in it."""
    return _SECRETS.sub(lambda found: (found[found.lastgroup] if found.lastgroup else "") + "[redacted]", text)
