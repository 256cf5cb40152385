"""The tail of each channel on this node: its newest messages, each encoded once.

A tail is a cache of the log. Readers that are nearly caught up read it instead of the broker, at once and without
waiting, and that is what lets a reader join the live stream without a hole. It grows at its end by what is published,
and at its front by what the first of those who come back has read of the log: the others find it there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tellwire.message import Message
from tellwire.protocol.encodings import Encoding
from tellwire.runs import Run

ENTRY_BYTES = 300
"""What an entry and its place in a tail weigh beside its message and its frames."""


class Entry:
    """A message on this node, with the frames that were made of it; ``order`` is its place among all on this node."""

    __slots__ = ("_frames", "epoch", "message", "order", "seq", "size")

    def __init__(self, message: Message, epoch: str, order: int) -> None:
        self.message = message
        self.epoch = epoch
        self.seq = message.seq
        self.order = order
        self.size = message.size
        self._frames: dict[str, bytes] = {}

    def frame(self, encoding: Encoding) -> bytes:
        """Return the message in an encoding, made the first time that it is asked for."""
        frame = self._frames.get(encoding.key)
        if frame is None:
            frame = self._frames[encoding.key] = encoding.frame(self.message, self.epoch)
        return frame

    def has_frame(self, encoding: Encoding) -> bool:
        """Tell whether the frame for an encoding was made already."""
        return encoding.key in self._frames

    @property
    def weight(self) -> int:
        """Bytes that the entry keeps in memory: the message and all its frames."""
        return self.size + ENTRY_BYTES + sum(map(len, self._frames.values()))


class Tail:
    """The newest messages of one channel, complete after ``run.floor``, and who reads them.

    ``fresh`` are the entries that came since the last flush; those with a place are in the run already. ``live`` holds
    the readers whose place in this channel is their connection's, ``readers`` counts all.
    """

    __slots__ = ("channel", "fresh", "live", "readers", "run")

    def __init__(self, channel: str, floor: int) -> None:
        self.channel = channel
        self.run: Run[Entry] = Run(floor)
        self.fresh: list[Entry] = []
        self.live: dict[Encoding, set[Any]] = {}
        self.readers = 0

    def leave(self, encoding: Encoding, reader: Any) -> None:
        """Take a reader out of the live ones, if it is among them."""
        readers = self.live.get(encoding)
        if readers is not None:
            readers.discard(reader)
            if not readers:
                del self.live[encoding]


class Tails:
    """The tails of all channels read on this node, bounded together in bytes; the oldest entries go first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tails: dict[str, Tail] = {}
        self._ages: deque[Tail] = deque()  # for each entry kept, oldest first: the tail whose first entry it is
        self._size = 0

    def __len__(self) -> int:
        return len(self._tails)

    def __iter__(self) -> Iterator[Tail]:
        return iter(self._tails.values())

    @property
    def size(self) -> int:
        """Bytes that all entries and their frames take."""
        return self._size

    def get(self, channel: str) -> Tail | None:
        """Return the channel's tail, if anyone reads it."""
        return self._tails.get(channel)

    def open(self, channel: str, head: int) -> Tail:
        """Return the channel's tail; a new one is complete after `head`."""
        tail = self._tails.get(channel)
        if tail is None:
            tail = self._tails[channel] = Tail(channel, head)
        return tail

    def drop(self, tail: Tail) -> None:
        """Forget a tail that nobody reads; its entries wait for their turn in the bound."""
        if self._tails.get(tail.channel) is tail:
            del self._tails[tail.channel]

    def keep(self, tail: Tail, entries: Iterable[Entry]) -> None:
        """Count entries that were flushed; over the bound, drop the oldest of all tails."""
        for entry in entries:
            if entry.seq:
                self._ages.append(tail)
                self._size += entry.weight
        if self._size > self._max_bytes:
            self._trim()

    def put_before(self, tail: Tail, entries: Sequence[Entry], floor: int) -> None:
        """Let a tail go back to `floor`, by all entries between that and its own, if the bound has room for them.

        They are the oldest of all now, and the first to go.
        """
        size = self._size + sum(entry.weight for entry in entries)
        if size <= self._max_bytes:
            tail.run.prepend(entries, floor)
            self._ages.extendleft([tail] * len(entries))
            self._size = size

    def _trim(self) -> None:
        while self._size > self._max_bytes:
            self._size -= self._ages.popleft().run.drop_first().weight

    def frames(self, entries: Iterable[Entry], encoding: Encoding) -> list[bytes]:
        """Return the frames of kept entries; those made now count from now on."""
        frames = []
        for entry in entries:
            known = entry.has_frame(encoding)
            frames.append(frame := entry.frame(encoding))
            if not known:
                self._size += len(frame)
        if self._size > self._max_bytes:
            self._trim()
        return frames

    def clear(self, head: int) -> None:
        """Drop every entry: the log begins anew after `head`."""
        self._ages.clear()
        self._size = 0
        for tail in self._tails.values():
            tail.run = Run(head)
            tail.fresh = []
