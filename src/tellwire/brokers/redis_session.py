"""Operations on a Redis that outlive its connections: sent in order, and again after the connection was lost.

An operation is answered, or fails with Unavailable once its time is up, whatever becomes of the server meanwhile. It
may be sent several times, so it has to recognise itself in Redis; it is told whether it was sent before.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import hiredis

from tellwire.brokers.reconnecting import connect_again
from tellwire.brokers.redis_link import Link, Lost, dial
from tellwire.brokers.redis_scripts import Script
from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import InvalidData, Unavailable

T = TypeVar("T")

_log = logging.getLogger("tellwire")

_RETRIES = ("NOSCRIPT", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "TRYAGAIN", "MOVED", "ASK")
"""First words of errors that another connection, or some time, may cure: nothing was done."""

_OPERATION_BYTES = 500
"""What an operation that waits weighs beside its data."""

Command = tuple[str | bytes | int, ...]


class Operation(Generic[T]):
    """One thing to be done in Redis.

    Args:
        make: Makes the command; called with whether it was sent before. None means that it cannot be sent again.
        take: Makes the result of the reply, as soon as it is here; what it raises is raised to the caller.
        weight: Bytes that it counts for while it waits.
    """

    __slots__ = ("answer", "deadline", "make", "over", "sent", "take", "weight")

    def __init__(
        self, make: Callable[[bool], Command | None], take: Callable[[Any], T], weight: int, deadline: float
    ) -> None:
        self.make = make
        self.take = take
        self.weight = weight + _OPERATION_BYTES
        self.deadline = deadline
        self.sent = False
        self.over = False
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()


class Again(Exception):
    """Raised by `Operation.take`: the connection has to be made anew, and the operation sent again; says why."""


class RedisSession(ABC):
    """The operations of one node, in the order in which they were begun.

    Args:
        place: Where Redis is.
        queue_max_bytes: Bytes of operations that may wait; a further one raises Unavailable.
    """

    scripts: tuple[Script, ...] = ()

    def __init__(self, place: RedisPlace, queue_max_bytes: int) -> None:
        self.place = place
        self.queued_bytes = 0
        self.reconnects = 0
        self._queue_max_bytes = queue_max_bytes
        self._operations: deque[Operation[Any]] = deque()
        self._link: Link | None = None
        self._former: tuple[str, int] | None = None
        self._ready = False
        self.run = ""
        """Redis' name of this life of the server."""
        self._offset_ms = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._clock_handle: asyncio.TimerHandle | None = None
        self._why = "it was not reached yet"
        self._drained: asyncio.Future[None] | None = None
        self._replication: dict[str, str] = {}

    # For the operations

    @property
    def ready(self) -> Link | None:
        """The connection, where there is one and operations go over it."""
        return self._link if self._ready else None

    def begin(
        self, make: Callable[[bool], Command | None], take: Callable[[Any], T], weight: int = 0
    ) -> asyncio.Future[T]:
        """Begin an operation; its place among the others is taken when this returns."""
        if self._keeper is None:
            raise Unavailable("the connection to Redis is closed")
        if self.queued_bytes and self.queued_bytes + weight + _OPERATION_BYTES > self._queue_max_bytes:
            raise Unavailable(
                f"{self.queued_bytes} bytes wait for {self.place} already; try again later with the same id"
            )
        deadline = asyncio.get_running_loop().time() + self.place.timeout_s
        operation = Operation(make, take, weight, deadline)
        self.queued_bytes += operation.weight
        self._operations.append(operation)
        if self._ready and self._link is not None:
            self._send(self._link, operation)
        return operation.answer

    def server_ms(self, loop_time: float) -> int:
        """Tell what Redis' clock says (ms since 1970) when the event loop's says `loop_time`."""
        return int(loop_time * 1000 + self._offset_ms)

    def set_clock(self, server_ms: float) -> None:
        """Take note of what Redis' clock says now."""
        self._offset_ms = server_ms - asyncio.get_running_loop().time() * 1000

    def read_clock(self, reply: list[bytes]) -> None:
        """Take the answer to TIME."""
        seconds, micros = reply
        self.set_clock(int(seconds) * 1000 + int(micros) / 1000)

    def abandon(self, why: str) -> None:
        """Give this connection up and make another one."""
        if self._link is not None:
            self._link.abort(why)

    def _send(self, link: Link, operation: Operation[Any]) -> None:
        try:
            command = operation.make(operation.sent)
            if command is None:
                raise self._unavailable(operation)
            link.call(lambda reply: self._answered(link, operation, reply), *command)
        except UnicodeEncodeError as exc:
            self._fail(operation, InvalidData(f"a text holds half a surrogate pair and cannot be kept: {exc}"))
        except Unavailable as exc:
            self._fail(operation, exc)
        else:
            operation.sent = True

    def _answered(self, link: Link, operation: Operation[Any], reply: Any) -> None:
        if isinstance(reply, Lost) or link is not self._link:
            return  # it is sent again
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).startswith(_RETRIES):
                link.abort(f"it answered {reply}")
                return
            self._fail(operation, Unavailable(f"{self.place} refused: {reply}"))
            return
        try:
            result = operation.take(reply)
        except Again as exc:
            link.abort(str(exc))
        except Exception as exc:
            self._fail(operation, exc)
        else:
            self._forget(operation)
            if not operation.answer.done():
                operation.answer.set_result(result)

    def _forget(self, operation: Operation[Any]) -> None:
        if not operation.over:
            operation.over = True
            self.queued_bytes -= operation.weight
        operations = self._operations
        while operations and operations[0].over:
            operations.popleft()
        if not operations and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _fail(self, operation: Operation[Any], exc: Exception) -> None:
        self._forget(operation)
        if not operation.answer.done():
            operation.answer.set_exception(exc)
            operation.answer.exception()  # a caller that was cancelled does not look

    def _unavailable(self, operation: Operation[Any]) -> Unavailable:
        if operation.sent:
            return Unavailable(
                f"{self.place} did not answer in {self.place.timeout_s:g} seconds ({self._why}), so nobody knows "
                "whether it was done; try again with the same id"
            )
        return Unavailable(f"{self.place} cannot be reached ({self._why}); try again with the same id")

    def _expire(self) -> None:
        """Fail what has waited too long; operations wait equally long, so the oldest comes first."""
        now = asyncio.get_running_loop().time()
        operations = self._operations
        while operations and operations[0].deadline <= now:
            self._fail(operations[0], self._unavailable(operations[0]))
        self._clock_handle = asyncio.get_running_loop().call_later(self.place.timeout_s / 20, self._expire)

    # The connection

    @abstractmethod
    async def greet(self, link: Link) -> None:
        """Make a fresh connection fit for operations; raises Lost, Unavailable, `hiredis.ReplyError`."""

    @abstractmethod
    def pushed(self, channel: bytes, payload: bytes) -> None:
        """Take what was published."""

    @abstractmethod
    def parted(self) -> None:
        """Take note that the connection is lost."""

    async def start(self) -> None:
        """Connect for the first time; raises Unavailable where that fails."""
        await self._connect()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        self._expire()
        self._go()

    async def stop(self) -> None:
        """Wait until what was begun is done or has failed, then disconnect; may be called twice."""
        keeper = self._keeper
        if keeper is None:
            return
        self._keeper = None
        if self._operations:
            # Not their answers are waited for: a caller that was cancelled does not take back what it began.
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        if self._clock_handle is not None:
            self._clock_handle.cancel()
        self._ready = False
        if self._link is not None:
            self._link.abort("it was closed")

    async def _connect(self) -> None:
        self._lost.clear()
        link = self._link = await dial(self.place, self.pushed, self._on_lost)
        try:
            async with asyncio.timeout(max(30.0, 2 * self.place.timeout_s)):
                await self._introduce(link)
                await self.greet(link)
        except (TimeoutError, Lost, hiredis.ReplyError) as exc:
            link.abort("it could not be used")
            raise Unavailable(f"{self.place} cannot be used: {str(exc) or 'it takes too long'}") from exc
        except BaseException:
            link.abort("it could not be used")
            raise

    async def _introduce(self, link: Link) -> None:
        server = _figures(await link.ask("INFO", "server"))
        replication = _figures(await link.ask("INFO", "replication"))
        if replication.get("role") != "master":
            raise Unavailable(f"{self.place} is a replica; only a master can be written to")
        self.run = server.get("run_id", "")
        if self._former is not None and self._former[0] == self.run:
            # What the former connection sent may still lie there unread, by a server that stood still: it must not be
            # done behind the back of what is sent again here.
            await link.ask("CLIENT", "KILL", "ID", self._former[1], "SKIPME", "yes")
        self._former = self.run, link.id
        self.read_clock(await link.ask("TIME"))
        for script in self.scripts:
            await link.ask("SCRIPT", "LOAD", script.source)
        self._replication = replication

    async def is_lossless(self, link: Link) -> bool:
        """Tell whether this server, when it was started, had all that any server before it acknowledged."""
        if set(self._replication.get("master_replid2", "")) != {"0"}:
            return False  # it was a replica, and replicas lag
        persistence = _figures(await link.ask("INFO", "persistence"))
        if persistence.get("aof_enabled") != "1":
            return False
        try:
            setting = await link.ask("CONFIG", "GET", "appendfsync")
        except hiredis.ReplyError:  # many providers do not let one ask
            return False
        return bool(setting.get(b"appendfsync") == b"always")

    def _go(self) -> None:
        link = self._link
        if link is None or self._lost.is_set():
            return  # it was lost again already
        self._ready = True
        for operation in list(self._operations):
            if not operation.over and self._ready:
                self._send(link, operation)

    def _on_lost(self, link: Link, why: str) -> None:
        if link is self._link:
            self._why = why
            self._ready = False
            self.parted()
            self._lost.set()

    def _failed(self, why: str) -> None:
        self._why = why

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            _log.warning("%s: %s; connecting again", self.place, self._why)
            await connect_again(self._connect, self.place, self._failed)
            self.reconnects += 1
            self._go()


def _figures(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in lines if name}
