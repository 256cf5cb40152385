"""A server whose delays and whose overhead are known, to the byte; and a clock on which it keeps them exactly."""

from __future__ import annotations

import asyncio
import json
import selectors
from typing import Any, Self

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tellwire.compare.clock import Clock

FIRST_SEQ = 10_000_000
"""All numbers have as many digits, and so all messages as many bytes."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n"


class KnownServer:
    """Answers publishes at once, opens streams `open_s` after they are asked for, and delivers `deliver_s` late.

    It has Server-Sent Events, WebSockets in JSON and polls that do not wait; what it has not is answered with 404.
    """

    def __init__(self, *, open_s: float = 0.0, deliver_s: float = 0.0, padding: int = 0) -> None:
        self.open_s = open_s
        self.deliver_s = deliver_s
        self.padding = padding
        self.log: list[tuple[str, str]] = []
        self.dies_after: int | None = None
        """Publishes after which it is gone."""
        self.readers: list[_Connection] = []
        self._connections: set[_Connection] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=256)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        """Be gone, with all connections."""
        self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()

    def add(self, connection: _Connection) -> None:
        """Take notice of a connection."""
        self._connections.add(connection)

    def remove(self, connection: _Connection) -> None:
        """Forget one."""
        self._connections.discard(connection)
        if connection in self.readers:
            self.readers.remove(connection)

    def publish(self, channel: str, text: str) -> int:
        """Append; return the message's number."""
        self.log.append((channel, text))
        for reader in list(self.readers):
            reader.deliver_later(len(self.log) - 1)
        if self.dies_after is not None and len(self.log) >= self.dies_after:
            self.die()
        return FIRST_SEQ + len(self.log) - 1

    @property
    def cursor(self) -> str:
        """Where its log ends."""
        return f"known.{FIRST_SEQ + len(self.log) - 1}"

    def sse(self, place: int) -> bytes:
        """Return a message as an event."""
        comment = b": " + b"." * (self.padding - 3) + b"\n" if self.padding else b""
        return comment + f'id: known.{FIRST_SEQ + place}\ndata: "{self.log[place][1]}"\n\n'.encode()

    def push(self, place: int) -> bytes:
        """Return a message as a push."""
        channel, text = self.log[place]
        pad = "." * self.padding
        about = f'"channel":"{channel}","seq":{FIRST_SEQ + place},"pad":"{pad}"'
        return f'{{"type":"message",{about},"data":"{text}"}}'.encode()


class _Connection(asyncio.Protocol):
    def __init__(self, server: KnownServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._input = b""
        self._channel = ""
        self._due = 0.0
        self._websocket: ServerProtocol | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._server.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.remove(self)

    def data_received(self, data: bytes) -> None:
        if self._websocket is not None:
            self._websocket.receive_data(data)
            self._take_frames(self._websocket)
            return
        self._input += data
        while b"\r\n\r\n" in self._input:
            head, _, rest = self._input.partition(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            length = int(fields.get(b"content-length", b"0"))
            if len(rest) < length:
                return
            if fields.get(b"upgrade") == b"websocket":
                self._shake(self._input)
                return
            self._input = rest[length:]
            self._answer(head.split(b" ")[1].decode(), rest[:length])

    def _answer(self, target: str, body: bytes) -> None:
        path, _, query = target.partition("?")
        asked = dict(part.split("=", 1) for part in query.split("&") if part)
        if path == "/v1/messages" and body:
            told = json.loads(body)
            one = told if isinstance(told, dict) else told[0]
            seqs = [self._server.publish(each["channel"], each["data"]) for each in ([one] if one is told else told)]
            answers = [{"position": f"known.{seq}", "duplicate": False} for seq in seqs]
            self._say(json.dumps(answers[0] if one is told else answers).encode())
        elif path == "/v1/messages":
            after = self._place(asked)
            messages = [
                {"seq": FIRST_SEQ + place, "data": text}
                for place, (name, text) in enumerate(self._server.log)
                if place >= after and name == asked["channel"]
            ]
            self._say(json.dumps({"messages": messages, "cursor": self._server.cursor, "gap": None}).encode())
        elif path == "/v1/events":
            self._channel = asked["channel"]
            self._loop.call_later(self._server.open_s, self._open_stream, self._place(asked))
        else:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def _place(self, asked: dict[str, str]) -> int:
        return int(asked["since"].partition(".")[2]) - FIRST_SEQ + 1 if "since" in asked else len(self._server.log)

    def _say(self, body: bytes) -> None:
        self.transport.write(HEAD % (b"application/json", b"Content-Length: %d\r\n" % len(body)) + body)

    def _open_stream(self, since: int) -> None:
        if self.transport.is_closing():
            return
        cursor = f"id: known.{FIRST_SEQ + since - 1}\n\n".encode()
        self.transport.write(HEAD % (b"text/event-stream", b"") + cursor)
        self._read_from(since)

    def _read_from(self, since: int) -> None:
        for place in range(since, len(self._server.log)):
            self.deliver_later(place)
        self._server.readers.append(self)

    def deliver_later(self, place: int) -> None:
        """Deliver a message when it is time."""
        if self._server.log[place][0] == self._channel:
            # Timers of one time fire in any order.
            self._due = max(self._loop.time() + self._server.deliver_s, self._due + 1e-9)
            self._loop.call_at(self._due, self._deliver, place)

    def _deliver(self, place: int) -> None:
        if self.transport.is_closing():
            return
        if self._websocket is None:
            self.transport.write(self._server.sse(place))
        else:
            self._websocket.send_text(self._server.push(place))
            self._flush(self._websocket)

    def _shake(self, data: bytes) -> None:
        self._websocket = protocol = ServerProtocol(subprotocols=["tellwire.v1.json"])  # type: ignore[list-item]
        protocol.receive_data(data)
        (request,) = protocol.events_received()
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        self._loop.call_later(self._server.open_s, self._flush, protocol)

    def _flush(self, protocol: ServerProtocol) -> None:
        for data in protocol.data_to_send():
            if data and not self.transport.is_closing():
                self.transport.write(data)

    def _take_frames(self, protocol: ServerProtocol) -> None:
        for frame in protocol.events_received():
            if not isinstance(frame, Frame) or frame.opcode is not Opcode.TEXT:
                continue
            command = json.loads(bytes(frame.data))
            if command["type"] == "publish":
                seq = self._server.publish(command["channel"], command["data"])
                protocol.send_text(json.dumps({"type": "published", "position": f"known.{seq}"}).encode())
            elif command["type"] == "subscribe":
                self._channel = command["channel"]
                since = self._place(command)
                cursor = f"known.{FIRST_SEQ + since - 1}"
                protocol.send_text(json.dumps({"type": "subscribed", "cursor": cursor}).encode())
                self._read_from(since)
        self._flush(protocol)


class _Selector(selectors.SelectSelector):
    """Lets time pass only while nothing is to be read or written, over sockets of this machine."""

    GRACE_S = 0.002
    """Real time in which what is on its way over loopback arrives, before virtual time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        ready = super().select(self.GRACE_S)
        if not ready and timeout is not None:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing else is to be done."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


class VirtualClock(Clock):
    """The time of the running loop."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def until(self, due: float) -> None:
        await asyncio.sleep(max(0.0, due - self.now()))
