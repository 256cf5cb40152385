"""The way in: who somebody is, found out once for each connection or request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple
from urllib.parse import parse_qsl

from tellwire.auth import Grants, Identity, Verifier, find_token
from tellwire.errors import Unauthorized
from tellwire.hooks import ConnectRequest, Hooks
from tellwire.node.revocations import Revocations

OPEN = Identity(grants=Grants.EVERYTHING)
"""Everybody on a server that is open to its own machine only."""

OPEN_TO_ALL = Identity(grants=Grants.ALL)
"""Everybody on a server that is open to all: no one of them is its operator."""


class Handshake(NamedTuple):
    """What a request or an upgrade said of whoever sent it."""

    headers: Sequence[tuple[bytes, bytes]]
    """Lower-case names, raw values, as ASGI gives them."""
    query: bytes
    path: str
    address: str
    transport: str
    subprotocols: Sequence[str] = ()


class Entrance:
    """Finds out who somebody is: the application says so, or a token does, or everybody is the same.

    Args:
        verifier: Checks tokens; without one there are none.
        hooks: The application's handlers; its connect handler is asked first.
        everyone: Who comes without a token; None where one is needed.
        cookie: Name of the cookie that may hold a token; None where none may.
    """

    def __init__(
        self,
        hooks: Hooks,
        verifier: Verifier | None = None,
        everyone: Identity | None = OPEN,
        cookie: str | None = None,
    ) -> None:
        self.hooks = hooks
        self.revocations = Revocations()
        self._verifier = verifier
        self._everyone = everyone
        self.cookie = cookie

    async def identify(self, handshake: Handshake) -> Identity | None:
        """Return who sent a handshake, None where they still have to say; raises Unauthorized, Forbidden."""
        if self.hooks.connect is None and self._verifier is None:
            return self._everyone
        fault: Unauthorized | None = None
        try:
            token = find_token(handshake.headers, handshake.query, handshake.subprotocols, self.cookie)
        except Unauthorized as exc:  # an Authorization that is no Bearer's; the application may know what it means
            token, fault = None, exc
        if self.hooks.connect is not None:
            found = await self.hooks.ask_connect(_describe(handshake, token))
            if found is not None:
                # The application says it now, whatever was revoked before.
                return found if found.issued_at is not None else replace(found, issued_at=time.time())
        if fault is not None:
            raise fault
        return self._everyone if token is None else await self.verify(token)

    async def need_identity(self, handshake: Handshake) -> Identity:
        """Return who sent a request; raises Unauthorized where nothing says it."""
        found = await self.identify(handshake)
        if found is None:
            raise Unauthorized("this server wants a token; send one as Authorization: Bearer TOKEN or ?token=TOKEN")
        return found

    async def verify(self, token: str) -> Identity:
        """Return whose token it is; raises Unauthorized, Expired, Revoked."""
        if self._verifier is None:
            if self._everyone is None:
                raise Unauthorized("this server takes no tokens; the application says who may come in")
            return self._everyone
        identity = await self._verifier.verify(token)
        self.revocations.check(identity)
        return identity

    async def aclose(self) -> None:
        """Stop what fetches keys; may be called twice."""
        if self._verifier is not None:
            await self._verifier.aclose()


def _describe(handshake: Handshake, token: str | None) -> ConnectRequest:
    headers: dict[str, str] = {}
    for raw_name, raw_value in handshake.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        separator = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{separator}{value}" if name in headers else value
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        cookies.clear()
    pairs = parse_qsl(handshake.query.decode("latin-1"), keep_blank_values=True)
    query = {name: value for name, value in reversed(pairs) if name != "token"}
    return ConnectRequest(
        token=token,
        headers=headers,
        cookies={name: morsel.value for name, morsel in cookies.items()},
        query=query,
        path=handshake.path,
        address=handshake.address or None,
        transport=handshake.transport,
        origin=headers.get("origin"),
    )
