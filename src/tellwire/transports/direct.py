"""The way past ASGI: uvicorn's protocols, taught to hand their transport to a door.

An endpoint that finds one of these objects in ``scope["extensions"]`` may take the connection over: the flush then
writes to the socket itself, and neither task nor queue is kept for the connection. Under any other server the extensions
are missing and the same endpoints go through ``send()``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.server import ServerProtocol

from tellwire.transports.frames import FrameParser

RESPONSE = "tellwire.response"
"""Name of the extension that hands an HTTP response over."""

WEBSOCKET = "tellwire.websocket"
"""Name of the extension that hands a WebSocket over."""

HELD_MAX_BYTES = 65_536
"""What is kept of further requests that come while a response is under way; then reading pauses."""

_log = logging.getLogger("tellwire.websocket")
_log.setLevel(logging.WARNING)  # the parser would note every connection that opens and closes

_DEFLATE = [ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)]


class ResponseDoor(Protocol):
    """What takes an HTTP connection over."""

    def on_writable(self) -> None:
        """The socket has taken everything."""

    def on_full(self) -> None:
        """Something waits in the transport's buffer."""

    def on_gone(self) -> None:
        """The connection is over."""

    def shutdown(self) -> None:
        """The server stops."""


class DirectResponse:
    """One HTTP/1.x response that an endpoint may write itself, on the transport."""

    __slots__ = ("_cycle", "_protocol")

    def __init__(self, protocol: DirectHttpProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle

    @property
    def transport(self) -> asyncio.Transport:
        return self._protocol.transport

    @property
    def has_chunks(self) -> bool:
        """Whether the peer knows chunked bodies (HTTP/1.1); one of HTTP/1.0 reads until the connection closes."""
        return self._cycle.scope["http_version"] == "1.1"

    def take(self, door: ResponseDoor) -> None:
        """Take the connection over: `door` hears of it from now on, and nobody else writes."""
        self._cycle.response_started = True
        # Nothing else may be sent, and the end of the endpoint is not the end of the response.
        self._cycle.response_complete = True
        self._protocol.door = door

    def head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Write a status line and header fields, with those that the server adds."""
        lines = [STATUS_LINE[status]]
        for name, value in [*self._protocol.server_state.default_headers, *headers]:
            lines += (name, b": ", value, b"\r\n")
        if not self._cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def release(self) -> None:
        """Give the connection back after a whole response: the next request may come."""
        self._protocol.release(keep_alive=self._cycle.keep_alive)


class DirectHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.x protocol, with the extension."""

    door: ResponseDoor | None = None
    _held: bytes = b""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope = cast(dict[str, Any], cycle.scope)
        scope.setdefault("extensions", {})[RESPONSE] = DirectResponse(self, cycle)
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if self.door is None:
            super().data_received(data)
        else:
            # The next request of the connection waits its turn (RFC 9112, section 9.3.2).
            self._held += data
            if len(self._held) > HELD_MAX_BYTES:
                self.flow.pause_reading()

    def release(self, *, keep_alive: bool) -> None:
        """Take the connection back from its door."""
        self.door = None
        if not keep_alive:
            self.transport.close()
            return
        self.on_response_complete()
        held, self._held = self._held, b""
        if held:
            self.data_received(held)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.door is not None:
            self.door.on_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.door is not None:
            self.door.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        door, self.door = self.door, None
        if door is not None:
            door.on_gone()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.door is not None:
            self.door.shutdown()
        super().shutdown()


class WebSocketProtocol(Protocol):
    """What takes a WebSocket connection over: an asyncio protocol that uvicorn can stop."""

    def shutdown(self) -> None: ...


Connections = set[Any]
"""uvicorn's open connections: whoever takes one over is in it, and leaves it."""


class DirectWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with the extension; once the connection is handed over it has no part in it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Without context a compressed message can be shared by all who get it (RFC 7692, section 7.1.1), and an idle
        # connection keeps no 32 KiB windows.
        self.conn = FrameParser(
            extensions=_DEFLATE if self.config.ws_per_message_deflate else None,
            max_size=self.config.ws_max_size,
            logger=_log,
        )

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            cast(dict[str, Any], self.scope)["extensions"][WEBSOCKET] = self

    def hand_over(
        self,
        subprotocol: str | None,
        make: Callable[[asyncio.Transport, ServerProtocol, Connections], asyncio.BaseProtocol],
    ) -> None:
        """Finish the handshake with a subprotocol, and hand the connection to what `make` returns."""
        if self.disconnected:
            return
        if subprotocol is not None:
            self.response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self.conn.send_response(self.response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.handshake_complete = True
        # run_asgi closes the transport of an application that is done, unless a closing handshake is under way.
        self.close_timer = self.loop.call_later(0, lambda: None)
        protocol = make(self.transport, self.conn, self.connections)
        self.connections.discard(self)
        self.connections.add(cast(Any, protocol))
        self.transport.set_protocol(protocol)
