"""``POST /v1/rtc``: an offer of data channels, and its answer (spec, section 17.1; after RFC 9725)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from tellwire.errors import NotFound, UnsupportedMediaType
from tellwire.ice import link_fields
from tellwire.node import Caller, Node
from tellwire.transports.ice import ice_servers
from tellwire.transports.requests import (
    Answer,
    Endpoint,
    Query,
    RawHeaders,
    Receive,
    Scope,
    Send,
    content_type,
    read_whole,
)

TRANSPORT = "webrtc"

SDP = b"application/sdp"


class Accepted(NamedTuple):
    """An offer that was taken: what its connection is called, and the answer (SDP)."""

    id: str
    answer: bytes


class RtcHost(Protocol):
    """Where data channels end: in this process, or in others."""

    offer_max_bytes: int
    """Largest offer that is read."""

    async def open(self) -> None:
        """Begin; raises OSError where the addresses cannot be had. May be called twice."""

    async def accept(self, offer: bytes, caller: Caller, since: str | None) -> Accepted:
        """Take an offer; raises TellwireError."""

    async def end(self, id_: str, caller: Caller) -> bool:
        """End a connection of the same user's; False where there is none."""

    async def aclose(self) -> None:
        """Close everything; may be called twice."""


class RtcEndpoint(Endpoint):
    """Takes offers, and at a path below it ends what became of them."""

    transport = TRANSPORT

    def __init__(self, node: Node, host: RtcHost) -> None:
        super().__init__(node)
        self._host = host

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        if scope["method"] == "DELETE":
            id_ = scope["path_params"]["id"]
            if not await self._host.end(id_, caller):
                raise NotFound("there is no such connection, or it has ended already")
            return Answer(200, b"{}")
        kind = content_type(scope)
        if kind != SDP.decode():
            raise UnsupportedMediaType(f"an offer comes as application/sdp, not {kind[:60]!a}")
        query = Query(scope)
        caller.session = query.session
        since = query.text("since")
        body = await read_whole(scope, receive, self._host.offer_max_bytes)
        accepted = await self._host.accept(body, caller, since)
        location = f"{scope.get('root_path', '')}/v1/rtc/{accepted.id}".encode()
        links = link_fields(ice_servers(self.node, caller.identity)[0])
        return Answer(201, accepted.answer, SDP, ((b"location", location), *links))
