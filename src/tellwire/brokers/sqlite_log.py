"""The writing side of a SQLite log: appends taken together into one transaction, and trimmed in it.

All of it runs on the writer's thread. Python's sqlite3 gives up the interpreter around every step of a statement, and
gets it back from a busy event loop only after up to 5 ms; so what belongs together goes into few steps: many rows
in one INSERT, and lists as JSON. (Reading 300 rows beside a busy loop: 400 ms row by row, 11 ms in one step.)
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tellwire.brokers.ids import RecentIds
from tellwire.brokers.memory import CHANNEL_BYTES
from tellwire.errors import Conflict
from tellwire.message import Appended, Draft, Message, Position
from tellwire.names import Namespace, Namespaces

Touched = tuple[str, ...]
"""Channels that were read since the append before: they count as used."""

_MESSAGE_COLUMNS = 11
_ID_COLUMNS = 4
_CHANNEL_COLUMNS = 8
_ROWS_AT_ONCE = 256
_TRIMMED_AT_ONCE = 2048
"""Most messages that one channel loses in one transaction; over it the rest goes with the appends after."""

_UPSERT = """ ON CONFLICT (id) DO UPDATE SET last = excluded.last, floor = excluded.floor, count = excluded.count,
bytes = excluded.bytes, oldest = excluded.oldest, newest = excluded.newest"""

# The oldest places of each channel in ?1 (a list of ids), at most ?2 of each, as one JSON text.
_OLDEST = """SELECT json_group_array(json((
    SELECT json_group_array(json_array(seq, size, time)) FROM (
        SELECT seq, size, time FROM messages WHERE channel = wanted.value ORDER BY seq LIMIT ?2)
))) FROM json_each(?1) AS wanted"""

_DELETE_UP_TO = """DELETE FROM messages WHERE seq IN (
    SELECT messages.seq FROM json_each(?1) AS cut CROSS JOIN messages
    ON messages.channel = json_extract(cut.value, '$[0]') AND messages.seq <= json_extract(cut.value, '$[1]'))"""


class Place(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where a message is, without the message."""

    seq: int
    size: int
    time: int


_places = msgspec.json.Decoder(list[list[Place]])


@dataclass(frozen=True)
class Settings:
    """What a SQLite log is kept by."""

    namespaces: Namespaces
    """Bounds of every namespace."""
    dedupe_window_ms: int
    """Milliseconds for which a publisher's id is remembered."""
    dedupe_max_bytes: int
    """Bytes of memory that remembering ids may take; beyond it the oldest are forgotten first."""
    clock: Callable[[], int]
    """Milliseconds since 1970."""


class _Channel:
    """What the writer knows of a channel: its row in the file."""

    __slots__ = ("count", "floor", "id", "last", "name", "newest", "oldest", "region", "size")

    def __init__(
        self,
        region: _Region,
        id_: int,
        name: str,
        last: int,
        floor: int,
        count: int,
        size: int,
        oldest: int,
        newest: int,
    ) -> None:
        self.region = region
        self.id = id_
        self.name = name
        self.last = last
        self.floor = floor
        self.count = count
        self.size = size
        self.oldest = oldest
        self.newest = newest

    def row(self) -> tuple[Any, ...]:
        return self.id, self.name, self.last, self.floor, self.count, self.size, self.oldest, self.newest

    @property
    def weight(self) -> int:
        return CHANNEL_BYTES + len(self.name) + self.size


class _Region:
    """One namespace's channels, the least recently used first, and what they weigh."""

    def __init__(self, settings: Namespace, floor: int) -> None:
        self.settings = settings
        self.age_ms = int(settings.history_age_s * 1000)
        self.channels: OrderedDict[str, _Channel] = OrderedDict()
        self.size = 0
        self.floor = floor


