"""A backend on loopback that answers, or fails to, as a test says; and a time that passes only when it is slept."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, ParamSpec, Self

from tellwire.webhooks import WebHooks, WebhookSettings
from tellwire.webhooks.endpoint import Surroundings
from tellwire.webhooks.settings import HOOKS
from tests.compare.known_server import VirtualLoop

P = ParamSpec("P")

SECRET = "a secret of more than sixteen bytes"


class Asked(NamedTuple):
    """A request as it arrived; header names are lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]


@dataclass
class Answer:
    """What is sent back: a status and a body, or ``raw`` bytes, after which the connection is closed."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None

    def encode(self) -> bytes:
        if self.raw is not None:
            return self.raw
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        headers = {"content-length": str(len(body)), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} X\r\n{head}\r\n".encode() + body


HANG_UP = Answer(raw=b"")
"""Closes the connection without an answer."""
HALF = Answer(raw=b'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"result":')
"""Closes the connection in the middle of one."""

Answerer = Callable[[Asked], Answer | Awaitable[Answer]]


class Backend:
    """An HTTP server in the loop of the test; ``answer`` may be exchanged at any time.

    Args:
        answer: Says what each request is answered with.
        port: 0 takes a free one.
        host: Where to listen.
        tls: For https.
    """

    def __init__(
        self,
        answer: Answerer = lambda asked: Answer(),
        port: int = 0,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self.requests: list[Asked] = []
        self.port = port
        self._host = host
        self._tls = tls
        self._changed = asyncio.Condition()
        self._served: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self._host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        served = list(self._served.items())
        for task, _ in served:
            task.cancel()
        await asyncio.gather(*(task for task, _ in served), return_exceptions=True)
        for _, writer in served:
            writer.close()  # of a task that was cancelled before it began, too
            with suppress(ConnectionError):
                await writer.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [asked.path for asked in self.requests]

    async def seen(self, count: int) -> None:
        """Wait until there were `count` requests."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._served[task] = writer
        task.add_done_callback(self._served.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                body = await reader.readexactly(int(headers["content-length"]))
                asked = Asked(head[0].split(" ")[1], headers, body)
                self.requests.append(asked)
                async with self._changed:
                    self._changed.notify_all()
                found = self.answer(asked)
                answer = await found if inspect.isawaitable(found) else found
                writer.write(answer.encode())
                await writer.drain()
                if answer.raw is not None:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()


class Time:
    """Seconds since 1970 that pass when somebody sleeps, at once."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(now=self, clock=self, sleep=self.sleep, random=lambda: 0.5)


@asynccontextmanager
async def asking(url: str, time: Time | None = None, **settings: Any) -> AsyncIterator[WebHooks]:
    """Give hooks that ask a backend at ``/connect``, ``/subscribe`` and so on."""
    urls: dict[str, Any] = {f"hook_{hook}_url": f"{url}/{hook}" for hook in HOOKS}
    given = WebhookSettings(**{**urls, "hook_secret": SECRET, "hook_timeout_s": 20.0, **settings})
    hooks = WebHooks(given, around=(time or Time()).surroundings)
    try:
        yield hooks
    finally:
        await hooks.aclose()


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a plain test of a coroutine function, whose timeouts pass only where all else waits for them."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
