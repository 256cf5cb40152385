"""What a reader may see: a plain list of all messages, and a client that holds what it is given against it.

A client knows what any client knows: what came, in which order, and the gaps it was told of. It fails where a message
comes twice, out of order or to the wrong reader, and where the server claims a place that the client has not reached.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tellwire.message import Cursor, Position


@dataclass(frozen=True)
class Item:
    """A message that was published; an ephemeral one has the place of the newest before it as ``after``."""

    n: int
    channel: str
    seq: int
    epoch: str
    key: str | None
    skip: str
    after: int = 0


@dataclass
class History:
    """Every message ever, whatever the log still has."""

    items: dict[tuple[str, int], Item] = field(default_factory=dict)
    ephemeral: dict[int, Item] = field(default_factory=dict)
    channels: dict[tuple[str, str], list[Item]] = field(default_factory=lambda: defaultdict(list))

    def add(self, item: Item) -> None:
        """Note a message that was acknowledged."""
        if item.seq:
            assert (item.epoch, item.seq) not in self.items, "a seq is never given twice in one epoch"
            self.items[item.epoch, item.seq] = item
            self.channels[item.epoch, item.channel].append(item)
        else:
            self.ephemeral[item.n] = item


@dataclass
class Reading:
    """One channel of a client.

    ``has`` is the place up to which it was given everything; ``checked`` how far that was held against the history.
    """

    epoch: str
    has: int
    checked: int
    conflates: bool
    excused: list[tuple[int, int]] = field(default_factory=list)
    got: set[int] = field(default_factory=set)
    is_joined: bool = True


class Client:
    """A reader, over all the connections it has one after the other.

    ``cursor`` is what the server said last of where the connection stands. ``is_whole``: its channels were asked for at
    once, so that every message's place is a cursor for all of them.
    """

    def __init__(self, history: History, session: str, epoch: str = "") -> None:
        self.history = history
        self.session = session
        self.epoch = epoch
        self.readings: dict[str, Reading] = {}
        self.cursor: str | None = None
        self.is_whole = True
        self.newest = 0
        self.fleeting: set[int] = set()
        self.gaps: list[dict[str, Any]] = []

    def read(self, channel: str, has: int, *, conflates: bool, is_joined: bool = True) -> None:
        """Begin to read a channel after a place, or read it again from there."""
        known = self.readings.get(channel)
        if known is None:
            self.readings[channel] = Reading(self.epoch, has, has, conflates, is_joined=is_joined)
        else:
            known.has = has
            known.checked = min(known.checked, has)
            known.conflates = conflates
            known.is_joined = is_joined

    def take(self, push: dict[str, Any]) -> None:
        """Take a message or a gap."""
        if push["type"] == "gap":
            self._take_gap(push)
        elif push.get("ephemeral"):
            self._take_ephemeral(push)
        else:
            self._take_message(push)
        if push.get("cursor"):
            self.claim(push["cursor"])

    def _take_message(self, push: dict[str, Any]) -> None:
        channel, seq = push["channel"], push["seq"]
        item = self.history.items.get((self.epoch, seq))
        assert item is not None, f"nothing was published at {self.epoch}.{seq}"
        assert (item.channel, item.n, item.key) == (channel, push["data"]["n"], push.get("key"))
        assert not item.skip or item.skip != self.session, "echo: false"
        reading = self.readings.get(channel)
        assert reading is not None, f"{channel} is not read"
        assert reading.epoch == self.epoch, "no gap told of the other epoch"
        assert seq > reading.has, f"{channel}: {seq} came after {reading.has}"
        reading.got.add(seq)
        self._check(channel, seq)
        reading.has = seq
        if reading.is_joined:
            assert seq > self.newest, f"{seq} came after {self.newest}"
            self.newest = seq
        if self.is_whole:
            self.claim(f"{self.epoch}.{seq}")

    def _take_ephemeral(self, push: dict[str, Any]) -> None:
        item = self.history.ephemeral[push["data"]["n"]]
        assert item.channel == push["channel"]
        assert item.n not in self.fleeting, "an ephemeral message came twice"
        assert not item.skip or item.skip != self.session
        self.fleeting.add(item.n)
        reading = self.readings[item.channel]
        if reading.is_joined:
            assert item.epoch == self.epoch
            assert self.newest <= item.after, "an ephemeral message came late"
            self.newest = item.after
            for channel, other in self.readings.items():
                if other.is_joined:
                    self._check(channel, item.after)

    def _take_gap(self, gap: dict[str, Any]) -> None:
        self.gaps.append(gap)
        start, end = Cursor.parse(gap["from"]).parts[0], Position.parse(gap["to"])
        assert set(gap["channels"]) <= set(self.readings)
        if gap["reason"] != "epoch":
            assert start.epoch == end.epoch == self.epoch
            assert start.seq < end.seq
            for channel in gap["channels"]:
                self.readings[channel].excused.append((start.seq, end.seq))
            return
        if end.epoch != self.epoch:
            assert set(gap["channels"]) == set(self.readings), "a new log concerns everything"
            self.epoch = end.epoch
        for channel in gap["channels"]:
            reading = self.readings[channel]
            reading.epoch = end.epoch
            reading.has = reading.checked = 0
            reading.excused = [(0, end.seq)]
            reading.got.clear()
        if set(gap["channels"]) == set(self.readings):
            self.newest = 0
            self.cursor = gap["to"]

    def claim(self, cursor: str) -> None:
        """Take a cursor: the server says that everything up to here was given on every channel."""
        position = Position.parse(cursor)
        assert position.epoch == self.epoch, (cursor, self.epoch)
        for channel in self.readings:
            self._check(channel, position.seq)
        self.cursor = cursor

    def _check(self, channel: str, upto: int) -> None:
        reading = self.readings[channel]
        assert reading.epoch == self.epoch, "no gap told of the other epoch"
        if upto <= reading.checked:
            return
        items = self.history.channels[self.epoch, channel]
        for item in reversed(items):
            if item.seq <= reading.checked:
                break
            if item.seq <= upto and not self._may_miss(reading, items, item):
                raise AssertionError(f"{channel}: {item} was lost; has {reading}, told of {self.gaps}")
        reading.checked = upto

    def _may_miss(self, reading: Reading, items: list[Item], item: Item) -> bool:
        if item.seq in reading.got or (item.skip and item.skip == self.session):
            return True
        if any(start < item.seq <= end for start, end in reading.excused):
            return True
        return reading.conflates and any(
            newer.seq > item.seq and newer.key == item.key and (not newer.skip or newer.skip != self.session)
            for newer in items
        )
