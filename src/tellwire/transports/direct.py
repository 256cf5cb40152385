"""The way past ASGI: uvicorn's protocols, taught to hand their transport to a door.

An endpoint that finds one of these objects in ``scope["extensions"]`` may take the connection over: the flush then
writes to the socket itself, and neither task nor queue is kept for the connection. Under any other server the
extensions are missing and the same endpoints go through ``send()``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from tellwire.errors import BadRequest, RequestTimeout, TellwireError, TooLarge, TooManyConnections
from tellwire.limits import LimitHits, Limits, Network, Turnstile, Visit, client_address
from tellwire.tasks import Tasks
from tellwire.transports.handshake import (
    WEBSOCKET,
    Connections,
    DirectHandshake,
    DirectWebSocketProtocol,
    read_opening,
    websocket_scope,
)
from tellwire.transports.requests import problem
from tellwire.transports.writer import descriptor_of

RESPONSE = "tellwire.response"
"""Name of the extension that hands an HTTP response over."""

WEBSOCKET_PATH = b"/v1/ws"
"""Where the application takes WebSockets by their extension, and in no other way."""

PARSED_AT_ONCE_BYTES = 16_384
"""What is parsed before it is seen whether requests queue up: a small one weighs sixty times as much once parsed."""

HELD_MAX_BYTES = 65_536
"""What is kept, as it came, of requests behind the one that is under way; then reading pauses."""

HEAD_MAX_BYTES = 65_536
"""Largest head of a request, its target and fields together; neither uvicorn nor its parser has a bound."""


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
        self._protocol: DirectHttpProtocol | None = protocol

    def resume_reading(self) -> None:
        if self._protocol is not None and not self._protocol.has_more:
            super().resume_reading()

    def let_go(self) -> None:
        """Read no more; without this the two, which know each other, would be left to the garbage collector."""
        self._protocol = None


class Bounds(NamedTuple):
    """What the connections of one server are held to, and who counts them."""

    limits: Limits = Limits()
    turnstile: Turnstile | None = None
    """Without one, connections are not counted."""
    hits: LimitHits | None = None
    """Told of the deadlines that were missed."""
    trusted: Collection[Network] = ()
    """Networks of the proxies whose word for whom they ask is taken."""

    def hit(self, name: str) -> None:
        """Count a bound that was met."""
        if self.hits is not None:
            self.hits.limit_hit(name)


class DirectHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.x protocol, with the extension, and with bounds on how much, how many and how long.

    `direct_protocols` binds it to the bounds of a server; as it is, it has the default ones and counts nothing.
    """

    bounds: ClassVar[Bounds] = Bounds()
    _handshakes: ClassVar[Tasks] = Tasks()

    door: ResponseDoor | None = None
    visit: Visit | None = None
    """The connection's place in the counts."""
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
    _due: Literal["head_s", "body_s"] | None = None
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = PipelineFlow(transport, self)
        if self.bounds.turnstile is not None:
            try:
                self.visit = self.bounds.turnstile.enter(self.client[0] if self.client else "")
            except TooManyConnections as exc:
                self._turn_away(exc)
                return
            self.visit.unknown(self._turn_away)
        self._watch()

    def _turn_away(self, exc: TooManyConnections) -> None:
        """Refuse the connection, at once: nothing is read of what it wants."""
        fd = descriptor_of(self.transport)
        if fd >= 0:
            # A socket that is closed with something unread in it is reset, and the answer may be lost with it.
            with suppress(OSError):
                os.read(fd, HEAD_MAX_BYTES)
        self._is_broken = True
        self._unwatch()
        self._answer(exc)

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
        self._let_go()
        super().on_response_complete()
        if self._held and not self.pipeline:
            held, self._held = self._held, b""
            self.data_received(held)
        self.flow.resume_reading()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._head_began = self._arriving = True
        self._head_size = 0
        if cast(object, self.cycle) is not None and self._due is not None:
            self._unwatch()  # each request has its time; the first one has it from the beginning of the connection

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes behind a chunked body is no field of the head, whatever it is called (RFC 9110, section 6.5.1).
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_MAX_BYTES:
            self._refusal = _head_too_large()
            raise self._refusal
        if self.visit is not None:
            self.visit.known()
            if self.bounds.trusted:
                self._place(self.visit)
        super().on_headers_complete()

    def _place(self, visit: Visit) -> None:
        """Count the connection for the client for whom a trusted proxy asks, and let the endpoints see that one."""
        peer = self.client[0] if self.client else ""
        address = client_address(peer, self.headers, self.bounds.trusted)
        try:
            visit.move(address)
        except TooManyConnections as exc:
            self._refusal = exc
            raise
        if address != peer:
            self.scope["client"] = (address, 0)

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
        self._answer(self._refusal or BadRequest("this is not HTTP as it is understood here"))

    def _answer(self, exc: TellwireError) -> None:
        """Answer with an error that is no endpoint's, and close."""
        answer = problem(exc)
        lines = [STATUS_LINE[answer.status]]
        for name, value in [*self.server_state.default_headers, *answer.headers([(b"connection", b"close")])]:
            lines += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join([*lines, b"\r\n", answer.body]))
        self.transport.close()

    def _watch(self) -> None:
        """See that the head of a request arrives, and then its body, each within its time."""
        cycle: RequestResponseCycle | None = self.cycle
        due: Literal["head_s", "body_s"] | None = None
        if self._is_upgraded or self._is_broken:
            pass
        elif self._arriving:
            due = "head_s" if self._in_head else "body_s"
        elif self.door is None and (cycle is None or cycle.response_complete) and self.timeout_keep_alive_task is None:
            due = "head_s"  # of a connection that was just made, or that sent what is no request yet
        if due != self._due:
            self._unwatch()
            if due is not None and not self.transport.is_closing():
                self._due = due
                self._deadline = self.loop.call_later(getattr(self.bounds.limits, due), self._overdue)

    def _unwatch(self) -> None:
        self._due = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _overdue(self) -> None:
        name, self._due, self._deadline = self._due, None, None
        assert name is not None
        if self.flow.read_paused if name == "body_s" else self._held:
            self._watch()  # what is missing may have come long ago: it is the server that has not come to reading it
            return
        self.bounds.hit(name)
        cycle: RequestResponseCycle | None = self.cycle
        if not self._arriving or (name == "body_s" and cycle is not None and cycle.response_started):
            # Nothing was asked, or it was answered without its body.
            self.transport.close()
            return
        part = "head" if name == "head_s" else "body"
        seconds = getattr(self.bounds.limits, name)
        self._refusal = RequestTimeout(f"the {part} of a request has to arrive within {seconds:g} s ({name})")
        self.send_400_response("")

    def handle_websocket_upgrade(self) -> None:
        # The connection is another protocol's from here on; without the parser, which points back here, nothing is left
        # of this one for the garbage collector to find.
        self._is_upgraded = True
        self._unwatch()
        if not self._open_directly():
            super().handle_websocket_upgrade()
            protocol: Any = self.transport.get_protocol()
            protocol.visit = self.visit
        self.visit = None
        cast(PipelineFlow, self.flow).let_go()
        self.parser = None  # type: ignore[assignment]  # as uvicorn itself does when a connection is lost

    def _open_directly(self) -> bool:
        """Let the application answer a handshake without parsing it once more; False for those out of the ordinary."""
        scope = cast(dict[str, Any], self.scope)
        url = self.url
        if not (
            url.partition(b"?")[0] == WEBSOCKET_PATH
            and b"#" not in url
            and scope["method"] == "GET"
            and scope["http_version"] == "1.1"
            and issubclass(cast(type, self.ws_protocol_class), DirectWebSocketProtocol)
        ):
            return False
        opening = read_opening(self.headers, has_deflate=self.config.ws_per_message_deflate)
        if opening is None:
            return False
        connections = cast(Connections, self.connections)
        handshake = DirectHandshake(self.transport, opening, self.visit, connections)
        handshake.max_size = self.config.ws_max_size
        handshake.default_headers = self.server_state.default_headers
        connections.discard(self)
        task = handshake.run(self.app, websocket_scope(scope, url, opening), self._handshakes)
        if task is not None:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        return True

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
        # uvicorn leaves the timer of a connection that was reset; it would keep all of this for idle_s, uncounted.
        self._unset_keepalive_if_required()
        if self.visit is not None:
            self.visit.leave()
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells the request that was parsed last; that is not the one under way where others wait.
            self._running.disconnected = True
            self._running.message_event.set()
        door, self.door = self.door, None
        if door is not None:
            door.on_gone()
        super().connection_lost(exc)
        cast(PipelineFlow, self.flow).let_go()
        self._let_go()
        self.cycle = None  # type: ignore[assignment]  # as before the first request

    def _let_go(self) -> None:
        """Leave no circle of the request that was under way for the garbage collector: it and its extension."""
        running, self._running = self._running, None
        if running is not None:
            cast(dict[str, Any], running.scope)["extensions"].pop(RESPONSE, None)

    def shutdown(self) -> None:
        if self.door is not None:
            self.door.shutdown()
        super().shutdown()


def _head_too_large() -> TooLarge:
    return TooLarge(f"the head of a request, its target and fields, has at most {HEAD_MAX_BYTES} bytes")


def direct_protocols(bounds: Bounds) -> tuple[type[DirectHttpProtocol], type[DirectWebSocketProtocol]]:
    """Make the protocols of one server, for uvicorn's ``http`` and ``ws``."""
    http = type("BoundHttpProtocol", (DirectHttpProtocol,), {"bounds": bounds, "_handshakes": Tasks()})
    return http, DirectWebSocketProtocol


__all__ = [
    "RESPONSE",
    "WEBSOCKET",
    "Bounds",
    "Connections",
    "DirectHttpProtocol",
    "DirectResponse",
    "DirectWebSocketProtocol",
    "ResponseDoor",
    "direct_protocols",
]
