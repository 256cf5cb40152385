"""The way past ASGI: uvicorn's protocols, taught to hand their transport to a door.

An endpoint that finds one of these objects in ``scope["extensions"]`` may take the connection over: the flush then
writes to the socket itself, and neither task nor queue is kept for the connection. Under any other server the
extensions are missing and the same endpoints go through ``send()``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.server import ServerProtocol

from tellwire.errors import BadRequest, TellwireError, TooLarge
from tellwire.transports.frames import FrameParser
from tellwire.transports.requests import problem

RESPONSE = "tellwire.response"
"""Name of the extension that hands an HTTP response over."""

WEBSOCKET = "tellwire.websocket"
"""Name of the extension that hands a WebSocket over."""

PARSED_AT_ONCE_BYTES = 16_384
"""What is parsed before it is seen whether requests queue up: a small one weighs sixty times as much once parsed."""

HELD_MAX_BYTES = 65_536
"""What is kept, as it came, of requests behind the one that is under way; then reading pauses."""

_log = logging.getLogger("tellwire.websocket")
_log.setLevel(logging.WARNING)  # the parser would note every connection that opens and closes

HEAD_MAX_BYTES = 65_536
"""Largest head of a request, its target and fields together; neither uvicorn nor its parser has a bound."""

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


class PipelineFlow(FlowControl):
    """uvicorn's flow control, but that nothing more is read while requests queue up (it reads on at each answer)."""

    def __init__(self, transport: asyncio.Transport, protocol: DirectHttpProtocol) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if not self._protocol.has_more:
            super().resume_reading()


class DirectHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.x protocol, with the extension, and with bounds on how much and how long a request is."""

    door: ResponseDoor | None = None
    _held: bytes = b""
    _kept_back: bool | None = None
    _in_head = False
    _head_began = False
    _arriving = False
    _head_size = 0
    _refusal: TellwireError | None = None
    _is_broken = False
    _is_upgraded = False
    _deadline: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = PipelineFlow(transport, self)
        self._watch()

    @property
    def has_more(self) -> bool:
        """Whether requests wait for the one that is under way."""
        return bool(self.pipeline or self._held)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        scope = cast(dict[str, Any], cycle.scope)
        scope.setdefault("extensions", {})[RESPONSE] = DirectResponse(self, cycle)
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        while data and not self._is_broken:
            if self.door is not None or self.has_more:
                # The next request of the connection waits its turn (RFC 9112, section 9.3.2).
                self._held += data
                if len(self._held) > HELD_MAX_BYTES:
                    self.flow.pause_reading()
                return
            self._parse(data[:PARSED_AT_ONCE_BYTES])
            data = data[PARSED_AT_ONCE_BYTES:]

    def _parse(self, data: bytes) -> None:
        in_head, self._head_began = self._in_head, False
        super().data_received(data)
        if in_head and self._in_head and not self._head_began:
            # All of it was of one head. A field that does not end is kept in the parser, and is not seen here before.
            self._head_size += len(data)
            if self._head_size > HEAD_MAX_BYTES:
                self._refusal = _head_too_large()
                self.send_400_response("")
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._held and not self.pipeline:
            held, self._held = self._held, b""
            self.data_received(held)
        self.flow.resume_reading()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._head_began = self._arriving = True
        self._head_size = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_MAX_BYTES:
            self._refusal = _head_too_large()
            raise self._refusal
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._arriving = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not take, and close; requests that came whole before it are answered first."""
        self._is_broken = True
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.pipeline or cycle.response_started:
                self.transport.close()
                return
            if not cycle.more_body:
                cycle.keep_alive = False
                return
        answer = problem(self._refusal or BadRequest("this is not HTTP as it is understood here"))
        lines = [STATUS_LINE[answer.status]]
        for name, value in [*self.server_state.default_headers, *answer.headers([(b"connection", b"close")])]:
            lines += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join([*lines, b"\r\n", answer.body]))
        self.transport.close()

    def _watch(self) -> None:
        """See that a request arrives whole, and that a connection without one goes, within the time config gives."""
        cycle: RequestResponseCycle | None = self.cycle
        is_idle = self.door is None and (cycle is None or cycle.response_complete)
        if self._is_upgraded:
            self._unwatch()
        elif self._arriving or (is_idle and self.timeout_keep_alive_task is None):
            if self._deadline is None and not self.transport.is_closing():
                self._deadline = self.loop.call_later(self.config.timeout_keep_alive, self.transport.close)
        else:
            self._unwatch()

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        # The connection is another protocol's from here on; without the parser, which points back here, nothing is left
        # of this one for the garbage collector to find.
        self._is_upgraded = True
        self.parser = None  # type: ignore[assignment]  # as uvicorn itself does when a connection is lost

    def release(self, *, keep_alive: bool) -> None:
        """Take the connection back from its door."""
        if self.flow.write_paused:
            # A peer that reads no answers does not get more of them: its next request waits until it has read this one.
            self._kept_back = keep_alive
            return
        self.door = None
        if not keep_alive:
            self.transport.close()
            return
        self.on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.door is not None:
            self.door.on_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._kept_back is not None:
            keep_alive, self._kept_back = self._kept_back, None
            self.release(keep_alive=keep_alive)
        elif self.door is not None:
            self.door.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells the request that was parsed last; that is not the one under way where others wait.
            self._running.disconnected = True
            self._running.message_event.set()
        door, self.door = self.door, None
        if door is not None:
            door.on_gone()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.door is not None:
            self.door.shutdown()
        super().shutdown()


def _head_too_large() -> TooLarge:
    return TooLarge(f"the head of a request, its target and fields, has at most {HEAD_MAX_BYTES} bytes")


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
        # Nothing is left in a circle, for the garbage collector to find.
        cast(dict[str, Any], self.scope)["extensions"].pop(WEBSOCKET)
