"""The reading side of a SQLite log: pages of messages, forwards and backwards.

All of it runs on a reader's thread, in few steps of SQL for the reason told in `sqlite_log`. First the places and
sizes of messages are read, from the index alone; then just the messages that make the page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from tellwire.brokers.base import Slice
from tellwire.brokers.sqlite_log import Place, to_json
from tellwire.message import Gap, Message, Position
from tellwire.names import Namespaces
from tellwire.runs import merge, take_bite

SMALLEST_MESSAGE = 121
"""The least that a message counts for: so many fit into a bite of bytes at most."""

_FEWEST_PLACES = 32
"""Places looked up per channel at least, however many channels there are: one busy channel still pages well."""

_CHANNELS = """SELECT json_group_array(json_array(name, id, floor, last, count, oldest)) FROM channels
WHERE name IN (SELECT value FROM json_each(?))"""

_FLOORS = "SELECT json_group_array(json_array(name, floor)) FROM namespaces"

# The newest place that is too old: the one before the first that is not.
_EXPIRED = """SELECT coalesce(max(seq), 0) FROM messages WHERE channel = ?1 AND seq <= ?2 AND seq < coalesce(
(SELECT seq FROM messages WHERE channel = ?1 AND time >= ?3 ORDER BY seq LIMIT 1), ?2 + 1)"""

# Places of each channel in ?1, a list of [id, place]: those after the place, up to ?2, the oldest ?3 of each.
_AFTER = """SELECT json_group_array(json((
    SELECT json_group_array(json_array(seq, size, time)) FROM (
        SELECT seq, size, time FROM messages WHERE channel = json_extract(wanted.value, '$[0]')
        AND seq > json_extract(wanted.value, '$[1]') AND seq <= ?2 ORDER BY seq LIMIT ?3)
))) FROM json_each(?1) AS wanted"""

_BEFORE = _AFTER.replace("ORDER BY seq", "ORDER BY seq DESC")

_MESSAGES = """SELECT json_group_array(json_array(
    m.channel, m.seq, m.id, m.time, hex(m.data), m.packed, m.event, m.key, m.skip, m.trace))
