"""A log in several shards, each in a Redis of its own: a Cluster's masters share the work, and the order stays one.

A shard is a whole log with numbers of its own (`RedisBroker`): of so many shards, each gives those numbers only that
leave its own as the remainder. A message with the number 7 may go out once no shard can give a smaller one any more.
So each shard is a clock (Lamport, 1978): whoever sees a message has the others come as far as it is, which costs them
a small command per turn, and then hands out what they have, merged. That one order keeps a cursor one number long,
however many shards there are, and lets every reader move between channels of all of them.

The price: a message is delivered one round trip later than without shards, and while one shard is away, what the others
have waits for it. Nothing is lost by that; publishes to them are in the log, and their answers wait as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import logging
from binascii import crc32
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import msgspec

from tellwire.brokers.base import EPOCH_ALPHABET, Broker, Feed, Slice
from tellwire.brokers.redis import RedisBroker
from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import Conflict, Unavailable
from tellwire.message import Appended, Draft, Gap, Message, Position
from tellwire.names import Namespaces
from tellwire.runs import take_bite

_log = logging.getLogger("tellwire")

_HELD_MAX_BYTES = 64 * 1024 * 1024

_TICK_S = 1.0
"""Seconds between looks at how far each shard is, on a node that hears nothing of some."""


class Waiter(NamedTuple):
    """Somebody who waits until the merged log has come to a place."""

    seq: int
    number: int
    done: asyncio.Future[None]


class _Shard:
    """One shard, and what it has fed that cannot go out yet; the shard's Feed."""

    def __init__(self, number: int, broker: RedisBroker, whole: RedisShards) -> None:
        self.number = number
        self.broker = broker
        self.queue: deque[Message] = deque()
        self.asked = 0  # how far it was asked to come, while it has not answered
        self._whole = whole

    @property
    def clock(self) -> int:
        """Up to where everything was fed that this shard will ever have."""
        return self.broker.head.seq

    def deliver(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.channel:  # else it says only how far the shard is
                self.queue.append(message)
                self._whole.held_bytes += message.size
        self._whole.merge()

    def reset(self, head: Position) -> None:
        self._whole.held_bytes -= sum(message.size for message in self.queue)
        self.queue.clear()
        self._whole.begin_anew()


class RedisShards(Broker):
    """Logs in several shards of a Redis Cluster, or of one Redis.

    Bounds of namespaces hold in each shard. Appends to one channel take their places as they were begun; so do all that
    one waits for before it begins the next. Those to channels of different shards that are under way together may
    overtake each other.

    Args:
        place: Where Redis is, what the log is called, and its number of shards.
        namespaces: Bounds of every namespace; the same on every node.
        dedupe_window_s: Seconds for which a publisher's id is remembered.
        clock: Milliseconds since 1970; None means Redis' own clock, the same for all nodes.
        held_max_bytes: Bytes of messages that may wait for a shard to come on. Beyond it they are let go of, and
            readers are told of a gap once it is there.
    """

    def __init__(
        self,
        place: RedisPlace,
        namespaces: Namespaces | None = None,
        *,
        dedupe_window_s: float = 300.0,
        clock: Callable[[], int] | None = None,
        held_max_bytes: int = _HELD_MAX_BYTES,
    ) -> None:
        self.place = place
        self.head = Position("", 0)
        self.held_bytes = 0
        self._held_max_bytes = held_max_bytes
        self._is_spilled = False
        self._shards = [
            _Shard(
                number, RedisBroker(place, namespaces, dedupe_window_s=dedupe_window_s, clock=clock, shard=number), self
            )
            for number in range(place.shards)
        ]
        self._feed: Feed | None = None
        self._waiters: list[Waiter] = []
        self._numbers = itertools.count()
        self._beginning: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._is_open = False
        self._appending = 0
        self._appended: asyncio.Future[None] | None = None  # done once no append is under way, where somebody waits

    def shard_of(self, channel: str) -> int:
        """Tell in which shard a channel is: the same on every node, for as long as there is the log."""
        return crc32(channel.encode("utf-8", "surrogatepass")) % len(self._shards)

    async def open(self, feed: Feed) -> None:
        if self._feed is not None or self._closing is not None:
            raise Unavailable("this broker was opened before; make another one")
        self._feed = feed
        opened = await asyncio.gather(*(shard.broker.open(shard) for shard in self._shards), return_exceptions=True)
        try:
            for outcome in opened:
                if outcome is not None:
                    raise outcome
            await self._level()
        except BaseException:
            await self.aclose()
            raise
        self._is_open = True
        self._ticker = asyncio.get_running_loop().create_task(self._tick())

    # The one order

    def merge(self) -> None:
        """Hand out, in their order, what no shard can put anything before any more; have the others come on."""
        if self.held_bytes > self._held_max_bytes:
            self._spill()
        if not self._begun.is_set():
            return
        ready: list[Message] = []
        shards = self._shards
        low = min(shard.clock for shard in shards)
        while True:
            first: _Shard | None = None
            for shard in shards:
                while shard.queue and not shard.queue[0].seq:  # an ephemeral one has no place to wait at
                    ready.append(self._taken(shard))
                if shard.queue and (first is None or shard.queue[0].seq < first.queue[0].seq):
                    first = shard
            if first is None or first.queue[0].seq > low:
                break
            ready.append(self._renamed(first, self._taken(first)))
        if low > self.head.seq:
            self.head = Position(self.head.epoch, low)
            if not ready or ready[-1].seq < low:
                ready.append(Message("", low, "", 0, b""))
        if ready:
            self._hand_over(ready)
        self._release()
        high = max(shard.clock for shard in shards)
        for shard in shards:
            if shard.clock < high and not shard.asked:
                self._advance(shard, high)

    def _taken(self, shard: _Shard) -> Message:
        message = shard.queue.popleft()
        self.held_bytes -= message.size
        return message

    def _spill(self) -> None:
        """Let go of what waits: it is in the log, but nobody can be handed it in order any more."""
        _log.warning(
            "%s did not come on while %d bytes waited for it; readers will be told of a gap",
            self._laggard.broker.place, self.held_bytes,
        )  # fmt: skip
        for shard in self._shards:
            shard.queue.clear()
        self.held_bytes = 0
        self._is_spilled = True
        self.begin_anew()

    def _renamed(self, shard: _Shard, message: Message) -> Message:
        """Let a message that was given its position as its id have that of the whole log."""
        if message.id != f"{shard.broker.head.epoch}.{message.seq}":
            return message
        return msgspec.structs.replace(message, id=f"{self.head.epoch}.{message.seq}")

    def _hand_over(self, messages: list[Message]) -> None:
        assert self._feed is not None
        try:
            self._feed.deliver(messages)
        except Exception:
            _log.exception("the feed of %s failed; its messages are in the log", self.place)

    def _advance(self, shard: _Shard, to: int) -> None:
        """Have a shard come so far; what it says then is merged as it is heard."""
        try:
            answer = shard.broker.look(to)
        except Unavailable:
            return  # it is closed, or too much waits for it already; the next tick tries again
        shard.asked = to

        def answered(answer: asyncio.Future[None]) -> None:
            shard.asked = 0
            if not answer.cancelled() and answer.exception() is None:
                self.merge()

        answer.add_done_callback(answered)

    def _release(self) -> None:
        waiters = self._waiters
        while waiters and (waiters[0].seq <= self.head.seq or waiters[0].done.done()):
            waiter = heapq.heappop(waiters)
            if not waiter.done.done():
                waiter.done.set_result(None)

    async def _reach(self, seq: int) -> None:
        """Wait until everything up to a place was handed to the feed; raises Unavailable."""
        if self._begun.is_set() and seq <= self.head.seq:
            return
        waiter = Waiter(seq, next(self._numbers), asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiters, waiter)
        self.merge()
        # Not asyncio.timeout: a node begins what it asks of a broker outside of any task (`tellwire.tasks`).
        if not (await asyncio.wait([waiter.done], timeout=self.place.timeout_s))[0]:
            waiter.done.cancel()
            raise Unavailable(
                f"{self._laggard.broker.place} did not answer in {self.place.timeout_s:g} seconds, and the others wait "
                "for it; try again with the same id"
            )
        waiter.done.result()

    @property
    def _laggard(self) -> _Shard:
        return min(self._shards, key=lambda shard: shard.clock)

    # Beginning, and beginning anew

    def begin_anew(self) -> None:
        """Take note that a shard's log was lost, and so the whole is another one."""
        self._begun.clear()
        if not self._is_open:
            return  # `open` is about to begin anyway
        if self._beginning is None or self._beginning.done():
            self._beginning = asyncio.get_running_loop().create_task(self._begin_anew())

    async def _begin_anew(self) -> None:
        while True:
            try:
                await self._level()
            except Unavailable as exc:
                _log.warning("%s: %s; nothing goes out until it is there", self.place, exc)
                await asyncio.sleep(_TICK_S)
                continue
            assert self._feed is not None
            try:
                self._feed.reset(self.head)
            except Exception:
                _log.exception("the feed of %s failed", self.place)
            self.merge()
            return

    async def _level(self) -> None:
        """Have all shards come to one place, at which the whole begins for this node; raises Unavailable."""
        while True:
            self._is_spilled = False
            epochs = self._epochs
            high = max(shard.clock for shard in self._shards)
            await asyncio.gather(*(shard.broker.look(high) for shard in self._shards))
            if self._epochs == epochs and not self._is_spilled:
                break
        low = min(shard.clock for shard in self._shards)
        for shard in self._shards:
            shard.queue = deque(message for message in shard.queue if not message.seq or message.seq > low)
        self.held_bytes = sum(message.size for shard in self._shards for message in shard.queue)
        self.head = Position(_name_of(epochs), low)
        self._begun.set()

    @property
    def _epochs(self) -> list[str]:
        return [shard.broker.head.epoch for shard in self._shards]

    async def _tick(self) -> None:
        """Look now and then how far all shards are, in channels too that nobody follows here."""
        while True:
            await asyncio.sleep(_TICK_S)
            await asyncio.gather(*(shard.broker.look() for shard in self._shards), return_exceptions=True)
            self.merge()

    # Appending

    def _check_open(self, what: str) -> None:
        if not self._is_open or self._closing is not None:
            raise Unavailable(f"the broker is closed; nothing can be {what}")

    async def append(self, draft: Draft) -> Appended:
        self._check_open("published")
        shard = self._shards[self.shard_of(draft.channel)]
        if draft.expect is not None and draft.expect.epoch == self.head.epoch:
            expect = Position(shard.broker.head.epoch, draft.expect.seq)
            draft = msgspec.structs.replace(draft, expect=expect)
        self._appending += 1
        try:
            return await self._append(shard, draft)
        finally:
            self._appending -= 1
            if not self._appending and self._appended is not None:
                self._appended.set_result(None)

    async def _append(self, shard: _Shard, draft: Draft) -> Appended:
        try:
            appended = await shard.broker.append(draft)
        except Conflict as exc:
            newest = None if exc.head is None else await self._whole(shard, exc.head)
            raise Conflict(f"{draft.channel} is at {newest}, not as expected", newest) from None
        if appended.position is None:
            return appended
        return Appended(await self._whole(shard, appended.position), appended.duplicate)

    async def _whole(self, shard: _Shard, position: Position) -> Position:
        """Return a shard's position as one of the whole log, once it was handed to the feed."""
        await self._reach(position.seq)
        if shard.broker.head.epoch != position.epoch:
            raise Unavailable("the log was lost meanwhile, so nobody knows whether this is in it; try again with an id")
        return Position(self.head.epoch, position.seq)

    # Reading

    async def read(
        self, channels: Collection[str], after: Position | None, limit_bytes: int, limit: int | None = None
    ) -> Slice:
        names = tuple(channels)
        while True:
            begun = await self._level_with(after)
            at = [self._in_shard(shard, after) for shard in self._shards]
            parts = self._parts(names)
            slices = await asyncio.gather(
                *(self._shards[number].broker.read(some, at[number], limit_bytes, limit) for number, some in parts)
            )
            gap = self._gap(after, names, [slice_.gap for slice_ in slices])
            if gap is not None:
                await self._reach(Position.parse(gap.to).seq)  # it was trimmed by what is on its way here
            if self.head.epoch == begun and self._begun.is_set():
                break
        # What a node has not delivered yet is not shown either, and of a shard that has more nothing behind that.
        reached = min([self.head.seq, *(slice_.position.seq for slice_ in slices)])
        merged = self._merged(parts, slices, reached)
        messages, more = take_bite(merged, 0, limit_bytes, limit)
        position = Position(begun, messages[-1].seq if more else reached)
        return Slice(messages, position, gap)

    async def read_back(self, channels: Collection[str], before: Position | None, limit: int) -> Slice:
        names = tuple(channels)
        while True:
            begun = await self._level_with(before)
            head = self.head
            end = head.seq + 1
            is_foreign = before is not None and (before.epoch != begun or before.seq > end)
            if before is not None and not is_foreign:
                end = before.seq
            at = [Position(shard.broker.head.epoch, end) for shard in self._shards]
            parts = self._parts(names)
            slices = await asyncio.gather(
                *(self._shards[number].broker.read_back(some, at[number], limit) for number, some in parts)
            )
            if self.head.epoch == begun and self._begun.is_set():
                break
        merged = self._merged(parts, slices, head.seq)
        gap = Gap(str(before), str(head), "epoch", names) if is_foreign else None
        return Slice(merged[max(0, len(merged) - limit) :], head, gap)

    def _parts(self, names: Sequence[str]) -> list[tuple[int, list[str]]]:
        parts: dict[int, list[str]] = {}
        for name in names:
            parts.setdefault(self.shard_of(name), []).append(name)
        return sorted(parts.items())

    def _merged(self, parts: Sequence[tuple[int, list[str]]], slices: Sequence[Slice], reached: int) -> list[Message]:
        messages = [
            self._renamed(self._shards[number], message)
            for (number, _), slice_ in zip(parts, slices, strict=True)
            for message in slice_.messages
            if message.seq <= reached
        ]
        return sorted(messages, key=lambda message: message.seq)

    async def _level_with(self, position: Position | None) -> str:
        """Hear from all shards how far they are, so that whatever was acknowledged anywhere is seen here."""
        self._check_open("read")
        if not self._begun.is_set():
            begun = asyncio.get_running_loop().create_task(self._begun.wait())
            try:
                await asyncio.wait([begun], timeout=self.place.timeout_s)
            finally:
                begun.cancel()
            if not self._begun.is_set():
                raise Unavailable(f"{self.place} is not complete; try again")
        await asyncio.gather(*(shard.broker.look() for shard in self._shards))
        self.merge()
        high = max(shard.clock for shard in self._shards)
        if high > self.head.seq:
            await self._reach(high)
        return self.head.epoch

    def _in_shard(self, shard: _Shard, position: Position | None) -> Position | None:
        """Return a position of the whole log as one of a shard; one of another log stays one of another."""
        if position is None:
            return None
        if position.epoch == self.head.epoch and position.seq <= self.head.seq:
            return Position(shard.broker.head.epoch, position.seq)
        return Position("other", position.seq)

    def _gap(self, after: Position | None, names: Sequence[str], gaps: Sequence[Gap | None]) -> Gap | None:
        """Make one gap of those of the shards."""
        found = [gap for gap in gaps if gap is not None]
        if not found:
            return None
        to = max(Position.parse(gap.to).seq for gap in found)
        lacking = {name for gap in found for name in gap.channels}
        reason = found[0].reason
        return Gap(
            str(after), str(Position(self.head.epoch, to)), reason, tuple(name for name in names if name in lacking)
        )

    # Following

    async def follow(self, channel: str) -> None:
        self._check_open("followed")
        shard = self._shards[self.shard_of(channel)]
        await shard.broker.follow(channel)
        try:
            await self._reach(shard.clock)
        except BaseException:
            await shard.broker.unfollow(channel)
            raise

    async def unfollow(self, channel: str) -> None:
        await self._shards[self.shard_of(channel)].broker.unfollow(channel)

    def figures(self) -> dict[str, float]:
        figures: dict[str, float] = {"shards": len(self._shards), "held_bytes": self.held_bytes}
        for shard in self._shards:
            for name, value in shard.broker.figures().items():
                figures[name] = figures.get(name, 0.0) + value
        return figures

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._appending:
            self._appended = asyncio.get_running_loop().create_future()
            await self._appended
        for task in (self._ticker, self._beginning):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(shard.broker.aclose() for shard in self._shards))


def _name_of(epochs: Sequence[str]) -> str:
    """Name the whole log after its shards' logs: another one as soon as one of them is another."""
    digest = hashlib.sha256(" ".join(epochs).encode()).digest()
    return "".join(EPOCH_ALPHABET[byte % len(EPOCH_ALPHABET)] for byte in digest[:8])
