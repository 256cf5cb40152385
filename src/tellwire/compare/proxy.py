"""A TCP proxy in the way, which counts what passes and does to it what networks do.

How loss is modelled: TCP never loses anything, it comes later. What passes is taken for segments of 1,460 bytes, each
of which is lost with the given probability; one that is lost comes a retransmission timeout later (as Linux has it: the
round trip and 200 ms, doubled for each further time; one second for the first exchange of a connection, RFC 6298,
section 2.1), and everything behind it waits for it. Fast retransmission (RFC 5681, section 3.2) is not modelled: it
needs three further segments on their way, which a feed of small messages does not have.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Self, cast

import httptools

from tellwire.compare.path import Path
from tellwire.compare.site import reset

SEGMENT_BYTES = 1460
RETRANSMISSION_S = 0.2
FIRST_RETRANSMISSION_S = 1.0
RETRANSMISSIONS_MAX = 6
HELD_MAX_BYTES = 64 * 1024
"""What a buffering proxy keeps of one answer before it passes it on all the same."""
QUEUED_MAX_BYTES = 1024 * 1024
"""What may be on its way in one direction before the sender is read no further."""
HEAD_MAX_BYTES = 64 * 1024

_REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 24\r\n\r\nUpgrades are forbidden.\n"


class Pipe:
    """One direction of a connection: what goes in comes out later, in order.

    Args:
        path: What is done to it.
        write: Where it comes out; called with b"" when the end has come.
        chance: Where luck comes from.
    """

    def __init__(self, path: Path, write: Callable[[bytes], None], chance: random.Random) -> None:
        self._path = path
        self._write = write
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_free_at = 0.0
        self._last_due = 0.0
        self.queued_bytes = 0

    def hold_until(self, when: float) -> None:
        """Let nothing begin its way before then."""
        self._is_free_at = max(self._is_free_at, when)

    def put(self, data: bytes) -> None:
        """Send; b"" is the end."""
        path = self._path
        now = self._loop.time()
        due = max(now, self._is_free_at)
        if path.bandwidth_bits_per_s is not None:
            due += 8 * len(data) / path.bandwidth_bits_per_s
            self._is_free_at = due
        due += path.delay_s
        for _ in range(0, len(data), SEGMENT_BYTES):
            due += lost_s(path, self._chance, path.round_trip_s + RETRANSMISSION_S)
        self._last_due = due = max(due, self._last_due)
        if not self._queue and due <= now:
            self._write(data)
            return
        self.queued_bytes += len(data)
        self._queue.append((due, data))
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._come_out)

    def close(self) -> None:
        """Forget what is on its way."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _come_out(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._queue and self._queue[0][0] <= now:
            data = self._queue.popleft()[1]
            self.queued_bytes -= len(data)
            self._write(data)
        if self._queue:
            self._timer = self._loop.call_at(self._queue[0][0], self._come_out)


def lost_s(path: Path, chance: random.Random, timeout_s: float) -> float:
    """Return how much later one segment comes for having been lost, which mostly is 0."""
    waited = 0.0
    for _ in range(RETRANSMISSIONS_MAX):
        if not path.loss or chance.random() >= path.loss:
            break
        waited += timeout_s
        timeout_s *= 2
    return waited