FROM json_each(?) AS place CROSS JOIN messages AS m ON m.seq = place.value"""


class _Channel(msgspec.Struct, array_like=True, gc=False):
    name: str
    id: int
    floor: int
    last: int
    count: int
    oldest: int


class _Row(msgspec.Struct, array_like=True, gc=False):
    channel: int
    seq: int
    id: str
    time: int
    data: str
    packed: int
    event: str
    key: str | None
    skip: str
    trace: str


_channels = msgspec.json.Decoder(list[_Channel])
_floors = msgspec.json.Decoder(list[tuple[str, int]])
_places = msgspec.json.Decoder(list[list[Place]])
_rows = msgspec.json.Decoder(list[_Row])


class _Known(NamedTuple):
    """The channels of a read: how far each was trimmed, and which are in the file."""

    floors: dict[str, int]
    channels: list[_Channel]

    def after(self, start: int) -> list[tuple[int, int]]:
        """Pair each channel with the place after which it is read; what is too old comes before its floor."""
        return [(channel.id, max(start, self.floors[channel.name])) for channel in self.channels]


def read(
    connection: sqlite3.Connection,
    namespaces: Namespaces,
    now: int,
    head: Position,
    channels: Collection[str],
    after: Position | None,
    limit_bytes: int,
    limit: int | None,
) -> Slice:
    """Do what `Broker.read` says, up to `head` and at the time `now` (ms); raises sqlite3.Error."""
    foreign = after is not None and (after.epoch != head.epoch or after.seq > head.seq)
    start = 0 if after is None or foreign else after.seq
    with _snapshot(connection):
        known = _look_up(connection, namespaces, now, head.seq, channels)
        # No page holds more than `most`. Among many channels each gives fewer places than that; one that has more
        # to give then ends the page.
        most = limit_bytes // SMALLEST_MESSAGE + 1
        most = max(1, most if limit is None else min(most, limit))
        each = min(most, max(_FEWEST_PLACES, 2 * most // max(1, len(channels))))
        runs = [
            (run[:each], len(run) > each)
            for run in _look_for(connection, _AFTER, known.after(start), head.seq, each + 1)
            if run
        ]
        merged, more = merge(runs) if runs else ([], False)
        bite, left = take_bite(merged, 0, limit_bytes, limit)
        messages = _fetch(connection, known, bite)
    behind = tuple(name for name in channels if start < known.floors[name])
    gap = None
    if after is not None and (foreign or behind):
        to = Position(head.epoch, max((known.floors[name] for name in behind), default=0))
        gap = Gap(str(after), str(to), "epoch" if foreign else "trimmed", tuple(channels) if foreign else behind)
    return Slice(messages, Position(head.epoch, bite[-1].seq) if more or left else head, gap)


def read_back(
    connection: sqlite3.Connection,
    namespaces: Namespaces,
    now: int,
    head: Position,
    channels: Collection[str],
    before: Position | None,
    limit: int,
) -> Slice:
    """Do what `Broker.read_back` says, up to `head` and at the time `now` (ms); raises sqlite3.Error."""
    foreign = before is not None and (before.epoch != head.epoch or before.seq > head.seq + 1)
    end = head.seq if before is None or foreign else before.seq - 1
    with _snapshot(connection):
        known = _look_up(connection, namespaces, now, head.seq, channels)
        runs = _look_for(connection, _BEFORE, known.after(0), end, limit)
        newest = sorted((place for run in runs for place in run), key=lambda place: place.seq)[-limit:]
        messages = _fetch(connection, known, newest)
    gap = Gap(str(before), str(head), "epoch", tuple(channels)) if foreign else None
    return Slice(messages, head, gap)


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """See one state of the log throughout, whatever is written meanwhile."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def _look_up(
    connection: sqlite3.Connection, namespaces: Namespaces, now: int, head: int, channels: Collection[str]
) -> _Known:
    """Find the channels and how far each was trimmed, up to `head`: what came after it the feed will bring."""
    (found,) = connection.execute(_CHANNELS, (to_json(list(channels)),)).fetchone()
    known = _channels.decode(found)
    floors: dict[str, int] = {}
    for channel in known:
        floor = channel.floor
        too_old = now - int(namespaces.of(channel.name).history_age_s * 1000)
        if channel.count and channel.oldest < too_old:
            (expired,) = connection.execute(_EXPIRED, (channel.id, min(channel.last, head), too_old)).fetchone()
            floor = max(floor, expired)
        floors[channel.name] = min(floor, head)
    if len(floors) < len(channels):
        (found,) = connection.execute(_FLOORS).fetchone()
        dropped = dict(_floors.decode(found))
        for name in channels:
            if name not in floors:
                floors[name] = min(dropped[namespaces.of(name).name], head)
    return _Known(floors, known)


def _look_for(
    connection: sqlite3.Connection, query: str, wanted: Sequence[tuple[int, int]], end: int, limit: int
) -> list[list[Place]]:
    if not wanted:
        return []
    (found,) = connection.execute(query, (to_json(wanted), end, limit)).fetchone()
    return _places.decode(found)


def _fetch(connection: sqlite3.Connection, known: _Known, places: Iterable[Place]) -> list[Message]:
    """Read messages, in the order of their places."""
    wanted = to_json([place.seq for place in places])
    if wanted == "[]":
        return []
    (found,) = connection.execute(_MESSAGES, (wanted,)).fetchone()
    names = {channel.id: channel.name for channel in known.channels}
    rows = sorted(_rows.decode(found), key=lambda row: row.seq)
    return [
        Message(
            names[row.channel], row.seq, row.id, row.time, bytes.fromhex(row.data), bool(row.packed),
            row.event, row.key, row.skip, row.trace,
        )
        for row in rows
    ]  # fmt: skip
