"""What comes with TLS: HTTP/2, and HTTP/1.1 by the same protocol as without it."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, cast

from uvicorn.config import Config
from uvicorn.protocols.http.zttp_h2_impl import RequestResponseCycle, ZttpH2Protocol
from uvicorn.server import ServerState
from zttp import H2Settings

from tellwire.errors import RequestTimeout, TooManyConnections
from tellwire.limits import Visit, client_address
from tellwire.transports.direct import Bounds, DirectHttpProtocol, DirectWebSocketProtocol, direct_protocols
from tellwire.transports.requests import Receive, Scope, Send


class PacedHttp2Protocol(ZttpH2Protocol):
    """uvicorn's HTTP/2 protocol, whose ``send()`` waits for a peer that takes nothing, with bounds on connections.

    A peer gives credit for each stream (RFC 9113, section 5.2). zttp parks what goes beyond it without a bound, and
    uvicorn waits for the socket only: a reader that stands still would cost all that is published meanwhile.

    A connection too many is sent GOAWAY, since there is no request yet to answer. zttp does not tell of a head before
    it is whole: ``head_s`` is for the first one of a connection, and what comes of others ends with ``idle_s``.
    """

    bounds: ClassVar[Bounds] = Bounds()

    visit: Visit | None = None
    """The connection's place in the counts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._credit = asyncio.Event()
        self._stops = False
        self._is_unknown = True  # until its first request
        self._due = 0.0  # when the connection goes unless a request comes
        self.app = cast(Any, self._run_paced)

    async def _run_paced(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = cast(RequestResponseCycle, cast(Any, send).__self__)
        bounds = self.bounds
        if bounds.trusted and self.client is not None:
            scope["client"] = (client_address(self.client[0], scope["headers"], bounds.trusted), 0)
        body_due = self.loop.time() + bounds.limits.body_s

        async def paced(message: Any) -> None:
            await send(message)
            while cycle.stream.pending_bytes and not cycle.disconnected and not self._stops:
                self._credit.clear()
                await self._credit.wait()

        async def timely() -> Any:
            if not cycle.more_body:
                return await receive()
            try:
                async with asyncio.timeout_at(body_due):
                    return await receive()
            except TimeoutError:
                bounds.hit("body_s")
                raise RequestTimeout(
                    f"the body of a request has to arrive within {bounds.limits.body_s:g} s (body_s)"
                ) from None

        await cast(Any, self.config.loaded_app)(scope, timely, paced)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # zttp writes its settings once, so that what uvicorn writes next is nothing.
        self.conn.initiate_connection()
        transport.write(drop_setting(self.conn.data_to_send(), H2Settings.ENABLE_CONNECT_PROTOCOL))
        super().connection_made(transport)
        if self.bounds.turnstile is not None:
            try:
                self.visit = self.bounds.turnstile.enter(self.client[0] if self.client else "")
            except TooManyConnections as exc:
                self._turn_away(exc)
                return
            self.visit.unknown(self._turn_away)
        # uvicorn's own timer begins with the first bytes; a peer that sends none would stay for ever.
        self._due = self.loop.time() + self.bounds.limits.head_s
        self._watch("head_s")

    def _turn_away(self, exc: TooManyConnections) -> None:
        self._close_connection()

    def _watch(self, name: str) -> None:
        """See that a request comes in time: uvicorn begins anew with every frame, and any frame would keep it."""
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_at(self._due, self._overdue, name)

    def _overdue(self, name: str) -> None:
        if not self.cycles and not self.transport.is_closing():
            self.bounds.hit(name)
            self._close_connection()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._credit.set()
        if not self.cycles:
            self._watch("head_s" if self._is_unknown else "idle_s")

    def handle_request(self, event: Any) -> None:
        self._is_unknown = False
        if self.visit is not None:
            self.visit.known()
        super().handle_request(event)
        if event.end_stream:
            # It has no body, of which zttp tells nothing more, and uvicorn would wait for one.
            cycle = self.cycles[event.stream_id]
            cycle.more_body = False
            cycle.message_event.set()

    def on_stream_closed(self) -> None:
        super().on_stream_closed()
        if not self.cycles:
            self._due = self.loop.time() + self.bounds.limits.idle_s

    def shutdown(self) -> None:
        self._stops = True
        self._credit.set()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn leaves the timer of a connection that was reset, and with it all of this.
        self._unset_keepalive_if_required()
        if self.visit is not None:
            self.visit.leave()
        self._credit.set()


def drop_setting(frame: bytes, identifier: int) -> bytes:
    """Take a setting out of a SETTINGS frame (RFC 9113, section 6.5.1).

    zttp announces extended CONNECT (RFC 8441), which uvicorn has no WebSocket for: a browser that has an HTTP/2
    connection would open its WebSockets over that and be answered 404, where it now makes a connection for them.
    """
    head, body = frame[:9], frame[9:]
    assert head[3] == 4, "a server's first frame is SETTINGS (section 3.4)"
    assert len(body) == int.from_bytes(head[:3]), "and nothing comes behind it"
    settings = [body[at : at + 6] for at in range(0, len(body), 6)]
    kept = b"".join(setting for setting in settings if int.from_bytes(setting[:2]) != identifier)
    return len(kept).to_bytes(3) + head[3:] + kept


class SecureProtocol(asyncio.Protocol):
    """Gives each connection the protocol that its TLS handshake chose (ALPN, RFC 7301)."""

    alpn_protocols: ClassVar[list[str]] = ["h2", "http/1.1"]
    http1: ClassVar[type[DirectHttpProtocol]] = DirectHttpProtocol
    http2: ClassVar[type[PacedHttp2Protocol]] = PacedHttp2Protocol

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._arguments: Any = (config, server_state, app_state, _loop)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        make: type[PacedHttp2Protocol | DirectHttpProtocol] = self.http2 if chosen == "h2" else self.http1
        protocol = make(*self._arguments)
        cast(asyncio.Transport, transport).set_protocol(protocol)
        protocol.connection_made(cast(asyncio.Transport, transport))


def secure_protocols(bounds: Bounds) -> tuple[type[SecureProtocol], type[DirectWebSocketProtocol]]:
    """Make the protocols of one server with TLS; see `direct_protocols`."""
    http1, websocket = direct_protocols(bounds)
    http2 = type("BoundHttp2Protocol", (PacedHttp2Protocol,), {"bounds": bounds})
    return type("BoundSecureProtocol", (SecureProtocol,), {"http1": http1, "http2": http2}), websocket