class Log:
    """The state of a log and the one way to change it.

    It mirrors the file between transactions. After a transaction failed it is thrown away, and another one is
    loaded: nothing is undone by hand.

    Args:
        burnt: No message gets this ``seq`` or an older one: they may have been seen in a transaction that failed.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        epoch: str,
        settings: Settings,
        burnt: int = 0,
    ) -> None:
        self._connection = connection
        self._epoch = epoch
        self._namespaces = settings.namespaces
        self._clock = settings.clock
        self._ids = RecentIds(settings.dedupe_window_ms, settings.dedupe_max_bytes)
        self._forgotten = 0  # ids up to this seq are no longer in the file
        self._channels: dict[str, _Channel] = {}
        self._rows_at_once = min(
            _ROWS_AT_ONCE, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // _MESSAGE_COLUMNS
        )
        self.seq = 0
        self._load()
        self.seq = max(self.seq, burnt)

    def _load(self) -> None:
        connection = self._connection
        floors: dict[str, int] = dict(connection.execute("SELECT name, floor FROM namespaces"))
        names = {settings.name for settings in self._namespaces}
        if names != floors.keys():
            # A channel that was dropped may belong to another namespace by now, so each has to stand for all.
            highest = max(floors.values(), default=0)
            floors = dict.fromkeys(names, highest)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM namespaces")
            connection.executemany("INSERT INTO namespaces VALUES (?, ?)", floors.items())
            connection.execute("COMMIT")
        self._regions = {each.name: _Region(each, floors[each.name]) for each in self._namespaces}
        self.seq = max(floors.values(), default=0)
        self._next_id = 1
        for id_, name, *row in connection.execute("SELECT * FROM channels ORDER BY last"):
            self._add(_Channel(self._region(name), id_, name, *row))
            self._next_id = max(self._next_id, id_ + 1)
            self.seq = max(self.seq, row[0])
        for seq, channel, id_, time in connection.execute("SELECT seq, channel, id, time FROM ids ORDER BY seq"):
            self._ids.keep(channel, id_, seq, time)

    def _region(self, channel: str) -> _Region:
        return self._regions[self._namespaces.of(channel).name]

    def _add(self, channel: _Channel) -> None:
        self._channels[channel.name] = channel
        channel.region.channels[channel.name] = channel
        channel.region.size += channel.weight

    def commit(self, drafts: Iterable[Draft | Touched]) -> tuple[list[Appended | Conflict | None], list[Message]]:
        """Give drafts their places, in one transaction.

        Returns what became of each (None for touched channels), and the messages that are in the log by now. Raises
        whatever sqlite3 does; then nothing was appended, and this object is of no more use.
        """
        now = self._clock()
        epoch = self._epoch
        channels = self._channels
        ids = self._ids
        outcomes: list[Appended | Conflict | None] = []
        messages: list[Message] = []
        rows: list[Any] = []
        id_rows: list[Any] = []
        used: dict[str, _Channel] = {}
        for draft in drafts:
            if type(draft) is tuple:
                outcomes.append(None)
                self._touch(draft, used)
                continue
            assert isinstance(draft, Draft)
            name = draft.channel
            id_ = draft.id
            if id_ is not None and (known := ids.find(name, id_, now)) is not None:
                outcomes.append(Appended(Position(epoch, known), duplicate=True))
                continue
            channel = channels.get(name)
            if draft.expect is not None:
                newest = Position(epoch, channel.last if channel else 0)
                if draft.expect != newest:
                    detail = f"{name} is at {newest}, not at {draft.expect} as expected"
                    outcomes.append(Conflict(detail, newest))
                    continue
            seq = self.seq = self.seq + 1
            if channel is None:
                region = self._region(name)
                channel = _Channel(region, self._next_id, name, seq, region.floor, 0, 0, now, now)
                self._next_id += 1
                self._add(channel)
            else:
                region = channel.region
                region.channels.move_to_end(name)
                if not channel.count:
                    channel.oldest = now
            if id_ is None:
                id_ = f"{epoch}.{seq}"
            else:
                ids.keep(name, id_, seq, now)
                id_rows += (seq, name, id_, now)
            message = Message(
                name, seq, id_, now, draft.data, draft.packed, draft.event, draft.key, draft.skip, draft.trace
            )
            size = message.size
            channel.last = seq
            channel.newest = now
            channel.count += 1
            channel.size += size
            region.size += size
            used[name] = channel
            rows += (
                seq, channel.id, now, size, draft.packed, id_, draft.event, draft.key, draft.skip, draft.data,
                draft.trace,
            )  # fmt: skip
            messages.append(message)
            outcomes.append(Appended(Position(epoch, seq)))
        if messages:
            self._write(now, rows, id_rows, used)
        return outcomes, messages

    def _touch(self, names: Touched, used: dict[str, _Channel]) -> None:
        for name in names:
            channel = self._channels.get(name)
            if channel is not None:
                channel.region.channels.move_to_end(name)
                used[name] = channel

    def _write(self, now: int, rows: list[Any], id_rows: list[Any], used: dict[str, _Channel]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        self._insert("INSERT INTO messages VALUES ", rows, _MESSAGE_COLUMNS)
        self._insert("INSERT INTO ids VALUES ", id_rows, _ID_COLUMNS)
        self._ids.forget(now)
        if self._ids.forgotten > self._forgotten:
            self._forgotten = self._ids.forgotten
            execute("DELETE FROM ids WHERE seq <= ?", (self._forgotten,))
        dropped = self._trim(now, used, len(rows) // _MESSAGE_COLUMNS)
        if dropped:
            doomed = to_json([channel.id for channel in dropped])
            execute("DELETE FROM messages WHERE channel IN (SELECT value FROM json_each(?))", (doomed,))
            execute("DELETE FROM channels WHERE id IN (SELECT value FROM json_each(?))", (doomed,))
            for region in {channel.region.settings.name: channel.region for channel in dropped}.values():
                execute("UPDATE namespaces SET floor = ? WHERE name = ?", (region.floor, region.settings.name))
        kept = [column for channel in used.values() if channel.name in self._channels for column in channel.row()]
        self._insert("INSERT INTO channels VALUES ", kept, _CHANNEL_COLUMNS, _UPSERT)
        execute("COMMIT")

    def _insert(self, verb: str, flat: list[Any], columns: int, tail: str = "") -> None:
        """Insert rows given one behind the other, by statements of 256, 128, 64 … rows: few texts, few steps."""
        row = "(" + ",".join("?" * columns) + ")"
        start, left = 0, len(flat) // columns
        while left:
            count = min(1 << (left.bit_length() - 1), self._rows_at_once)
            self._connection.execute(
                verb + ",".join([row] * count) + tail, flat[start * columns : (start + count) * columns]
            )
            start += count
            left -= count

    def _trim(self, now: int, used: dict[str, _Channel], appended: int) -> list[_Channel]:
        """Bring the channels used, and their namespaces, back within their bounds; return the channels dropped.

        Adds to `used` the channels that were changed besides.
        """
        dropped: list[_Channel] = []
        for region in {channel.region.settings.name: channel.region for channel in used.values()}.values():
            # The channels at the front were not used for longest: looking at as many as were appended empties idle
            # channels in time, without a timer and without a walk over all of them.
            for _ in range(appended):
                idle = next(iter(region.channels.values()))
                if idle.newest >= now - region.age_ms:
                    used.setdefault(idle.name, idle)
                    break
                dropped.append(self._drop(idle))
                if not region.channels:
                    break
        self._cut(now, [channel for channel in used.values() if channel.name in self._channels])
        for region in {channel.region.settings.name: channel.region for channel in used.values()}.values():
            bound = region.settings.history_bytes
            while region.size > bound and len(region.channels) > 1:
                dropped.append(self._drop(next(iter(region.channels.values()))))
            last = next(iter(region.channels.values()))
            while region.size > bound and last.count > 1 and self._cut(now, [last], bound):
                used[last.name] = last
        return dropped

    def _drop(self, channel: _Channel) -> _Channel:
        region = channel.region
        del region.channels[channel.name]
        del self._channels[channel.name]
        region.size -= channel.weight
        region.floor = max(region.floor, channel.last, channel.floor)
        return channel

    def _cut(self, now: int, channels: Sequence[_Channel], max_bytes: int | None = None) -> bool:
        """Delete the oldest messages of channels that have too many, too old ones or too much; say whether any."""
        by_depth: dict[int, list[_Channel]] = {}
        for channel in channels:
            over = channel.count - channel.region.settings.history_messages
            if over <= 0 and channel.count and channel.oldest < now - channel.region.age_ms:
                over = 64
            if max_bytes is not None:
                over = 256
            if over > 0:
                by_depth.setdefault(min(1 << over.bit_length(), _TRIMMED_AT_ONCE), []).append(channel)
        cuts: list[tuple[int, int]] = []
        for depth, group in by_depth.items():
            wanted = to_json([channel.id for channel in group])
            (found,) = self._connection.execute(_OLDEST, (wanted, depth)).fetchone()
            for channel, places in zip(group, _places.decode(found), strict=True):
                cuts += _cut_one(channel, places, now - channel.region.age_ms, max_bytes)
        if cuts:
            self._connection.execute(_DELETE_UP_TO, (to_json(cuts),))
        return bool(cuts)


def _cut_one(
    channel: _Channel, places: Sequence[Place], oldest: int, max_bytes: int | None
) -> Iterator[tuple[int, int]]:
    """Take the channel's oldest messages off its account; yield its id and the newest ``seq`` to delete, if any."""
    region = channel.region
    most = region.settings.history_messages
    floor = 0
    for place in places:
        too_heavy = max_bytes is not None and region.size > max_bytes and channel.count > 1
        if not (channel.count > most or place.time < oldest or too_heavy):
            channel.oldest = place.time
            break
        floor = channel.floor = place.seq
        channel.count -= 1
        channel.size -= place.size
        region.size -= place.size
    if floor:
        yield channel.id, floor


def to_json(value: object) -> str:
    """Write a list as SQLite's JSON functions take it."""
    return msgspec.json.encode(value).decode()
