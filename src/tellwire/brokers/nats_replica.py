"""What a node holds of a log in NATS: the messages that its namespaces keep, and the ids of the last minutes.

It is made of what the stream holds, and where messages are missing there, it says so to whoever may lack them.
"""

from __future__ import annotations

from collections.abc import Callable

from tellwire.brokers.memory import MemoryBroker, _Channel, _Region
from tellwire.message import Message, Position
from tellwire.names import Namespaces


class Replica(MemoryBroker):
    """The log of a `MemoryBroker`, filled with messages that have their places already.

    Args:
        namespaces: Bounds of every namespace.
        dedupe_window_s: Seconds for which a publisher's id is remembered.
        clock: Milliseconds since 1970.
        epoch: The stream's.
    """

    def __init__(self, namespaces: Namespaces, dedupe_window_s: float, clock: Callable[[], int], epoch: str) -> None:
        super().__init__(namespaces, dedupe_window_s=dedupe_window_s, clock=clock)
        self.head = Position(epoch, 0)
        self._missing = 0
        self._is_loading = True

    def reach(self, seq: int) -> None:
        """Take note that the log came to a place at which there is no message."""
        if seq > self.head.seq:
            self.head = Position(self.head.epoch, seq)

    def skip_to(self, seq: int) -> None:
        """Take note that what lies before a place and was not loaded is not there any more."""
        if seq > self.head.seq + 1:
            self._missing = seq - 1

    def loaded(self, last: int) -> None:
        """Take note that everything up to a place was loaded."""
        self.skip_to(last + 1)
        self.reach(last)
        self._is_loading = False
        # Of a channel of which nothing is left nobody knows what it had: as far as anything is missing, it may be that.
        for region in self._regions.values():
            region.floor = max(region.floor, self._missing)

    def keep(self, message: Message, before: int, has_id: bool) -> None:
        """Put a message; `before` is where its channel's message before it was, as far as its publisher knew."""
        region = self._region(message.channel)
        log = region.channels.get(message.channel)
        if log is None:
            floor = region.floor
            if self._is_loading and before:
                floor = max(floor, self._missing)
            log = region.channels[message.channel] = _Channel(message.channel, floor)
            region.size += log.size
        else:
            region.channels.move_to_end(message.channel)
        region.put(log, message)
        region.trim(log, message.time)
        if has_id and self.known(message.channel, message.id, message.time) is None:
            self._ids.keep(message.channel, message.id, message.seq, message.time)
        self.head = Position(self.head.epoch, message.seq)

    def known(self, channel: str, id_: str, now: int) -> int | None:
        """Return the place of the message that has an id, None where it is not remembered at `now` (ms)."""
        return self._ids.find(channel, id_, now)

    def last(self, channel: str) -> int:
        """Return the place of a channel's newest message ever; of one that was dropped, a later one."""
        region = self._region(channel)
        log = region.channels.get(channel)
        return log.last if log is not None else region.floor

    def newest(self, channel: str) -> Position:
        """Return what a condition on a channel is compared with."""
        log = self._region(channel).channels.get(channel)
        return Position(self.head.epoch, log.last if log is not None else 0)

    @property
    def dropped(self) -> int:
        """The newest place in any channel that was dropped altogether."""
        return max((region.floor for region in self._regions.values()), default=0)

    def floor(self, channel: str) -> int | None:
        """Return the place up to which a channel's messages were dropped; None if all of it was."""
        log = self._region(channel).channels.get(channel)
        return None if log is None else log.floor

    def _region(self, channel: str) -> _Region:
        region = super()._region(channel)
        if not self._is_loading and region.floor < self._missing:
            region.floor = self._missing
        return region
