"""Server-Sent Events and NDJSON: one response that does not end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import abstractmethod
from collections.abc import Iterable

from tellwire.errors import CloseCode, TellwireError
from tellwire.hub import DEAD_AFTER_BEATS, Placement
from tellwire.node import Caller, Node, caller_of
from tellwire.protocol import sse
from tellwire.protocol.encodings import Batch, Encoding, EventStreamEncoding, LinesEncoding, event_stream, lines
from tellwire.protocol.pushes import Closing, GapPush
from tellwire.subscriber import Subscriber
from tellwire.transports.direct import RESPONSE, DirectResponse
from tellwire.transports.requests import Answer, Endpoint, Query, RawHeaders, Receive, Scope, Send
from tellwire.transports.writer import SLOT_MAX_BYTES, SocketWriter

StreamEncoding = EventStreamEncoding | LinesEncoding

_NO_STORE: RawHeaders = [
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would else collect the events before it passes them on
    (b"x-content-type-options", b"nosniff"),
]

LAST_CHUNK = b"0\r\n\r\n"
"""End of a chunked body (RFC 9112, section 7.1)."""


class DirectStreamDoor(SocketWriter):
    """A stream that the flush writes to itself."""

    __slots__ = ("_chunked", "_node", "encoding", "subscriber")

    hears = False

    def __init__(self, node: Node, transport: asyncio.Transport, encoding: StreamEncoding, *, chunked: bool) -> None:
        super().__init__(transport)
        self._node = node
        self._chunked = chunked
        self.encoding = encoding
        self.subscriber: Subscriber | None = None
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # A reader that only reads cannot be heard; but its kernel acknowledges the signs of life (RFC 5482).
            dead_after_ms = int(node.limits.heartbeat_s * DEAD_AFTER_BEATS / 2 * 1000)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, dead_after_ms)

    def on_full(self) -> None:
        self.writable = False

    def on_writable(self) -> None:
        if self.subscriber is not None and not self.subscriber.closed:
            self.writable = True
            self.subscriber.silent_beats = 0
            self.subscriber.advance()

    def on_gone(self) -> None:
        self.lost()
        if self.subscriber is not None:
            self._node.dismiss(self.subscriber)

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        if self.subscriber is None or self.subscriber.closed:
            return
        self._node.dismiss(self.subscriber, code, reason)
        if code is CloseCode.DEAD:
            self.lost()
            self.transport.abort()
            return
        self.write(self.encoding.push(Closing(code, reason, reconnect_in_ms)) + (LAST_CHUNK if self._chunked else b""))
        self.writable = False
        self.transport.close()

    def shutdown(self) -> None:
        self.close(CloseCode.GOING_AWAY, "the server stops")


class AsgiStreamDoor:
    """A stream through ASGI: what is written waits, bounded, until the server has sent it."""

    hears = True  # a peer that lives takes the sign of life that it is sent

    def __init__(self, node: Node, encoding: StreamEncoding) -> None:
        self.writable = True
        self.encoding = encoding
        self.subscriber: Subscriber | None = None
        self._node = node
        self._out: list[bytes] = []
        self._size = 0  # bytes in it, and in what is being sent
        self._ends = False
        self._is_dead = False
        self._wake = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    def write(self, batch: bytes) -> None:
        self._out.append(batch)
        self._size += len(batch)
        self.writable = self._size < SLOT_MAX_BYTES and not self._ends
        self._wake.set()

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        if not self._ends and self.subscriber is not None:
            self._node.dismiss(self.subscriber, code, reason)
            self.write(self.encoding.push(Closing(code, reason, reconnect_in_ms)))
            self._ends = True
            self.writable = False
            if code is CloseCode.DEAD and self._serving is not None:
                # The server waits for a socket that takes nothing; the way out is not to complete the response.
                self._is_dead = True
                self._serving.cancel()

    async def serve(self, receive: Receive, send: Send) -> None:
        """Send until the peer goes away or the stream is closed."""
        gone = asyncio.ensure_future(self._wait_for_end(receive))
        self._serving = asyncio.current_task()
        assert self.subscriber is not None
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if gone.done():
                    return
                out, self._out = self._out, []
                ends = self._ends  # else what says why is still to be sent
                body = b"".join(out)
                await send({"type": "http.response.body", "body": body, "more_body": not ends})
                if ends:
                    return
                self._size -= len(body)
                self.writable = self._size < SLOT_MAX_BYTES and not self._ends
                self.subscriber.silent_beats = 0
                self.subscriber.advance()
        except asyncio.CancelledError:
            if not self._is_dead:
                raise
        finally:
            self._serving = None
            self._node.dismiss(self.subscriber)
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    async def _wait_for_end(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._wake.set()


class StreamEndpoint(Endpoint):
    """A response that does not end: subclasses say how it is written."""

    content_type: bytes

    @abstractmethod
    def encoding(self, query: Query, *, chunked: bool) -> StreamEncoding:
        """Return how the stream is written."""

    @abstractmethod
    def opening(self, encoding: StreamEncoding, subscriber: Subscriber, placement: Placement) -> Batch:
        """Return what the stream begins with."""

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        node = self.node
        query = Query(scope)
        caller.session = query.session
        attendance = query.attendance
        channels = query.need_channels(node.own_channels(caller))
        wanted = await node.reading.wanted_of(caller, channels, query.policy, attendance)
        direct: DirectResponse | None = scope.get("extensions", {}).get(RESPONSE)
        chunked = direct is not None and direct.has_chunks
        encoding = self.encoding(query, chunked=chunked)
        headers = [(b"content-type", self.content_type), *_NO_STORE, *extra]
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return None
        since, last = query.start(scope)
        placement = await node.reading.place(wanted, since, last, query.on_gap)
        try:
            door: DirectStreamDoor | AsgiStreamDoor
            if direct is not None:
                door = DirectStreamDoor(node, direct.transport, encoding, chunked=chunked)
            else:
                door = AsgiStreamDoor(node, encoding)
            subscriber = door.subscriber = node.admit(door, encoding, caller)
        except BaseException:
            node.hub.let_go(placement.subscriptions)
            raise
        begin = self.opening(encoding, subscriber, placement)
        if isinstance(door, DirectStreamDoor):
            assert direct is not None
            direct.take(door)
            if chunked:
                headers.append((b"transfer-encoding", b"chunked"))
            else:
                headers.append((b"connection", b"close"))
            if direct.transport.is_closing():
                door.on_gone()
            door.write(direct.head(200, headers) + begin)
        else:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            except BaseException:
                node.dismiss(subscriber)
                node.hub.let_go(placement.subscriptions)
                raise
            door.write(begin)
        node.hub.join(subscriber, placement)
        if attendance == "enter":
            await self._enter(subscriber, channels)
        if isinstance(door, AsgiStreamDoor):
            await door.serve(receive, send)
        return None

    async def _enter(self, subscriber: Subscriber, channels: Iterable[str]) -> None:
        """Make the reader a member of what it reads; its answer has begun, so that it is closed where that fails."""
        try:
            await self.node.members.attend(caller_of(subscriber), channels, subscriber)
        except TellwireError as exc:
            self.node.counters.rejects[exc.code] += 1
            subscriber.door.close(exc.close_code or CloseCode.TRY_AGAIN_LATER, exc.detail)


def _gap(encoding: Encoding, placement: Placement) -> Batch:
    return encoding.push(GapPush.of(placement.gap)) if placement.gap is not None else b""


class EventsEndpoint(StreamEndpoint):
    """``/v1/events``: Server-Sent Events."""

    content_type = b"text/event-stream"
    transport = "sse"

    def encoding(self, query: Query, *, chunked: bool) -> EventStreamEncoding:
        return event_stream(envelope=query.flag("envelope"), chunked=chunked)

    def opening(self, encoding: StreamEncoding, subscriber: Subscriber, placement: Placement) -> Batch:
        # The cursor goes ahead as an id without data: an EventSource that is cut before its first message comes back
        # with it, and has missed nothing (HTML 9.2.6 sets the last event id even where nothing is dispatched). It comes
        # after the gap that it is past: who is cut between the two has the old one still, and is told once more.
        retry = sse.write_retry(self.node.limits.sse_retry_ms)
        place = f"id: {placement.cursor}\n\n".encode()
        if placement.gap is None:
            return encoding.seal(retry + place)
        return encoding.seal(retry) + _gap(encoding, placement) + encoding.seal(place)


class LinesEndpoint(StreamEndpoint):
    """``/v1/stream``: NDJSON, the pushes of a WebSocket as lines."""

    content_type = b"application/x-ndjson"
    transport = "stream"

    def encoding(self, query: Query, *, chunked: bool) -> LinesEncoding:
        return lines(chunked=chunked)

    def opening(self, encoding: StreamEncoding, subscriber: Subscriber, placement: Placement) -> Batch:
        # No place that is past a gap is told before it: who is cut between the two has what it came with still, and
        # is told once more.
        greeting = self.node.greet(subscriber)
        greeting.cursor = str(placement.cursor) if placement.gap is None else placement.gap.from_
        return encoding.push(greeting) + _gap(encoding, placement)
