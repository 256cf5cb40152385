"""What every HTTP endpoint has to do: check who asks, read what is asked, and say no in one way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl

import msgspec

from tellwire.auth import Access
from tellwire.errors import BadRequest, Conflict, Internal, TellwireError, TooLarge
from tellwire.message import CURSOR_MAX_BYTES
from tellwire.names import Policy
from tellwire.protocol.commands import OnGap

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

PARAMETERS_MAX = 4096
"""Parameters in one query; channels are what there can be many of."""


class Gone(Exception):
    """The client went away before its request was read."""


def header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header field, given in lower case; None where the request has none."""
    for key, value in scope["headers"]:
        if key == name:
            return cast(bytes, value).decode("latin-1")
    return None


def check_access(scope: Scope, access: Access) -> RawHeaders:
    """Refuse pages that may not use this server; return the CORS fields for those that may."""
    origin = access.check(scope["headers"], scope["scheme"])
    return cors_fields(origin)


def cors_fields(origin: str | None) -> RawHeaders:
    """Make the fields that let a page of `origin` read the answer (Fetch standard, section 3.3)."""
    if origin is None:
        return [(b"vary", b"Origin")]
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"Retry-After"),
        (b"vary", b"Origin"),
    ]


class Query:
    """The parameters of a reading request (spec, section 8); unknown ones are ignored."""

    def __init__(self, scope: Scope) -> None:
        try:
            pairs = parse_qsl(
                scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=PARAMETERS_MAX,
            )
        except ValueError as exc:
            raise BadRequest(f"the query cannot be read: {exc}") from None
        self.channels = list(dict.fromkeys(value for name, value in pairs if name == "channel"))
        self._values = dict(reversed(pairs))

    def need_channels(self) -> list[str]:
        """Return the channels; raise BadRequest where none is named."""
        if not self.channels:
            raise BadRequest("no channel is named; give ?channel=NAME, as often as there are channels")
        return self.channels

    def text(self, name: str) -> str | None:
        """Return a parameter's text; None where it is missing or empty."""
        return self._values.get(name) or None

    def start(self, scope: Scope) -> tuple[str | None, int | None]:
        """Return where to begin, as ``since`` and ``last``; at most one of them may be given.

        An EventSource that reconnects asks with the same address again, so what it says in ``Last-Event-ID`` comes
        before both.
        """
        last_event_id = header(scope, b"last-event-id")
        since = last_event_id or self.text("since")
        if since is not None and len(since) > CURSOR_MAX_BYTES:
            raise BadRequest(f"a cursor has at most {CURSOR_MAX_BYTES} bytes; this one has {len(since)}")
        return since, None if last_event_id else self.integer("last")

    def integer(self, name: str) -> int | None:
        """Return a whole number; raise BadRequest where it is none."""
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.removeprefix("-").isdigit() and len(value) < 20):
            raise BadRequest(f"{name}={value[:40]!a} is not a whole number")
        return int(value)

    def seconds(self, name: str) -> float:
        """Return a number of seconds, 0 where it is missing; raise BadRequest where it is none."""
        value = self.text(name)
        try:
            number = float(value or 0)
        except ValueError:
            number = -1.0
        if not 0 <= number < 1e9:
            raise BadRequest(f"{name}={str(value)[:40]!a} is not a number of seconds")
        return number

    def flag(self, name: str) -> bool:
        """Return whether a switch is on: 1 or true."""
        value = self.text(name)
        if value not in (None, "0", "1", "true", "false"):
            raise BadRequest(f"{name}={str(value)[:40]!a} is neither 0 nor 1")
        return value in ("1", "true")

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """Return one of some words, None where it is missing; raise BadRequest for any other."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise BadRequest(f"{name}={value[:40]!a} is none of {', '.join(choices)}")
        return value

    @property
    def policy(self) -> Policy | None:
        return cast(Policy | None, self.choice("policy", ("catch_up", "latest", "disconnect")))

    @property
    def on_gap(self) -> OnGap:
        return cast(OnGap, self.choice("on_gap", ("oldest", "newest")) or "oldest")


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """Read a request's body; raises TooLarge, and Gone where the client went away."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit_bytes:
            raise TooLarge(f"a request has at most {limit_bytes} bytes; this one has more")
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Answer(NamedTuple):
    """A whole response."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"

    def headers(self, extra: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
        """Make the header fields; answers are of one moment, hence never to be stored."""
        return [
            (b"content-type", self.content_type),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *extra,
        ]

    async def send(self, send: Send, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send it through ASGI."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers(extra)})
        await send({"type": "http.response.body", "body": self.body})


def problem(exc: TellwireError) -> Answer:
    """Describe an error as problem+json (RFC 9457)."""
    body: dict[str, Any] = {
        "type": f"urn:tellwire:error:{exc.code}",
        "title": exc.meaning,
        "status": exc.status,
        "detail": exc.detail,
        "code": exc.code,
    }
    if isinstance(exc, Conflict):
        body["head"] = str(exc.head) if exc.head is not None else None
    return Answer(exc.status, msgspec.json.encode(body), b"application/problem+json")


class Endpoint:
    """An ASGI application for one path: subclasses answer, errors become problem+json."""

    def __init__(self, access: Access, report: Callable[[str, BaseException], None]) -> None:
        self._access = access
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extra: RawHeaders = []
        try:
            extra = check_access(scope, self._access)
            answer = await self.respond(scope, receive, send, extra)
        except Gone:
            return
        except TellwireError as exc:
            answer = problem(exc)
        except Exception as exc:
            self._report(f"{scope['method']} {scope['path']} failed", exc)
            answer = problem(Internal("the server failed to answer; its log says why"))
        if answer is not None:
            await answer.send(send, extra)

    async def respond(self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders) -> Answer | None:
        """Return the answer, or None where it was sent already."""
        raise NotImplementedError  # pragma: no cover (every endpoint has its own)
