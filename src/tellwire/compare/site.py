"""Which server is measured, and over which way it is reached."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar, cast
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from tellwire.compare.failures import Unmeasured

P = TypeVar("P", bound=asyncio.BaseProtocol)

Query = Mapping[str, str | int]
"""Parameters of a request."""

_UNTRUSTED = (7, 18, 19, 20, 21)
"""X509_V_ERR_… of OpenSSL's x509_vfy.h: signed by another of the same name; self-signed, alone or in the chain;
no issuer found, here or there."""

NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")
"""What OpenSSL makes of an answer that is no TLS."""


@dataclass(frozen=True)
class Site:
    """A server: its address, what is shown to it, and where it is dialled, which may be a proxy's port."""

    host: str
    port: int
    netloc: str
    """What stands in ``Host``."""
    path: str
    """Below which path the server lives, without a slash at its end."""
    token: str | None = None
    tls: ssl.SSLContext | None = None
    via: int | None = None
    """A port of this machine that is dialled in place of the server's."""

    @property
    def url(self) -> str:
        """Where it is, for people and for other clients; past the proxy, if there is one."""
        return f"{'https' if self.tls else 'http'}://{self.netloc}{self.path}"

    def through(self, port: int) -> Site:
        """Return the same server, dialled at a port of this machine."""
        return replace(self, via=port)

    def fields(self, **more: str) -> dict[str, str]:
        """Return the header fields of a request to it."""
        found = {"Host": self.netloc, "User-Agent": "tellwire-compare"}
        if self.token:
            found["Authorization"] = f"Bearer {self.token}"
        return {**found, **more}

    def target(self, path: str, query: Query | None = None) -> str:
        """Return what stands in a request's first line."""
        return f"{quote(self.path)}{path}" + (f"?{urlencode(query)}" if query else "")

    async def dial(self, protocol: P) -> P:
        """Connect; raises Unmeasured where nobody answers."""
        host, port = ("127.0.0.1", self.via) if self.via is not None else (self.host, self.port)
        name = self.host if self.tls else None
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: protocol, host, port, ssl=self.tls, server_hostname=name
            )
        except ssl.SSLError as exc:
            raise Unmeasured("broken", tls_failure(exc, self.netloc)) from exc
        except OSError as exc:
            raise Unmeasured("broken", f"{self.netloc} cannot be connected to: {exc.strerror or exc}") from exc
        return protocol


def site_of(url: str, *, token: str | None = None, tls: ssl.SSLContext | None = None) -> Site:
    """Return the server at a URL; raises ValueError for what is none.

    Args:
        url: Such as ``http://127.0.0.1:8000``, also with a path.
        token: Shown to it.
        tls: Which certificates are accepted; by default those that the system trusts.
    """
    parts = address_of(url)
    assert parts.hostname is not None
    secure = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
    port = parts.port or (443 if secure else 80)
    netloc = parts.netloc.rpartition("@")[2]
    return Site(parts.hostname, port, netloc, parts.path.rstrip("/"), token, secure)


def address_of(url: str) -> SplitResult:
    """Return the parts of a server's URL, ``ws`` and ``wss`` as ``http`` and ``https``; raises ValueError."""
    try:
        parts = urlsplit(url)
        parts = parts._replace(scheme={"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme))
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # of a port or an address in brackets
        pass
    raise ValueError(f"{url!a} is not the address of a server; one looks like http://127.0.0.1:8000")


def tls_failure(exc: ssl.SSLError, netloc: str) -> str:
    """Say why TLS with a server came to nothing."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate of {netloc} is not accepted: {_judged(exc)}"
    if exc.reason in NOT_TLS:
        return f"{netloc} does not speak TLS: it may want http://"
    return f"TLS with {netloc} failed: {exc.reason or exc}"


def _judged(exc: ssl.SSLCertVerificationError) -> str:
    if exc.verify_code in _UNTRUSTED:
        return "nobody who is trusted here has signed it; --ca-file gives the authority that is to be trusted"
    says = exc.verify_message.rstrip(".")
    return says if says[:2].isupper() else says[:1].lower() + says[1:]  # "IP address mismatch"


def reset(transport: asyncio.BaseTransport | None) -> None:
    """Cut a connection with a RST, as what a network that broke looks like from the other side."""
    if transport is None:
        return
    wire = transport.get_extra_info("socket")
    if wire is not None:
        with contextlib.suppress(OSError):  # it is cut already
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cast("asyncio.Transport", transport).abort()
