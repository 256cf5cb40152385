"""The hub: takes what the log feeds, and hands it to everyone who reads it, once per turn of the event loop.

Channels that got messages are marked, and flushed together: per channel and encoding the new frames are joined into one
batch, made once, and that same object is written to every caught-up reader whose socket takes it. Everything here is
plain, hence ordered and atomic on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

from tellwire.brokers.base import Broker, Slice
from tellwire.counters import Counters
from tellwire.errors import CloseCode
from tellwire.log import Entry, Tail, Tails
from tellwire.message import Appended, Cursor, Draft, Gap, Message, Position, Since
from tellwire.names import Policy
from tellwire.protocol.commands import OnGap
from tellwire.protocol.encodings import Batch, Encoding
from tellwire.runs import merge, take_bite
from tellwire.subscriber import NO_DOOR, Subscriber, Subscription
from tellwire.tasks import Tasks

_log = logging.getLogger("tellwire")

WHEEL_SLOTS = 32
"""Into how many turns a round of heartbeats is spread."""

DEAD_AFTER_BEATS = 5
"""Half intervals without a sign of life before a connection is cut: 2.5 heartbeats (DESIGN 8)."""


class Placement(NamedTuple):
    """Where a reading begins.

    ``cursor`` is what the reader has to begin with, and ``gap`` what may be missing before it. ``messages`` are what
    was read already on the way, up to ``reached``. ``subscriptions`` are held, and have to be joined or let go.
    """

    subscriptions: dict[str, Subscription]
    cursor: Position
    gap: Gap | None
    messages: list[Message]
    reached: int


class Tracer(Protocol):
    """Who makes spans of messages on their way; a node has none unless it was given one."""

    async def publish(self, draft: Draft, append: Callable[[Draft], Awaitable[Appended]]) -> Appended:
        """Append a draft that carries the context of the span which this is; begins to append before it waits."""

    def deliver(self, messages: Sequence[Message], begin_ns: int) -> None:
        """Take note that messages which carry a context were handed out, in a flush begun at `begin_ns` since 1970."""


class Hub:
    """Everyone who reads on this node.

    Args:
        broker: Where the log is; the hub is its feed.
        tasks: Who keeps the reads that have to wait.
        tail_max_bytes: Bytes of newest messages and their frames kept in memory over all channels.
        read_bite_bytes: About how much a reader that catches up is given at a time.
        counters: Where all this is counted.
    """

    def __init__(
        self,
        broker: Broker,
        tasks: Tasks,
        *,
        tail_max_bytes: int,
        read_bite_bytes: int,
        counters: Counters | None = None,
    ) -> None:
        self.broker = broker
        self.tasks = tasks
        self.counters = counters or Counters()
        self.tracer: Tracer | None = None
        self.read_bite_bytes = read_bite_bytes
        self.tails = Tails(tail_max_bytes)
        self.subscribers: set[Subscriber] = set()
        self.epoch = ""
        self.head = 0  # seq of the newest message that the feed has brought
        self.flushed = 0  # seq up to which live readers have everything
        self.readings = 0  # channels held, by all readers
        self._order = 0
        self._dirty: list[Tail] = []
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wheel: list[set[Subscriber]] = [set() for _ in range(WHEEL_SLOTS)]
        self._turn = 0

    async def open(self) -> None:
        """Open the broker and begin to take its feed."""
        self._loop = asyncio.get_running_loop()
        await self.broker.open(self)
        self._begin_at(self.broker.head)

    def _begin_at(self, head: Position) -> None:
        self.epoch = head.epoch
        self.head = self.flushed = head.seq

    # The feed

    def deliver(self, messages: Sequence[Message]) -> None:
        """Take messages from the log (see Feed); they go out at the end of this turn of the loop."""
        for message in messages:
            if message.seq:
                self.head = message.seq
            tail = self.tails.get(message.channel)
            if tail is None:
                continue
            self._order += 1
            entry = Entry(message, self.epoch, self._order)
            if not tail.fresh:
                self._dirty.append(tail)
            tail.fresh.append(entry)
            if entry.seq:
                tail.run.append(entry)
        if not self._scheduled and self._dirty:
            self._scheduled = True
            assert self._loop is not None
            self._loop.call_soon(self._flush_soon)

    def reset(self, head: Position) -> None:
        """Tell everyone that the log begins anew (see Feed), and go on from its beginning."""
        self.flush()
        cursors = [(subscriber, subscriber.cursor) for subscriber in self.subscribers]
        self._begin_at(head)
        self.tails.clear(head.seq)
        for subscriber, cursor in cursors:
            subscriber.live = False
            subscriber.position = 0
            for name in list(subscriber.joining):
                subscriber.joining[name] = 0
            gap = Gap(str(cursor), str(Position(head.epoch, 0)), "epoch", tuple(subscriber.channels))
            if subscriber.channels:
                subscriber.tell(gap)
            subscriber.advance()

    # The flush

    def _flush_soon(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Hand what is new to everyone who is caught up."""
        dirty = self._dirty
        previous, self.flushed = self.flushed, self.head
        if not dirty:
            return
        self._dirty = []
        news = {tail: tail.fresh for tail in dirty}
        for tail in dirty:
            tail.fresh = []
        oldest = news[dirty[0]][0].message
        self.counters.flushed(sum(map(len, news.values())), oldest.time)
        begin_ns = 0 if self.tracer is None else time.time_ns()
        if len(dirty) == 1:
            tail = dirty[0]
            for encoding, readers in list(tail.live.items()):
                self._hand_out(encoding, tuple(readers), news[tail], dirty, previous)
        else:
            self._flush_many(news, previous)
        for tail, entries in news.items():
            self.tails.keep(tail, entries)
        if self.tracer is not None:
            traced = [entry.message for entries in news.values() for entry in entries if entry.message.trace]
            self.tracer.deliver(traced, begin_ns)

    def _flush_many(self, news: dict[Tail, list[Entry]], previous: int) -> None:
        """Flush several channels: merged in order, once for all readers that share the same set of them."""
        # Most readers have one of them only, as in rooms: found by sets as a whole, at a tenth of looking at each.
        seen: set[Subscriber] = set()
        sharing: set[Subscriber] = set()
        for tail in news:
            for readers in tail.live.values():
                sharing |= seen & readers
                seen |= readers
        shares: dict[Subscriber, list[Tail]] = {}
        for tail, entries in news.items():
            for encoding, readers in list(tail.live.items()):
                for subscriber in readers & sharing:
                    shares.setdefault(subscriber, []).append(tail)
                if alone := readers - sharing:
                    self._hand_out(encoding, alone, entries, (tail,), previous)
        groups: dict[tuple[Encoding, tuple[Tail, ...]], list[Subscriber]] = {}
        for subscriber, tails in shares.items():
            groups.setdefault((subscriber.encoding, tuple(tails)), []).append(subscriber)
        merged: dict[tuple[Tail, ...], list[Entry]] = {}
        for (encoding, group), subscribers in groups.items():
            if group not in merged:
                merged[group] = sorted((e for tail in group for e in news[tail]), key=attrgetter("order"))
            self._hand_out(encoding, subscribers, merged[group], group, previous)

    def _hand_out(
        self,
        encoding: Encoding,
        subscribers: Collection[Subscriber],
        entries: list[Entry],
        tails: Sequence[Tail],
        previous: int,
    ) -> None:
        skips = {entry.message.skip for entry in entries if entry.message.skip}
        frames = [entry.frame(encoding) for entry in entries]
        whole: Batch = encoding.join(frames)
        others = 0  # who is not given the whole batch: few, so that counting them costs nothing
        # The one loop that runs for every delivery: nothing else belongs into it.
        for subscriber in subscribers:
            if subscriber.live:
                door = subscriber.door
                if not door.writable:
                    subscriber.fall_behind(previous, tails)
                    others += 1
                elif not skips or subscriber.session not in skips:
                    door.write(whole)
                else:
                    others += 1
                    if wanted := [e.frame(encoding) for e in entries if e.message.skip != subscriber.session]:
                        door.write(encoding.join(wanted))
                        self.counters.delivered(len(wanted), sum(map(len, wanted)))
            else:
                others += 1
        self.counters.delivered(len(frames), sum(map(len, frames)), len(subscribers) - others)

    def bite(self, names: Collection[str], after: int, until: int, limit_bytes: int) -> tuple[list[Entry], int] | None:
        """Take entries between two places from the tails, and say how far they reach; None where no tail goes back."""
        runs = []
        for name in names:
            tail = self.tails.get(name)
            if tail is None or tail.run.floor > after:
                return None
            runs.append(tail.run.after(after, limit_bytes))
        merged, more = merge(runs)
        # Each of many channels may have given a whole bite.
        entries, left = take_bite(merged, 0, limit_bytes)
        reached = entries[-1].seq if more or left else until
        if reached >= until:
            reached = until
            while entries and entries[-1].seq > until:
                entries.pop()
        return entries, reached

    # Coming and going

    def enter(self, subscriber: Subscriber, *, beats: bool = True) -> None:
        """Let a connection in; with `beats` it gets heartbeats, and is cut when it is dead."""
        self.subscribers.add(subscriber)
        self.counters.opened(subscriber.transport)
        if beats:
            self._slot(subscriber).add(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Let go of a connection and all its readings; may be called twice."""
        subscriber.closed = True
        subscriber.live = False
        # The door knows its reader: apart they go at once, and not when the garbage collector has found them.
        subscriber.door = NO_DOOR
        if subscriber in self.subscribers:
            self.subscribers.remove(subscriber)
            self.counters.closed(subscriber.transport)
        self._slot(subscriber).discard(subscriber)
        for name in list(subscriber.channels):
            self.unsubscribe(subscriber, name)

    def _slot(self, subscriber: Subscriber) -> set[Subscriber]:
        return self._wheel[(id(subscriber) >> 6) % WHEEL_SLOTS]

    async def place(
        self, wanted: dict[str, Policy], since: Since, last: int | None = None, on_gap: OnGap = "oldest"
    ) -> Placement:
        """Find where a reading of channels begins, and hold them; `join` or `let_go` has to come after it."""
        subscriptions: dict[str, Subscription] = {}
        try:
            for name, policy in wanted.items():
                if self.tails.get(name) is None:
                    await self.broker.follow(name)
                    if self.tails.get(name) is not None:  # another reader was quicker, and follows it already
                        self.tasks.start(self.broker.unfollow(name))
                tail = self.tails.open(name, self.head)
                tail.readers += 1
                self.readings += 1
                subscriptions[name] = Subscription(tail, policy, on_gap)
            while True:
                epoch = self.epoch
                placement = await self._find(subscriptions, since, last, on_gap)
                if self.epoch == epoch:  # else the log was lost meanwhile, and what was read is of the old one
                    if placement.gap is not None:
                        self.counters.gaps[placement.gap.reason] += 1
                    return placement
        except BaseException:
            self.let_go(subscriptions)
            raise

    async def _find(
        self, subscriptions: dict[str, Subscription], since: Since, last: int | None, on_gap: OnGap
    ) -> Placement:
        self.flush()
        head = Position(self.epoch, self.head)
        if last is not None:
            slice_ = await self.broker.read_back(subscriptions, None, last)
        elif since == "now":
            return Placement(subscriptions, head, None, [], head.seq)
        else:
            after = self.resolve(since)
            if after is not None and self._reach_back(subscriptions, after):
                return Placement(subscriptions, after, None, [], after.seq)
            slice_ = await self.broker.read(subscriptions, after, self.read_bite_bytes)
            if slice_.gap is None and after is not None:
                self.recall(subscriptions, after.seq, slice_)
                if self._reach_back(subscriptions, after):
                    return Placement(subscriptions, after, None, [], after.seq)
                return Placement(subscriptions, after, None, slice_.messages, slice_.position.seq)
            if slice_.gap is not None and on_gap == "newest":
                self.flush()
                newest = Position(self.epoch, self.head)
                gap = Gap(slice_.gap.from_, str(newest), slice_.gap.reason, tuple(subscriptions))
                return Placement(subscriptions, newest, gap, [], newest.seq)
        first = slice_.messages[0].seq - 1 if slice_.messages else slice_.position.seq
        begin = Position(slice_.position.epoch, first)
        # `last` counts messages, however large: what goes beyond a bite is read when the socket has taken that.
        messages, more = take_bite(slice_.messages, 0, self.read_bite_bytes)
        reached = messages[-1].seq if more else slice_.position.seq
        return Placement(subscriptions, begin, slice_.gap, messages, reached)

    def _reach_back(self, subscriptions: dict[str, Subscription], after: Position) -> bool:
        """Tell whether the tails have all that comes after a position."""
        return (
            after.epoch == self.epoch
            and after.seq <= self.head
            and all(subscription.tail.run.floor <= after.seq for subscription in subscriptions.values())
        )

    def recall(self, names: Iterable[str], after: int, slice_: Slice) -> None:
        """Put what was read of the log before the tails that it leads up to, for the next who come back from there."""
        if slice_.gap is not None or slice_.position.epoch != self.epoch:
            return
        for name in names:
            tail = self.tails.get(name)
            if tail is not None and after < (floor := tail.run.floor) <= slice_.position.seq:
                older = [Entry(m, self.epoch, 0) for m in slice_.messages if m.seq <= floor and m.channel == name]
                self.tails.put_before(tail, older, after)

    def resolve(self, since: Since) -> Position | None:
        """Turn what a reader asked for into a position to read after; None is the beginning."""
        if since == "earliest":
            return None
        if since == "now":
            return Position(self.epoch, self.head)
        if isinstance(since, int):
            return Position(self.epoch, since)
        assert isinstance(since, Cursor)
        if len(since.parts) == 1:
            return since.parts[0]
        # This log has one shard. A cursor with more components is of another log: all but its end is then taken for an
        # epoch that none has, so that it is answered with a gap that names it as it was.
        epoch, _, seq = str(since).rpartition(".")
        return Position(epoch, int(seq))

    def join(self, subscriber: Subscriber, placement: Placement) -> None:
        """Begin the reading: send what `place` has read on the way, then catch up and go live."""
        if subscriber.closed:
            self.let_go(placement.subscriptions)
            return
        names = tuple(placement.subscriptions)
        is_stale = placement.cursor.epoch != self.epoch
        reached = 0 if is_stale else placement.reached
        if not subscriber.channels:
            subscriber.live = False
            subscriber.position = reached
        subscriber.channels.update(placement.subscriptions)
        subscriber.joining.update(dict.fromkeys(names, reached))
        if is_stale:  # the log was lost since `place` returned
            subscriber.tell(Gap(str(placement.cursor), str(Position(self.epoch, 0)), "epoch", names))
        else:
            if placement.gap is not None:
                subscriber.note(placement.gap)
            subscriber.write_messages(placement.messages)
        subscriber.advance()

    def unsubscribe(self, subscriber: Subscriber, name: str) -> bool:
        """End the reading of a channel; False where there was none."""
        subscription = subscriber.channels.pop(name, None)
        if subscription is None:
            return False
        subscriber.joining.pop(name, None)
        if subscriber.unreliable is not None:
            subscriber.unreliable.discard(name)
        subscription.tail.leave(subscriber.encoding, subscriber)
        self.let_go({name: subscription})
        return True

    def let_go(self, subscriptions: dict[str, Subscription]) -> None:
        """Give back channels that were held; the last reader of one ends its following."""
        for name, subscription in subscriptions.items():
            tail = subscription.tail
            tail.readers -= 1
            self.readings -= 1
            if not tail.readers:
                self.tails.drop(tail)
                self.tasks.start(self.broker.unfollow(name))

    # Heartbeats

    def tick(self) -> None:
        """Give one slot of connections its half beat; a round of WHEEL_SLOTS calls takes half an interval."""
        self.flush()  # what is published to channels that nobody here reads moves cursors, too
        self.counters.sample(time.monotonic())
        slot = self._wheel[self._turn % WHEEL_SLOTS]
        sound = self._turn // WHEEL_SLOTS % 2 == 0
        self._turn += 1
        batches: dict[tuple[Encoding, Position], Batch] = {}
        for subscriber in tuple(slot):
            door = subscriber.door
            subscriber.silent_beats = 0 if door.writable and not door.hears else subscriber.silent_beats + 1
            if subscriber.silent_beats > DEAD_AFTER_BEATS:
                door.close(CloseCode.DEAD, "nothing was heard of this connection for 2.5 heartbeats")
            elif sound and door.writable:
                key = (subscriber.encoding, subscriber.cursor)
                batch = batches.get(key)
                if batch is None:
                    batch = batches[key] = subscriber.encoding.beat(str(subscriber.cursor))
                door.write(batch)

    def report(self, what: str, exc: BaseException) -> None:
        """Log a failure of our own."""
        _log.error("%s", what, exc_info=exc)
