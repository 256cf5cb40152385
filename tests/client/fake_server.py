"""A server in memory that speaks the protocol, and fails as it is told to.

Everything that crosses the wire is an event; `fuse` counts them down, and the one at which it burns through cuts all
connections. It carries no code of the real server.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import httpx
import msgspec

from tellwire.client.failures import closed_with, lost
from tellwire.client.sockets import Socket
from tests.client.fake_log import FakeLog

Block = Literal["refuse", "hang", "buffer"]


class FakeServer(httpx.AsyncBaseTransport):
    """A log, and doors that can be closed."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.heard: list[str] = []
        """Requests as ``GET /v1/messages``, commands as ``ws connect``."""
        self.connections: set[FakeConnection] = set()
        self.is_down = False
        """Refuses connections."""
        self.is_silent = False
        """Swallows whatever comes, without a word."""
        self.blocked: dict[str, Block] = {}
        """Transports that are not let through: how."""
        self.answer: Callable[[str, dict[str, Any]], Any] = lambda what, fields: None
        """Makes the answer to a request (a response, now or later) or command (a reply, or a close code), in place of
        the usual."""
        self.heartbeat_s = 25.0
        self.latency_s = 0.0
        """How long a WebSocket's frames are under way."""
        self.fuse = math.inf
        self.is_busy = False
        """Refuses publishes for a moment, as a server does whose broker is away."""
        self.patience = math.inf
        """Counts publishes down; the one at which it ends is refused for a moment."""

    def cross(self) -> bool:
        """Something crosses the wire; False where it does not arrive any more."""
        self.fuse -= 1
        if self.fuse != 0:
            return True
        self.cut()
        return False

    def cut(self) -> None:
        """Cut every connection."""
        for connection in list(self.connections):
            connection.cut()

    def black_hole(self) -> None:
        """From now on nothing gets through, and no connection of today ever will again."""
        self.is_silent = True
        for connection in self.connections:
            connection.is_dead = True

    def wipe(self, epoch: str) -> None:
        """Lose the log."""
        self.log.wipe(epoch)
        self.cut()

    def publish(self, channel: str, data: Any, **fields: Any) -> dict[str, Any]:
        """Append, and tell those who read; return the answer."""
        message, answer = self.log.append(channel, data, **fields)
        if message is not None:
            for connection in list(self.connections):
                connection.message(message)
        return answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path, query = request.url.path, request.url.params
        wait_s = int(query.get("wait", "0"))
        kind = {"/v1/events": "sse"}.get(path, "longpoll" if wait_s else "poll" if request.method == "GET" else "post")
        self.heard.append(f"{request.method} {path}")
        if self.is_down or self.blocked.get(kind) == "refuse" or not self.cross():
            raise httpx.ConnectError("refused")
        if self.is_silent or self.blocked.get(kind) == "hang":
            await asyncio.Event().wait()
        body = msgspec.json.decode(await request.aread()) if request.method == "POST" else None
        made = self.answer(f"{request.method} {path}", {"query": query, "headers": request.headers, "body": body})
        if made is not None:
            response: httpx.Response = await made if inspect.isawaitable(made) else made
            return response
        if path == "/v1/messages" and body is not None:
            queue = FakeQueue(self, keeps_order=True)
            return self._json([queue.publish(**each) for each in body])
        channels = query.get_list("channel")
        if not channels:
            return problem(400, "bad_request")
        if path == "/v1/presence":
            return self._json({"channel": channels[0], "client": "c1", "members": [], "cursor": self.log.cursor})
        if kind == "sse":
            return FakeStream(self, channels, query.get("since")).response()
        return self._json(await self._page(channels, query, wait_s))

    def _json(self, body: Any) -> httpx.Response:
        if not self.cross():
            raise httpx.ReadError("cut")
        return httpx.Response(200, json=body)

    async def _page(self, channels: list[str], query: httpx.QueryParams, wait_s: int) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            last = query.get("last")
            return self.log.page(channels, query.get("since"), last and int(last), int(query.get("limit", "1000")))

        page = read()
        if wait_s and not page["messages"] and not page["gap"]:
            poll = FakePoll(self, channels)
            try:
                await poll.wait(wait_s)
            finally:
                self.connections.discard(poll)
            page = read()
        return page

    async def open_socket(self, url: str, subprotocol: str, fields: dict[str, str]) -> Socket:
        """Open a WebSocket."""
        self.heard.append("ws")
        if self.is_down or self.blocked.get("websocket") == "refuse" or not self.cross():
            raise lost("refused")
        if self.is_silent or self.blocked.get("websocket") == "hang":
            await asyncio.Event().wait()
        return FakeSocket(self, subprotocol, fields)

    async def open_channels(self, url: str, subprotocol: str, fields: dict[str, str]) -> Socket:
        """Open what carries the same session: data channels."""
        self.heard.append("rtc")
        if self.is_down or self.blocked.get("webrtc") == "refuse" or not self.cross():
            raise lost("refused")
        if self.is_silent or self.blocked.get("webrtc") == "hang":
            await asyncio.Event().wait()
        return FakeSocket(self, subprotocol, fields)


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    """Make a problem (RFC 9457)."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"code": code, "detail": code, "status": status}, headers=names)


class FakeQueue:
    """The publishes of one connection or request: behind one that was refused for a moment all are."""

    def __init__(self, server: FakeServer, *, keeps_order: bool) -> None:
        self.keeps_order = keeps_order
        self._server = server
        self._is_held = False

    def publish(self, *, again: bool = False, **fields: Any) -> dict[str, Any]:
        """Append what may be appended now; return the answer."""
        server = self._server
        if again:
            self._is_held = False
        if not self._is_held:
            server.patience -= 1
            if server.patience and not server.is_busy:
                return server.publish(**fields)
            self._is_held = self.keeps_order
        return {"error": {"code": "unavailable", "message": "later"}}


class FakeConnection:
    """Something that is open."""

    is_dead = False

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        server.connections.add(self)

    def cut(self) -> None:
        """Break it."""
        raise NotImplementedError

    def message(self, message: dict[str, Any]) -> None:
        """A message was appended."""
        raise NotImplementedError

    def write(self, push: Any) -> None:
        """Write something down."""
        raise NotImplementedError


class FakePoll(FakeConnection):
    """A poll that waits."""

    def __init__(self, server: FakeServer, channels: list[str]) -> None:
        super().__init__(server)
        self._channels = channels
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self, wait_s: float) -> None:
        """Wait for a message."""
        await asyncio.wait({self._news}, timeout=wait_s)
        if self.is_dead:
            await asyncio.Event().wait()
        if self._news.done():
            self._news.result()

    def cut(self) -> None:
        self.server.connections.discard(self)
        if not self._news.done():
            self._news.set_exception(httpx.ReadError("cut"))
            self._news.exception()

    def message(self, message: dict[str, Any]) -> None:
        if message["channel"] in self._channels and not self._news.done():
            self._news.set_result(None)


class FakeStream(FakeConnection, httpx.AsyncByteStream):
    """A stream of events."""

    def __init__(self, server: FakeServer, channels: list[str], since: str | None) -> None:
        super().__init__(server)
        self._channels = channels
        self._chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        page = server.log.read(channels, since)
        self.write("retry: 1000\n\n")
        if (gap := page["gap"]) is not None:
            place = f"id: {gap['to']}\n" if gap["reason"] == "epoch" else ""
            self.write(f"{place}event: gap\ndata: {msgspec.json.encode({'type': 'gap', **gap}).decode()}\n\n")
        self.write(f"id: {page['cursor']}\n\n")
        for message in page["messages"]:
            self.message(message)
        self._beat = asyncio.get_running_loop().call_later(server.heartbeat_s, self._beats)

    def response(self) -> httpx.Response:
        """Return the answer that it is the body of."""
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=self)

    def _beats(self) -> None:
        self.write(": \n\n")
        if self in self.server.connections:
            self._beat = asyncio.get_running_loop().call_later(self.server.heartbeat_s, self._beats)

    def write(self, push: Any) -> None:
        # What a proxy keeps back it keeps back for ever, here.
        self.is_dead = self.is_dead or self.server.blocked.get("sse") == "buffer"
        if self.is_dead or self not in self.server.connections or not self.server.cross():
            return
        data: bytes = push.encode()
        # Cut in two, as a network does.
        for chunk in (data[: len(data) // 2], data[len(data) // 2 :]):
            self._chunks.put_nowait(chunk)

    def message(self, message: dict[str, Any]) -> None:
        if message["channel"] in self._channels:
            place = f"id: {self.server.log.epoch}.{message['seq']}\n" if message.get("seq") else ""
            self.write(f"{place}data: {msgspec.json.encode(message).decode()}\n\n")

    def close(self, code: int, reason: str, **more: Any) -> None:
        """Close by the server's decision."""
        push = {"type": "closing", "code": code, "reason": reason, **more}
        self.write(f"event: closing\ndata: {msgspec.json.encode(push).decode()}\n\n")
        self._end(None)

    def cut(self) -> None:
        self._end(httpx.ReadError("cut"))

    def _end(self, last: Exception | None) -> None:
        if self in self.server.connections:
            self.server.connections.discard(self)
            self._beat.cancel() if hasattr(self, "_beat") else None
            self._chunks.put_nowait(last)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    async def aclose(self) -> None:
        self._end(None)


