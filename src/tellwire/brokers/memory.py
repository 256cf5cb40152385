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


class _Channel(Run[Message]):
    """One channel's messages, and what they weigh."""

    __slots__ = ("last", "size")

    def __init__(self, name: str, floor: int) -> None:
        super().__init__(floor)
        self.last = 0  # seq of the newest message ever
        self.size = CHANNEL_BYTES + len(name)


class _Region:
    """One namespace's channels, the least recently used first, and what they weigh."""

    def __init__(self, settings: Namespace) -> None:
        self.settings = settings
        self.age_ms = int(settings.history_age_s * 1000)
        self.channels: OrderedDict[str, _Channel] = OrderedDict()
        self.size = 0
        self.floor = 0  # newest seq in any channel that was dropped altogether

    def put(self, log: _Channel, message: Message) -> None:
        """Put a message at the end of a channel."""
        size = message.size
        log.append(message)
        log.last = message.seq
        log.size += size
        self.size += size

    def drop_first(self, log: _Channel) -> None:
        """Drop the oldest message of a channel."""
        size = log.drop_first().size
        log.size -= size
        self.size -= size

    def expire(self, log: _Channel, now: int) -> None:
        """Drop what is too old in a channel at `now` (ms)."""
        oldest = now - self.age_ms
        while len(log) and log.first.time < oldest:
            self.drop_first(log)

    def drop_oldest(self) -> None:
        """Drop the channel that was not used for longest."""
        _, channel = self.channels.popitem(last=False)
        self.size -= channel.size
        self.floor = max(self.floor, channel.last, channel.floor)

    def trim(self, log: _Channel, now: int) -> None:
        """Bring a channel that was just appended to, and the namespace, back within their bounds."""
        settings = self.settings
        for _ in range(len(log) - settings.history_messages):
            self.drop_first(log)
        self.expire(log, now)
        # The channel at the front was not used for longest: looking at it on every append empties idle channels
        # in time, without a timer and without a walk over all of them.
        idle = next(iter(self.channels.values()))
        if idle is not log:
            self.expire(idle, now)
            if not len(idle):
                self.drop_oldest()
        while self.size > settings.history_bytes:
            if len(self.channels) > 1:
                self.drop_oldest()
            elif len(log) > 1:
                self.drop_first(log)
            else:
                break


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
            newest = Position(epoch, log.last if log is not None else 0)
            if draft.expect != newest:
                raise Conflict(f"{channel} is at {newest}, not at {draft.expect} as expected", newest)
        if log is None:
            log = region.channels[channel] = _Channel(channel, region.floor)
            region.size += log.size
        else:
            region.channels.move_to_end(channel)
        seq = self.head.seq + 1
        message = self._message(draft, seq, now, epoch)
        region.put(log, message)
        region.trim(log, now)
        if draft.id is not None:
            self._ids.keep(channel, draft.id, seq, now)
        self.head = position = Position(epoch, seq)
        feed.deliver((message,))
        return Appended(position)

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
            trimmed = log.floor if log is not None else region.floor
            if start < trimmed:
                behind.append(name)
                floor = max(floor, trimmed)
            if log is not None:
                runs.append(log.after(start, limit_bytes, limit))
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
                newest += log.before(None if before is None or foreign else before.seq, limit)
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
            region.expire(log, self._clock())
        return region, log

    def _message(self, draft: Draft, seq: int, now: int, epoch: str) -> Message:
        id_ = draft.id if draft.id is not None else f"{epoch}.{seq}" if seq else ""
        return Message(
            draft.channel, seq, id_, now, draft.data, draft.packed, draft.event, draft.key, draft.skip, draft.trace
        )
