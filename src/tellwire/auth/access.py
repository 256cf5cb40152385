"""Who may come in: the origins of pages, and the names that the server is reached by.

Without keys everybody who can connect may do everything; that is why such a server listens on loopback only, and lets
in only what is really on this machine. A page from elsewhere could reach it through the browser of whoever sits here,
so its ``Origin`` has to be the server's own, and ``Host`` a loopback name (else a page could have its own name
resolved to 127.0.0.1 and count as same-origin: DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from tellwire.errors import ForbiddenOrigin

Headers = Iterable[tuple[bytes, bytes]]
"""Header fields as ASGI gives them: lower-case names, raw values."""

ANY = "*"


@dataclass(frozen=True)
class Access:
    """Which pages may use this server.

    ``origins`` are let in besides the server's own; ``*`` lets in all. ``loopback_only`` refuses requests whose
    ``Host`` is not a loopback name.
    """

    origins: Collection[str] = ()
    loopback_only: bool = False

    def check(self, headers: Headers, scheme: str) -> str | None:
        """Return the origin of a page that may connect, None where none was said; raise ForbiddenOrigin."""
        found = dict(headers)
        host = found.get(b"host", b"").decode("latin-1").lower()
        if self.loopback_only and not is_loopback(host):
            raise ForbiddenOrigin(
                f"this server is open, and for programs on its own machine only; it does not answer to {host[:80]!a}"
            )
        raw = found.get(b"origin")
        if raw is None:
            return None
        origin = raw.decode("latin-1")
        if ANY in self.origins or self.trusts(headers, scheme):
            return origin
        raise ForbiddenOrigin(
            f"pages of {origin[:80]!a} may not use this server; list the origin in its settings (origins) to let them"
        )

    def trusts(self, headers: Headers, scheme: str) -> bool:
        """Tell whether cookies count: not those of a page that may come in only because all may.

        The browser sends them whatever page asks; a token that the page itself has is its own.
        """
        found = dict(headers)
        raw = found.get(b"origin")
        if raw is None:
            return True
        origin, host = raw.decode("latin-1"), found.get(b"host", b"").decode("latin-1")
        return origin in self.origins or origin.lower() == f"{_secure(scheme)}://{host.lower()}"


def _secure(scheme: str) -> str:
    return {"ws": "http", "wss": "https"}.get(scheme, scheme)


@lru_cache(maxsize=64)  # clients that come back all name the same
def is_loopback(host: str) -> bool:
    """Tell whether a ``Host`` field names this machine itself."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