class FakeSocket(FakeConnection):
    """A WebSocket."""

    def __init__(self, server: FakeServer, subprotocol: str, fields: dict[str, str]) -> None:
        super().__init__(server)
        self._token = fields.get("Authorization", "").removeprefix("Bearer ")
        self._coder: Any = msgspec.msgpack if subprotocol.endswith("msgpack") else msgspec.json
        self._frames: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._channels: set[str] = set()
        self._pipe: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._under_way: set[asyncio.TimerHandle] = set()
        self._queue = FakeQueue(server, keeps_order=False)
        self._beat = asyncio.get_running_loop().call_later(server.heartbeat_s, self._beats)

    def _beats(self) -> None:
        self.write({"type": "heartbeat", "cursor": self.server.log.cursor})
        if self in self.server.connections:
            self._beat = asyncio.get_running_loop().call_later(self.server.heartbeat_s, self._beats)

    def write(self, push: Any) -> None:
        if not self.is_dead and self in self.server.connections and self.server.cross():
            self._later(lambda frame: self._frames.put_nowait(frame), self._coder.encode(push))

    def _later(self, take: Callable[[Any], None], frame: Any) -> None:
        if not self.server.latency_s:
            take(frame)
            return

        def arrive() -> None:
            # Timers of the same moment come in any order; frames do not.
            self._under_way.discard(handle)
            first, content = self._pipe.popleft()
            first(content)

        self._pipe.append((take, frame))
        handle = asyncio.get_running_loop().call_later(self.server.latency_s, arrive)
        self._under_way.add(handle)

    def message(self, message: dict[str, Any]) -> None:
        if message["channel"] in self._channels:
            self.write(message)

    def close(self, code: int, reason: str, **more: Any) -> None:
        """Close by the server's decision."""
        self.write({"type": "closing", "code": code, "reason": reason, **more})
        self._end(closed_with(code, reason))

    def cut(self) -> None:
        self._end(lost("cut"))

    def _end(self, last: Exception) -> None:
        if self in self.server.connections:
            self.server.connections.discard(self)
            self._beat.cancel()
            for handle in self._under_way:
                handle.cancel()
            self._frames.put_nowait(last)

    async def receive(self) -> bytes | str:
        frame = await self._frames.get()
        if isinstance(frame, Exception):
            raise frame
        return frame

    async def aclose(self) -> None:
        self._end(lost("closed"))

    async def send(self, frame: bytes | str) -> None:
        if self not in self.server.connections:
            raise lost("cut")
        if self.is_dead or not self.server.cross():
            return
        self._later(self._take, frame)

    def _take(self, frame: bytes | str) -> None:
        command = self._coder.decode(frame)
        kind, ref = command.pop("type"), command.pop("ref")
        self.server.heard.append(f"ws {kind}")
        made = self.server.answer(f"ws {kind}", {"token": self._token, **command})
        if isinstance(made, int):
            self.close(made, "told so")
        elif made is not None:
            self.write({"ref": ref, **made})
        else:
            self._carry_out(kind, ref, command)

    def _carry_out(self, kind: str, ref: int, command: dict[str, Any]) -> None:
        log = self.server.log
        if kind == "connect":
            self._queue.keeps_order = command.get("in_order", False)
            connected = {"client": "c1", "epoch": log.epoch, "cursor": log.cursor}
            self.write({"type": "connected", "ref": ref, "heartbeat_ms": self.server.heartbeat_s * 1000, **connected})
        elif kind == "subscribe":
            page = log.read([command["channel"]], command.get("since"), command.get("last"))
            self._channels.add(command["channel"])
            self.write({"type": "subscribed", "ref": ref, "cursor": page["cursor"], "gap": page["gap"], **command})
            for message in page["messages"]:
                self.write(message)
        elif kind == "unsubscribe":
            self._channels.discard(command["channel"])
            self.write({"type": "unsubscribed", "ref": ref, **command})
        elif kind == "publish":
            answer = self._queue.publish(**command)
            error = answer.get("error")
            self.write(
                {"type": "published", "ref": ref, **answer} if not error else {"type": "error", "ref": ref, **error}
            )
        elif kind == "presence":
            self.write({"type": "presence", "ref": ref, "client": "c1", "members": [], "cursor": log.cursor})
        else:
            self.write({"type": "error", "ref": ref, "code": "unknown_command", "message": kind})
