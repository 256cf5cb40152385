"""Messages on their way into a stream of JetStream: sent in order, and again where nobody answered.

An operation is one message. It is done, or fails with Unavailable once its time is up, whatever becomes of the servers
meanwhile. It may be sent several times, and names itself, so that JetStream stores it once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import re
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import Unavailable

T = TypeVar("T")

_OPERATION_BYTES = 500
"""What an operation that waits weighs beside its data."""
_FIRST_PATIENCE_S = 1.0
"""Seconds without an answer after which an operation is sent again; doubled each time."""

_WRONG_LAST_SEQUENCE = 10071
_UNDER_WAY = frozenset({10158, 10163, 10164})
"""Codes with which a cluster of nats-server 2.11 refuses what another message stands in the way of, until it is known
whether that one gets in: one of the same name, or one on the same subject where a condition is to be met."""
_AGAIN = frozenset({429, 503})
"""Statuses of what a leader that is overrun, or was just chosen, did not take."""
_SOON = 0.02
"""What part of its patience an operation waits before it is sent again, where another one was in its way; then twice
as long each time."""
_SEQ = re.compile(r"(\d+)$")


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


_acks = msgspec.json.Decoder(_Ack)


class Operation(ABC, Generic[T]):
    """One message on its way into the stream.

    Args:
        subject: Where it goes.
        payload: What it holds.
        headers: What JetStream is to look at; ``Nats-Msg-Id`` lets it be sent again.
    """

    needs_answer = True

    def __init__(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        self.subject = subject
        self.payload = payload
        self.headers = headers
        self.weight = len(payload) + len(subject) + _OPERATION_BYTES
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.number = 0
        self.deadline = 0.0
        self.sent_at: float | None = None
        self.was_sent = False
        self.patience_s = _FIRST_PATIENCE_S
        self.pause_s = _FIRST_PATIENCE_S * _SOON
        self.is_stored = False
        self.is_over = False

    def is_unanswered(self, now: float) -> bool:
        """Tell whether it was sent so long ago (by the loop's clock) that it is to be sent again."""
        if not self.needs_answer or self.is_stored or self.sent_at is None:
            return False
        return self.sent_at + self.patience_s < now

    def answered(self, seq: int, is_duplicate: bool | None) -> None:
        """Take JetStream's answer, once the feed has come to `seq`; None: another message was expected before it."""
        if self.is_over:
            return
        if is_duplicate is None:
            self.conflicts(seq)
        else:
            self.stored(seq, is_duplicate)

    def comes_next(self, seq: int) -> bool:
        """Take note that it lies at `seq`, and end it now if the feed has come right before that; else return False."""
        return False

    def gives_up(self) -> bool:
        """End it, and return True, if what another message was in the way of cannot be any more; the feed is ready."""
        return False

    @abstractmethod
    def stored(self, seq: int, is_duplicate: bool) -> None:
        """Take note that it lies at `seq`, or lay there before; the feed has come so far."""

    @abstractmethod
    def conflicts(self, newest: int) -> None:
        """Take note that the subject's newest message is another one than was expected; the feed has come so far."""


class NatsOperations(ABC):
    """The operations of one node on one stream, in the order in which they were begun.

    Args:
        place: Where NATS is.
        queue_max_bytes: Bytes of operations that may wait; a further one raises Unavailable.
    """

    def __init__(self, place: NatsPlace, queue_max_bytes: int) -> None:
        self.place = place
        self.applied = 0
        """The newest place in the stream that was fed."""
        self.is_loading = True
        """Whether what is fed is what was there, as against news."""
        self.queued_bytes = 0
        self._queue_max_bytes = queue_max_bytes
        self._client: Client | None = None
        self._inbox = ""
        self._ready = False
        self._is_open = False
        self._why = "it was not reached yet"
        self._lost = asyncio.Event()
        self._offset_ms: float | None = None
        self._operations: dict[int, Operation[Any]] = {}
        self._numbers = itertools.count(1)
        self._outbox: deque[Operation[Any]] = deque()
        self._wake = asyncio.Event()
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._drained: asyncio.Future[None] | None = None

    @property
    def ready(self) -> Client | None:
        """The connection, where there is one and operations go over it."""
        return self._client if self._ready else None

    def now_ms(self) -> int:
        """Tell what JetStream's clock says, in milliseconds since 1970."""
        return int(time.time() * 1000 + (self._offset_ms or 0.0))

    @property
    def knows_clock(self) -> bool:
        """Whether `now_ms` has been compared with JetStream's clock."""
        return self._offset_ms is not None

    def begin(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Begin an operation; its place among the others is taken when this returns."""
        if not self._is_open:
            raise Unavailable("the connection to NATS is closed")
        if self.queued_bytes and self.queued_bytes + operation.weight > self._queue_max_bytes:
            raise Unavailable(
                f"{self.queued_bytes} bytes wait for {self.place} already; try again later with the same id"
            )
        operation.number = next(self._numbers)
        operation.deadline = asyncio.get_running_loop().time() + self.place.timeout_s
        operation.patience_s = min(_FIRST_PATIENCE_S, self.place.timeout_s / 4)
        operation.pause_s = operation.patience_s * _SOON
        self.queued_bytes += operation.weight
        self._operations[operation.number] = operation
        self.send(operation)
        return operation.answer

    def send(self, operation: Operation[Any]) -> None:
        """Send an operation that has begun."""
        operation.is_stored = False
        if self._ready:
            self._outbox.append(operation)
            self._wake.set()

    def finish(self, operation: Operation[T], result: T) -> None:
        """End an operation."""
        if self._forget(operation) and not operation.answer.done():
            operation.answer.set_result(result)

    def fail(self, operation: Operation[Any], exc: Exception) -> None:
        """End an operation with an error."""
        if self._forget(operation) and not operation.answer.done():
            operation.answer.set_exception(exc)
            operation.answer.exception()  # a caller that was cancelled does not look

    def _forget(self, operation: Operation[Any]) -> bool:
        if operation.is_over:
            return False
        operation.is_over = True
        del self._operations[operation.number]
        self.queued_bytes -= operation.weight
        if not self._operations and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self.settled(operation)
        return True

    @abstractmethod
    def settled(self, operation: Operation[Any]) -> None:
        """Take note that an operation is over, or was sent and has no answer."""

    @property
    def oldest(self) -> Operation[Any] | None:
        """The operation that was begun first and is not over."""
        return next(iter(self._operations.values()), None)

    def when_fed(self, seq: int, then: Callable[[], None]) -> None:
        """Call as soon as the feed has come to a place."""
        if seq <= self.applied and not self.is_loading:
            then()
        else:
            heapq.heappush(self._waiting, (seq, next(self._numbers), then))

    def abandon(self, why: str) -> None:
        """Give this connection up and make another one."""
        if not self._lost.is_set():
            self._why = why
            self._ready = False
            self._lost.set()

    def clock(self, sent_at: float, stored_ms: int) -> None:
        """Compare clocks over an operation that was sent (by the loop's clock) and stored (by JetStream's)."""
        middle = (asyncio.get_running_loop().time() - sent_at) / 2
        self._offset_ms = stored_ms - (time.time() - middle) * 1000

    def _fed_up_to(self) -> None:
        waiting = self._waiting
        while waiting and waiting[0][0] <= self.applied:
            heapq.heappop(waiting)[2]()

    # Answers

    async def _on_answer(self, client: Client, message: Msg) -> None:
        operation = self._operations.get(int(message.subject.rpartition(".")[2]))
        if client is not self._client or operation is None:
            return
        if not message.data:  # there is but a status: no responders
            self.abandon("nobody answers for the stream")
            return
        ack = _acks.decode(message.data)
        error = ack.error
        if error is None:
            operation.is_stored = True
            if ack.duplicate or not operation.comes_next(ack.seq):
                self.when_fed(ack.seq, lambda: operation.answered(ack.seq, ack.duplicate))
        elif error.err_code == _WRONG_LAST_SEQUENCE:
            found = _SEQ.search(error.description)
            newest = int(found[1]) if found else 0
            operation.is_stored = True
            self.when_fed(newest, lambda: operation.answered(newest, None))
        elif error.err_code in _UNDER_WAY:
            asyncio.get_running_loop().call_later(operation.pause_s, self._send_again, operation)
            operation.pause_s *= 2
        elif error.code not in _AGAIN:  # else it is sent again when it has no answer for long
            self.fail(operation, Unavailable(f"{self.place} refused: {error.description}"))

    def _send_again(self, operation: Operation[Any]) -> None:
        # Where messages come all the time, JetStream does not get as far as to say that the condition is not met.
        if self._ready and not operation.is_over and not operation.gives_up():
            self.send(operation)

    # Sending

    async def _send(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                operation = self._outbox.popleft()
                if operation.is_over:
                    continue
                reply = f"{self._inbox}.a.{operation.number}" if operation.needs_answer else ""
                operation.sent_at = loop.time()
                operation.was_sent = True
                try:
                    await client.publish(operation.subject, operation.payload, reply, operation.headers)
                except MaxPayloadError:
                    self.fail(
                        operation,
                        Unavailable(
                            f"{self.place} takes messages of {client.max_payload} bytes, and this one has "
                            f"{len(operation.payload)}; raise its max_payload"
                        ),
                    )
                except (NatsError, OSError) as exc:
                    self.abandon(str(exc) or "it cannot be written to")
                    return
                else:
                    if not operation.needs_answer:
                        self.settled(operation)

    def _unavailable(self, operation: Operation[Any]) -> Unavailable:
        if operation.was_sent:
            return Unavailable(
                f"{self.place} did not answer in {self.place.timeout_s:g} seconds ({self._why}), so nobody knows "
                "whether it was done; try again with the same id"
            )
        return Unavailable(f"{self.place} cannot be reached ({self._why}); try again with the same id")

    def _look_after(self, now: float) -> None:
        """Fail what has waited too long, and send again what was not answered; `now` is the loop's time."""
        for operation in list(self._operations.values()):
            if operation.deadline <= now:
                self.fail(operation, self._unavailable(operation))
            elif operation.is_unanswered(now) and self._ready:
                operation.patience_s *= 2
                operation.sent_at = now
                self.send(operation)

    def _send_all(self) -> None:
        """Send everything that has begun, over a fresh connection."""
        for operation in self._operations.values():
            operation.sent_at = None
            operation.is_stored = False
        self._outbox = deque(self._operations.values())
        self._wake.set()
