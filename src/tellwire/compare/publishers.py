"""Publishing: what the load comes from, and what is itself measured."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque

import msgspec

from tellwire.compare.failures import Unmeasured, coded
from tellwire.compare.http_connection import HttpConnection
from tellwire.compare.site import Site
from tellwire.compare.websocket import Push, WebSocket

CONNECTIONS = 16
"""How many requests may be on their way: a slow network answers each only after a while."""
LIST_MESSAGES = 1000


class Publisher(ABC):
    """Publishes texts; `send` never waits, and what the server answered is known after `settle`."""

    by = ""
    """What it publishes with, for people."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0
        self._settled: asyncio.Future[None] | None = None
        self._why: Unmeasured | None = None

    @abstractmethod
    async def open(self) -> None:
        """Connect; raises Unmeasured."""

    @abstractmethod
    def send(self, channel: str, text: str) -> None:
        """Publish."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once."""

    @property
    def heads(self) -> tuple[int, int]:
        """Bytes of HTTP heads so far, up and down."""
        return 0, 0

    async def settle(self) -> None:
        """Wait until the server has answered everything; raises Unmeasured where it refused something or is gone."""
        if self._why is None and self.answered < self.sent:
            self._settled = asyncio.get_running_loop().create_future()
            try:
                await self._settled
            finally:
                self._settled = None
        if self._why is not None:
            raise self._why

    def has_answer(self, why: Unmeasured | None = None, count: int = 1) -> None:
        """Count what the server answered."""
        self.answered += count
        self._why = self._why or why
        if self._settled is not None and not self._settled.done() and (self._why or self.answered >= self.sent):
            self._settled.set_result(None)


class _Socket(WebSocket):
    def __init__(self, publisher: WebSocketPublisher, site: Site, *, packed: bool) -> None:
        super().__init__(site, packed=packed)
        self._publisher = publisher

    def on_pushes(self, pushes: list[Push]) -> None:
        for push in pushes:
            if push.type == "published":
                self._publisher.has_answer()
            elif push.type == "error":
                self._publisher.has_answer(coded(str(push.code), push.message))

    def on_lost(self, why: Unmeasured) -> None:
        self._publisher.has_answer(why, 0)


class WebSocketPublisher(Publisher):
    """Publishes over one WebSocket, in JSON."""

    by = "a WebSocket in JSON"
    packed = False

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._socket = _Socket(self, site, packed=self.packed)

    async def open(self) -> None:
        await self._socket.open()

    def send(self, channel: str, text: str) -> None:
        self.sent += 1
        self._socket.send({"type": "publish", "ref": self.sent, "channel": channel, "data": text})

    def abort(self) -> None:
        self._socket.abort()


class PackedWebSocketPublisher(WebSocketPublisher):
    """Publishes over one WebSocket, in MessagePack."""

    by = "a WebSocket in MessagePack"
    packed = True


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Answer(msgspec.Struct):
    error: _Error | None = None


class HttpPublisher(Publisher):
    """Publishes with requests; what waits while all connections are busy goes together."""

    by = "POST /v1/messages"

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site
        self._idle: list[HttpConnection] = []
        self._all: list[HttpConnection] = []
        self._waiting: deque[dict[str, str]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._idle.append(await self._connect())

    def send(self, channel: str, text: str) -> None:
        self.sent += 1
        self._waiting.append({"channel": channel, "data": text})
        if self._idle or len(self._tasks) < CONNECTIONS:
            task = asyncio.create_task(self._post_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def abort(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in self._all:
            connection.abort()

    @property
    def heads(self) -> tuple[int, int]:
        return sum(each.heads_up for each in self._all), sum(each.heads_down for each in self._all)

    async def _connect(self) -> HttpConnection:
        connection = HttpConnection(self._site)
        self._all.append(connection)
        await connection.open()
        return connection

    async def _post_all(self) -> None:
        batch: list[dict[str, str]] = []
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), LIST_MESSAGES))]
                connection = self._idle.pop() if self._idle else await self._connect()
                if not connection.is_open:
                    connection = await self._connect()
                body = msgspec.json.encode(batch[0] if len(batch) == 1 else batch)
                answer = await connection.ask("/v1/messages", body=body)
                self._idle.append(connection)
                self.has_answer(_refusal(answer.body), len(batch))
                batch = []
        except Unmeasured as why:
            self.has_answer(why, len(batch))


def _refusal(body: bytes) -> Unmeasured | None:
    try:
        answers = msgspec.json.decode(body, type=list[_Answer] | _Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return Unmeasured("broken", f"what came is no answer to a publish: {exc}")
    for each in answers if isinstance(answers, list) else [answers]:
        if each.error is not None:
            return coded(each.error.code, each.error.message)
    return None
