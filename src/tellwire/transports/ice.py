"""``GET /v1/ice-servers``: by which STUN and TURN servers a client may find its peers."""

from __future__ import annotations

import time

import msgspec

from tellwire.auth import Identity
from tellwire.ice import IceServer
from tellwire.node import OPEN, Caller, Node
from tellwire.transports.requests import Answer, Endpoint, RawHeaders, Receive, Scope, Send


class _Servers(msgspec.Struct):
    ice_servers: list[IceServer]
    expires_in_ms: int | None


def ice_servers(node: Node, identity: Identity | None) -> tuple[list[IceServer], int | None]:
    """Return what somebody may use, and for how many milliseconds.

    A relay is for users that are known; on a server that is open to its own machine only, for everybody.
    """
    if identity is None:
        return node.ice.list_for(None, time.time())
    user = identity.user if identity.user is not None or identity is not OPEN else "open"
    return node.ice.list_for(user, time.time(), identity.expires_at)


class IceServersEndpoint(Endpoint):
    """Tells a client its STUN and TURN servers."""

    transport = "ice"

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        servers, expires_in_ms = ice_servers(self.node, caller.identity)
        return Answer(200, msgspec.json.encode(_Servers(servers, expires_in_ms)))
