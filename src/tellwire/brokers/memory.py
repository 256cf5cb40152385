"""The log in this process's memory: the default, and the model that the other brokers are held against.

It is gone with the process; every start is a new epoch. Bounded per namespace by messages per channel, by age and by
total bytes; the channels that were used least recently are emptied first.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from operator import attrgetter
from urllib.parse import urlsplit

from tellwire.brokers.base import Broker, Feed, Slice, new_epoch
from tellwire.brokers.ids import RecentIds
from tellwire.errors import Conflict, Unavailable
from tellwire.message import Appended, Draft, Gap, Message, Position
from tellwire.names import Namespace, Namespaces
from tellwire.runs import Run, merge, take_bite

CHANNEL_BYTES = 400
"""What an empty channel counts for in its namespace's bytes, so that their number is bounded too."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Channel:
    """One channel's messages, and what they weigh."""

    __slots__ = ("last", "run", "size")

    def __init__(self, name: str, floor: int) -> None:
        self.run: Run[Message] = Run(floor)
        self.last = 0  # seq of the newest message ever
        self.size = CHANNEL_BYTES + len(name)

    def drop_first(self) -> int:
        """Drop the oldest message; return the bytes that it frees."""
        size = self.run.drop_first().size
        self.size -= size
        return size


class _Region:
    """One namespace's channels, the least recently used first, and what they weigh."""

    def __init__(self, settings: Namespace) -> None:
        self.settings = settings
        self.channels: OrderedDict[str, _Channel] = OrderedDict()
        self.size = 0
        self.floor = 0  # newest seq in any channel that was dropped altogether

    def drop_oldest(self) -> None:
        _, channel = self.channels.popitem(last=False)
        self.size -= channel.size
        self.floor = max(self.floor, channel.last, channel.run.floor)


