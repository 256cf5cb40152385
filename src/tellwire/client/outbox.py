"""Publishes on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec import Raw

from tellwire.client.backoff import Backoff
from tellwire.client.failures import Failure, OutboxFull, Uncertain, as_failure, told
from tellwire.client.messages import Published
from tellwire.client.settings import Settings
from tellwire.errors import TellwireError, TooLarge
from tellwire.protocol.commands import Publish

AGAIN = frozenset(
    {
        "disconnected",
        "timeout",
        "unavailable",
        "rate_limited",
        "draining",
        "expired",
        "too_many_connections",
        "request_timeout",
    }
)
"""Failures that say nothing of the message: the same one may be tried again with its id."""

BATCH_MESSAGES = 64
BATCH_BYTES = 400_000

Answer = Published | Failure


class Sender(Protocol):
    """A transport, as the outbox sees it."""

    batches: int
    """How many calls of `publish` may be under way."""

    async def publish(self, publishes: Sequence[Publish]) -> list[Answer]:
        """Send them in order; return as many answers. The data is MessagePack."""


class _Entry:
    def __init__(self, publish: Publish) -> None:
        self.publish = publish
        self.size = len(msgspec.msgpack.encode(publish))
        self.in_flight = False
        self.sent_at: float | None = None
        self.answer: asyncio.Future[Published] = asyncio.get_running_loop().create_future()

    def fulfil(self, answer: Published) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: TellwireError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # whoever published may have gone


_DROPPED = Published(None, dropped=True)


class Outbox:
    """Holds publishes while there is no connection, sends them in order, and again until they are acknowledged.

    Always with the same id, so that none is in the log twice. Bounded in number and size; what does not fit any more is
    refused, as the earlier were promised.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._entries: list[_Entry] = []
        self._bytes = 0
        self._under_way = 0
        # Batch by batch, until everything is through. What follows one that is refused for now must not overtake it: so
        # the server refuses that too, until it is told that all answers were heard (spec, section 3.8).
        self._is_careful = False
        self._sender: Sender | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff(settings.chance)
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def size(self) -> int:
        """How many wait to be acknowledged."""
        return len(self._entries)

    async def add(self, publish: Publish) -> Published:
        """Send it, now or later; return its answer.

        Whoever is cancelled while waiting gives it up: it is not sent again, but may have been.
        """
        # Who publishes where somebody types or points wants it now or never.
        if publish.ephemeral and self._sender is None:
            return _DROPPED
        entry = _Entry(publish)
        bounds = self._settings
        if len(self._entries) >= bounds.outbox_max_messages or self._bytes + entry.size > bounds.outbox_max_bytes:
            raise OutboxFull(
                f"{len(self._entries)} publishes ({self._bytes} bytes) wait to be acknowledged already; "
                "try again when some of them are"
            )
        self._entries.append(entry)
        self._bytes += entry.size
        self._empty.clear()
        self._pump()
        try:
            return await entry.answer
        finally:
            self._remove(entry)

    async def flushed(self) -> None:
        """Wait until nothing waits any more."""
        await self._empty.wait()

    def attach(self, sender: Sender) -> None:
        """Take note of a connection; what was under way over another is sent over this one too."""
        self._rest()
        self._sender = sender
        self._backoff.reset()
        self._pump()

    def detach(self) -> None:
        """Take note that there is none any more."""
        self._rest()
        for entry in [entry for entry in self._entries if entry.publish.ephemeral]:
            self._remove(entry)
            entry.fulfil(_DROPPED)

    def _rest(self) -> None:
        self._sender = None
        self._under_way = 0
        self._stop_timer()
        for entry in self._entries:
            entry.in_flight = False

    def refuse_largest(self) -> None:
        """Give up the largest of those under way: the server said that something is too large for it."""
        under_way = [entry for entry in self._entries if entry.in_flight]
        if under_way:
            largest = max(under_way, key=lambda entry: entry.size)
            self._remove(largest)
            largest.fail(TooLarge(f"a message of {largest.size} bytes is larger than the server takes"))

    def close(self, error: TellwireError) -> None:
        """Fail everything that waits."""
        self.detach()
        for entry in list(self._entries):
            self._remove(entry)
            entry.fail(error)
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Wait until nothing runs any more, after `close`."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pump(self) -> None:
        """Send what waits, in order, as far as the sender takes it."""
        while (
            self._sender is not None
            and self._timer is None
            and self._under_way < (1 if self._is_careful else self._sender.batches)
        ):
            batch = self._next_batch()
            if not batch:
                self._is_careful = self._is_careful and bool(self._entries)
                return
            self._under_way += 1
            publishes = [entry.publish for entry in batch]
            if self._is_careful:
                publishes[0] = msgspec.structs.replace(publishes[0], again=True)
            task = asyncio.create_task(self._send(self._sender, batch, publishes))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> list[_Entry]:
        batch: list[_Entry] = []
        size = 0
        now = asyncio.get_running_loop().time()
        for entry in list(self._entries):
            if entry.in_flight:
                continue
            if entry.sent_at is not None and now - entry.sent_at >= self._settings.idempotency_window_s:
                self._remove(entry)
                entry.fail(
                    Uncertain(
                        f"message {entry.publish.id} was sent, but not acknowledged while the server remembers ids; "
                        "see in the history whether it is there"
                    )
                )
                continue
            size += entry.size
            if batch and (len(batch) >= BATCH_MESSAGES or size > BATCH_BYTES):
                break
            batch.append(entry)
        for entry in batch:
            entry.in_flight = True
            entry.sent_at = now if entry.sent_at is None else entry.sent_at
        return batch

    async def _send(self, sender: Sender, batch: list[_Entry], publishes: list[Publish]) -> None:
        answers: Sequence[Answer]
        try:
            answers = await sender.publish(publishes)
        except Exception as exc:
            answers = [as_failure(exc)] * len(batch)
        if len(answers) < len(batch):
            answers = [*answers, *[told("internal", "the server's answer is not complete")] * len(batch)]
        # Another connection has them by now: that one will bring the answers, unless these are good ones.
        is_current = sender is self._sender
        again: Failure | None = None
        for entry, answer in zip(batch, answers, strict=False):
            if isinstance(answer, Published):
                self._remove(entry)
                entry.fulfil(answer)
            elif answer.code not in AGAIN:
                self._remove(entry)
                entry.fail(answer.error)
            elif entry.publish.ephemeral:
                self._remove(entry)
                entry.fulfil(_DROPPED)
            elif is_current:
                entry.in_flight = False
                again = again or answer
        if not is_current:
            return
        self._under_way -= 1
        if again is None:
            self._backoff.reset()
        else:
            self._is_careful = True
            if not self._under_way:
                wait_s = self._backoff.next_ms(again.retry_ms) / 1000
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._resume)
        self._pump()

    def _resume(self) -> None:
        self._timer = None
        self._pump()

    def _remove(self, entry: _Entry) -> None:
        if entry in self._entries:
            self._entries.remove(entry)
            self._bytes -= entry.size
            if not self._entries:
                self._empty.set()


def with_data(publish: Publish, data: bytes, ref: int | None = None) -> Publish:
    """Return the publish with its data in another language."""
    return msgspec.structs.replace(publish, data=Raw(data), ref=ref)
