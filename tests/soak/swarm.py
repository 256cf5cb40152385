"""Thousands of clients that come, talk and die, cheap enough to run beside their server.

Each is a coroutine that lives one life after another, over whichever wire comes up: bytes are written as they are, what
comes is counted and hardly looked at. The pauses are the pace of the load; nothing waits for them.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import socket
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from tellwire.node.callers import client_name
from tests.wires import BINARY, TEXT, handshake_fields, write_frame

CHANNELS = 200
LIFE_S = 8.0
"""How long a connection lives on average."""

PAUSE_S = 3.0
"""Between two acts of a client, on average."""

KINDS = {
    "websocket": 6, "msgpack": 3, "events": 4, "lines": 2, "poll": 3, "requests": 2,
    "half_open": 1, "garbage": 1, "stranger": 1,
}  # fmt: skip
"""The wires, and how often each comes up."""


class Sink(asyncio.Protocol):
    """A connection of which little more is kept than that it goes on."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._streams = False
        self.over = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # of a socket
        self._swarm.open.add(self)

    def data_received(self, data: bytes) -> None:
        self._swarm.bytes += len(data)
        if b'"internal"' in data:
            self._swarm.failures.append(data)
        if self._streams:
            return
        self._buffer += data
        if self._answer is None or self._answer.done():
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end])
        place = head.lower().find(b"\r\ncontent-length: ")
        size = 0 if place < 0 else int(head[place + 18 :].split(b"\r\n", 1)[0])
        self._streams = place < 0
        if len(self._buffer) >= end + 4 + size:
            body = bytes(self._buffer[end + 4 : end + 4 + size])
            self._buffer.clear()
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        self._swarm.open.discard(self)
        self.over.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())

    def write(self, data: bytes) -> None:
        """Send something, unless there is nobody any more."""
        if not self.transport.is_closing():
            self.transport.write(data)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return the answer's status and body, of a stream only that it has begun."""
        if self.over.is_set() or self.transport.is_closing():
            raise ConnectionResetError
        self._answer = self._loop.create_future()
        self.transport.write(request)
        return await self._answer

    def reset(self) -> None:
        """Go without a word: the peer gets RST."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None and not self.transport.is_closing():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Swarm:
    """Clients of one server.

    Args:
        port: Where the server listens.
        tokens: By user.
        seed: Of what they do.
    """

    def __init__(self, port: int, tokens: dict[str, str], seed: int) -> None:
        self._port = port
        self._tokens = list(tokens.items())
        self._random = random.Random(seed)
        self._doors = asyncio.Semaphore(50)
        self._present: deque[tuple[str, str]] = deque([("room:0", "nobody")], maxlen=200)
        self.open: set[Sink] = set()
        self.bytes = 0
        self.lives = 0
        self.failures: list[bytes] = []

    async def run(self, count: int, seconds: float) -> None:
        """Let `count` clients live, each one life after another, and all die at the end."""
        lives = [asyncio.create_task(self._live(number)) for number in range(count)]
        done, _ = await asyncio.wait(lives, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        for sink in list(self.open):
            sink.reset()
        for life in done:
            life.result()  # raises what went wrong in it

    async def _live(self, number: int) -> None:
        session: str | None = None
        while True:
            if session is None or self._random.random() < 0.5:
                session = secrets.token_urlsafe(12)
            kind = self._random.choices(list(KINDS), list(KINDS.values()))[0]
            user, token = self._random.choice(self._tokens)
            address = f"127.0.0.{2 + number % 200}"
            with suppress(OSError):
                async with self._doors:
                    _, sink = await asyncio.get_running_loop().create_connection(
                        lambda: Sink(self), "127.0.0.1", self._port, local_addr=(address, 0)
                    )
                self.lives += 1
                with self._dying(sink):
                    life = getattr(self, f"_{kind}")(sink, Client(self._random, user, token, session))
                    async with asyncio.timeout(self._random.expovariate(1 / LIFE_S)):
                        await life

    @contextmanager
    def _dying(self, sink: Sink) -> Iterator[None]:
        """End a connection in one of the ways there are, when its time is over."""
        try:
            with suppress(TimeoutError):
                yield
        finally:
            way = self._random.randrange(3)
            if way == 0:
                sink.transport.close()
            else:
                if way == 1:
                    sink.write(b"\x81\xff\x00")  # in the middle of a frame, or of a head
                sink.reset()

    async def _pause(self, sink: Sink) -> bool:
        """Wait for a while; False once the connection is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._random.expovariate(1 / PAUSE_S)):
                await sink.over.wait()
        return not sink.over.is_set()

    # Lives

    async def _websocket(self, sink: Sink, client: Client, *, packed: bool = False) -> None:
        status, _ = await sink.ask(client.get("/v1/ws", handshake_fields(packed=packed, token=client.token)))
        assert status == 101, status
        say = sink.write
        if self._random.random() < 0.1:
            sink.transport.pause_reading()
        say(client.frame(packed, type="connect", session=client.session))
        for channel in client.channels:
            say(client.frame(packed, type="subscribe", channel=channel, last=self._random.choice([None, 5])))
        room = client.channels[0]
        say(client.frame(packed, type="presence", channel=room, enter=True, watch=True, state={"typing": False}))
        self._present.append((room, client.name))
        while await self._pause(sink):
            say(client.frame(packed, **self._command(client)))

    async def _msgpack(self, sink: Sink, client: Client) -> None:
        await self._websocket(sink, client, packed=True)

    def _command(self, client: Client) -> dict[str, Any]:
        """Choose what to say next; some of it cannot be done."""
        channel = self._random.choice(client.channels)
        room, other = self._random.choice(self._present)
        return self._random.choice(
            [
                {"type": "publish", "channel": channel, "data": "x" * self._random.randrange(400)},
                {"type": "publish", "channel": channel, "data": {"n": 1}, "id": secrets.token_hex(4)},
                {"type": "publish", "channel": f"own:{client.name}", "data": 1},
                {"type": "subscribe", "channel": f"own:{client.name}"},
                {"type": "unsubscribe", "channel": channel},
                {"type": "presence", "channel": channel, "enter": True, "state": {"n": self._random.random()}},
                {"type": "presence", "channel": channel, "enter": False, "watch": False},
                {"type": "send", "channel": room, "to": other, "data": {"psst": 1}},
                {"type": "call", "method": "nothing", "data": None},
                {"type": "refresh", "token": client.token},
                {"type": "dance"},
            ]
        )

    async def _events(self, sink: Sink, client: Client, path: str = "/v1/events") -> None:
        attendance = self._random.choice(["", "&presence=watch", "&presence=enter"])
        status, _ = await sink.ask(client.get(f"{path}?{client.query}{attendance}", [client.bearer]))
        assert status == 200, status
        if self._random.random() < 0.1:
            sink.transport.pause_reading()
        await sink.over.wait()

    async def _lines(self, sink: Sink, client: Client) -> None:
        await self._events(sink, client, "/v1/stream")

    async def _poll(self, sink: Sink, client: Client) -> None:
        wait = self._random.choice([0, 2, 6])
        attendance = self._random.choice(["", "&presence=enter"])
        cursor = "now"
        while await self._pause(sink) if wait == 0 else True:
            query = f"{client.query}{attendance}&wait={wait}&since={cursor}"
            status, body = await sink.ask(client.get(f"/v1/messages?{query}", [client.bearer]))
            assert status == 200, body
            cursor = json.loads(body)["cursor"]

    async def _requests(self, sink: Sink, client: Client) -> None:
        room, other = self._random.choice(self._present)
        messages = [{"channel": name, "data": "x" * 100} for name in client.channels]
        while await self._pause(sink):
            path, what = self._random.choice(
                [
                    ("messages", messages),
                    ("presence", {"channel": client.channels[0], "session": client.session, "enter": True}),
                    ("presence", {"channel": client.channels[0], "session": client.session, "enter": False}),
                    ("send", {"channel": room, "to": other, "data": 1, "session": client.session}),
                    ("call", {"method": "nothing"}),
                    ("admin/disconnect", {"user": client.user if self._random.random() < 0.05 else "nobody"}),
                ]
            )
            status, body = await sink.ask(client.post(f"/v1/{path}", what))
            assert status in (200, 403, 404), body

    async def _half_open(self, sink: Sink, client: Client) -> None:
        sink.write(client.get("/v1/ws", handshake_fields())[: self._random.randrange(60)])
        await sink.over.wait()

    async def _garbage(self, sink: Sink, client: Client) -> None:
        sink.write(self._random.randbytes(300))
        await sink.over.wait()

    async def _stranger(self, sink: Sink, client: Client) -> None:
        """Come with a token that is not accepted, or with none and say nothing."""
        token = self._random.choice(["", "no.token", client.token + "x"])
        status, _ = await sink.ask(client.get("/v1/ws", handshake_fields(token=token)))
        assert status == 101, status
        await sink.over.wait()


class Client:
    """Who somebody is during one life, and how they write what they say."""

    def __init__(self, rng: random.Random, user: str, token: str, session: str) -> None:
        self.user = user
        self.token = token
        self.session = session
        self.name = client_name(user, session)
        self.channels = [f"room:{number}" for number in rng.sample(range(CHANNELS), rng.choice([1, 2, 3]))]
        self.query = "&".join([*(f"channel={name}" for name in self.channels), f"session={session}"])
        self.bearer = ("Authorization", f"Bearer {token}")

    def get(self, target: str, fields: list[tuple[str, str]]) -> bytes:
        """Write a request."""
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n"
        return (head + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n").encode()

    def post(self, target: str, what: Any) -> bytes:
        """Write a request with a body."""
        body = json.dumps(what).encode()
        head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\n{': '.join(self.bearer)}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    @staticmethod
    def frame(packed: bool, **command: Any) -> bytes:
        """Write a command."""
        given = {name: value for name, value in command.items() if value is not None}
        if packed:
            return write_frame(BINARY, msgspec.msgpack.encode(given))
        return write_frame(TEXT, msgspec.json.encode(given))