class MemoryBroker(Broker):
    """Logs in this process's memory, gone with it.

    Args:
        namespaces: Bounds of every namespace.
        dedupe_window_s: Seconds for which a publisher's id is remembered.
        dedupe_max_bytes: Bytes that remembering ids may take; beyond it the oldest are forgotten first.
        clock: Milliseconds since 1970; replaced in tests.
    """

    def __init__(
        self,
        namespaces: Namespaces | None = None,
        *,
        dedupe_window_s: float = 300.0,
        dedupe_max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], int] = _now_ms,
    ) -> None:
        self._namespaces = namespaces or Namespaces()
        self._dedupe = int(dedupe_window_s * 1000), dedupe_max_bytes
        self._clock = clock
        self._feed: Feed | None = None
        self._wipe()

    def _wipe(self) -> None:
        """Begin an empty log, under an epoch of its own."""
        self._regions: dict[str, _Region] = {}
        self._ids = RecentIds(*self._dedupe)
        self.head = Position(new_epoch(), 0)

    @classmethod
    def from_url(cls, url: str, namespaces: Namespaces, dedupe_window_s: float) -> MemoryBroker:
        """Make one for ``memory://``; it takes no other parts."""
        parts = urlsplit(url)
        if parts.netloc or parts.path or parts.query:
            raise ValueError(f"the memory broker is called memory:// and nothing more; got {url!r}")
        return cls(namespaces, dedupe_window_s=dedupe_window_s)

    async def open(self, feed: Feed) -> None:
        self._feed = feed

    async def append(self, draft: Draft) -> Appended:
        feed = self._feed
        if feed is None:
            raise Unavailable("the broker is closed; nothing can be published")
        now = self._clock()
        epoch = self.head.epoch
        channel = draft.channel
        if draft.ephemeral:
            feed.deliver((self._message(draft, 0, now, ""),))
            return Appended(None)
        if draft.id is not None and (known := self._ids.find(channel, draft.id, now)) is not None:
            return Appended(Position(epoch, known), duplicate=True)
        region = self._region(channel)
        log = region.channels.get(channel)
        if draft.expect is not None:
            newest = Position(epoch, log.last if log else 0)
            if draft.expect != newest:
                raise Conflict(f"{channel} is at {newest}, not at {draft.expect} as expected", newest)
        if log is None:
            log = region.channels[channel] = _Channel(channel, region.floor)
            region.size += log.size
        else:
            region.channels.move_to_end(channel)
        seq = self.head.seq + 1
        message = self._message(draft, seq, now, epoch)
        self._put(region, log, message)
        if draft.id is not None:
            self._ids.keep(channel, draft.id, seq, now)
        self.head = Position(epoch, seq)
        feed.deliver((message,))
        return Appended(self.head)

    async def read(
        self, channels: Collection[str], after: Position | None, limit_bytes: int, limit: int | None = None
    ) -> Slice:
        head = self.head
        start, floor, foreign = 0, 0, False
        if after is not None:
            foreign = after.epoch != head.epoch or after.seq > head.seq
            start = 0 if foreign else after.seq
        behind: list[str] = []
        runs: list[tuple[list[Message], bool]] = []
        for name in channels:
            region, log = self._used(name)
            trimmed = log.run.floor if log else region.floor
            if start < trimmed:
                behind.append(name)
                floor = max(floor, trimmed)
            if log is not None:
                runs.append(log.run.after(start, limit_bytes, limit))
        merged, more = merge(runs) if runs else ([], False)
        bite, left = take_bite(merged, 0, limit_bytes, limit)
        gap = None
        if foreign:
            gap = Gap(str(after), str(Position(head.epoch, floor)), "epoch", tuple(channels))
        elif after is not None and behind:
            gap = Gap(str(after), str(Position(head.epoch, floor)), "trimmed", tuple(behind))
        return Slice(bite, Position(head.epoch, bite[-1].seq) if more or left else head, gap)

    async def read_back(self, channels: Collection[str], before: Position | None, limit: int) -> Slice:
        head = self.head
        foreign = before is not None and (before.epoch != head.epoch or before.seq > head.seq + 1)
        newest: list[Message] = []
        for name in channels:
            log = self._used(name)[1]
            if log is not None:
                newest += log.run.before(None if before is None or foreign else before.seq, limit)
        newest.sort(key=attrgetter("seq"))
        gap = Gap(str(before), str(head), "epoch", tuple(channels)) if foreign else None
        return Slice(newest[-limit:], head, gap)

    async def follow(self, channel: str) -> None:
        """Nothing to do: the feed of a log in this process is complete."""

    async def unfollow(self, channel: str) -> None:
        """Nothing to do."""

    def figures(self) -> dict[str, float]:
        regions = self._regions.values()
        return {
            "history_bytes": sum(region.size for region in regions),
            "history_channels": sum(len(region.channels) for region in regions),
        }

    async def aclose(self) -> None:
        self._feed = None

    def _put(self, region: _Region, log: _Channel, message: Message) -> None:
        log.run.append(message)
        log.last = message.seq
        log.size += message.size
        region.size += message.size
        self._trim(region, log, message.time)

    def _region(self, channel: str) -> _Region:
        settings = self._namespaces.of(channel)
        region = self._regions.get(settings.name)
        if region is None:
            region = self._regions[settings.name] = _Region(settings)
        return region

    def _used(self, channel: str) -> tuple[_Region, _Channel | None]:
        """Find a channel that is being read, without what is too old by now."""
        region = self._region(channel)
        log = region.channels.get(channel)
        if log is not None:
            region.channels.move_to_end(channel)
            self._expire(region, log, self._clock())
        return region, log

    def _message(self, draft: Draft, seq: int, now: int, epoch: str) -> Message:
        id_ = draft.id if draft.id is not None else f"{epoch}.{seq}" if seq else ""
        return Message(
            draft.channel, seq, id_, now, draft.data, draft.packed, draft.event, draft.key, draft.skip, draft.trace
        )

    def _expire(self, region: _Region, log: _Channel, now: int) -> None:
        oldest = now - int(region.settings.history_age_s * 1000)
        while len(log.run) and log.run.first.time < oldest:
            region.size -= log.drop_first()

    def _trim(self, region: _Region, log: _Channel, now: int) -> None:
        """Bring a channel that was just appended to, and its namespace, back within their bounds."""
        settings = region.settings
        while len(log.run) > settings.history_messages:
            region.size -= log.drop_first()
        self._expire(region, log, now)
        # The channel at the front was not used for longest: looking at it on every append empties idle channels
        # in time, without a timer and without a walk over all of them.
        idle = next(iter(region.channels.values()))
        if idle is not log:
            self._expire(region, idle, now)
            if not len(idle.run):
                region.drop_oldest()
        while region.size > settings.history_bytes:
            if len(region.channels) > 1:
                region.drop_oldest()
            elif len(log.run) > 1:
                region.size -= log.drop_first()
            else:
                break