class _Answers:
    """What a buffering proxy keeps: an answer until it is whole, or larger than the buffer."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put
        self._held = bytearray()
        self._is_whole = False
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def on_message_complete(self) -> None:
        self._is_whole = True

    def put(self, data: bytes) -> None:
        self._held += data
        if self._parser is not None:
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserUpgrade, httptools.HttpParserError):
                self._parser = None  # a WebSocket, or nothing that it understands: it stands aside
        if self._is_whole or self._parser is None or not data or len(self._held) > HELD_MAX_BYTES:
            self._is_whole = False
            held = bytes(self._held)
            self._held.clear()
            if held:
                self._put(held)
        if not data:
            self._put(b"")


class _Side(asyncio.Protocol):
    """One of the two sockets of a connection."""

    def __init__(self, took: Callable[[bytes], None], connected: Callable[[asyncio.Transport], None]) -> None:
        self._took = took
        self._connected = connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by inheritance.
        self._connected(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._took(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._took(b"")


class _Connection:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        path, self._loop = proxy.path, asyncio.get_running_loop()
        self._client: asyncio.Transport | None = None
        self._server: asyncio.Transport | None = None
        self._up = Pipe(path, self._to_server, proxy.chance)
        self._down = Pipe(path, self._to_client, proxy.chance)
        self._answers = _Answers(self._down.put).put if path.buffering_proxy else self._down.put
        self._head: bytes | None = b"" if path.no_websocket else None
        self._waiting: list[bytes] = []
        self._has_ended = False

    def accept(self) -> asyncio.Protocol:
        """Return the client's side."""
        return _Side(self._took_up, self._opened)

    def abort(self) -> None:
        """Cut both sides (RST)."""
        self._has_ended = True
        self._proxy.connections.discard(self)
        for pipe in (self._up, self._down):
            pipe.close()
        for side in (self._client, self._server):
            reset(side)

    def _opened(self, client: asyncio.Transport) -> None:
        self._client = client
        self._proxy.connections.add(self)
        path = self._proxy.path
        # The kernel accepts at once; over the way that is played here, SYN and SYN-ACK take a round trip.
        shaken = path.round_trip_s + sum(lost_s(path, self._proxy.chance, FIRST_RETRANSMISSION_S) for _ in range(2))
        if shaken:
            self._up.hold_until(self._loop.time() + shaken)
        self._proxy.start(self._dial())

    async def _dial(self) -> None:
        host, port = self._proxy.upstream
        try:
            await self._loop.create_connection(lambda: _Side(self._took_down, self._reached), host, port)
        except OSError:
            self.abort()

    def _reached(self, server: asyncio.Transport) -> None:
        self._server = server
        if self._has_ended:
            server.abort()
            return
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._to_server(data)

    def _took_up(self, data: bytes) -> None:
        self._proxy.up_bytes += len(data)
        if self._head is not None and data:
            self._head += data
            if b"\r\n\r\n" not in self._head and len(self._head) < HEAD_MAX_BYTES:
                return
            data, self._head = self._head, None
            if b"\r\nupgrade: websocket" in data.lower():
                self._answers(_REFUSAL)
                self._answers(b"")
                return
        self._up.put(data)
        self._throttle(self._client, self._up)

    def _took_down(self, data: bytes) -> None:
        self._answers(data)
        self._throttle(self._server, self._down)

    def _throttle(self, source: asyncio.Transport | None, pipe: Pipe) -> None:
        if source is not None and pipe.queued_bytes > QUEUED_MAX_BYTES and source.is_reading():
            source.pause_reading()

    def _to_server(self, data: bytes) -> None:
        if self._server is None:
            self._waiting.append(data)
            return
        _pass_on(self._server, data)
        _resume(self._client, self._up)

    def _to_client(self, data: bytes) -> None:
        self._proxy.down_bytes += len(data)
        if self._client is not None:
            _pass_on(self._client, data)
        _resume(self._server, self._down)
        if not data:
            self._proxy.connections.discard(self)


def _pass_on(to: asyncio.Transport, data: bytes) -> None:
    if to.is_closing():
        return
    if data:
        to.write(data)
    else:
        to.close()


def _resume(source: asyncio.Transport | None, pipe: Pipe) -> None:
    if source is None or source.is_closing() or source.is_reading():
        return
    if pipe.queued_bytes <= QUEUED_MAX_BYTES // 2:
        source.resume_reading()


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes on: ``async with Proxy((host, port), path) as proxy``.

    Args:
        upstream: Host and port of the server.
        path: What is done to what passes.
        seed: Which segments are lost: the same for the same seed.
    """

    def __init__(self, upstream: tuple[str, int], path: Path, *, seed: int = 1) -> None:
        self.upstream = upstream
        self.path = path
        self.chance = random.Random(seed)
        self.connections: set[_Connection] = set()
        self.up_bytes = 0
        """What clients sent, over all connections."""
        self.down_bytes = 0
        """What clients were sent."""
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self).accept(), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Cut every connection (RST)."""
        for connection in list(self.connections):
            connection.abort()

    def start(self, coro: Coroutine[None, None, None]) -> None:
        """Run what a connection does besides."""
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
