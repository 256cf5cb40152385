"""Where a reader is, and what is news to it (spec, sections 2 and 5)."""

from __future__ import annotations

from collections.abc import Iterable

from tellwire.errors import InvalidCursor
from tellwire.message import Cursor, Gap, Position


def split(cursor: str) -> Position | None:
    """Return the one position of a cursor; None where it has several shards, or is none."""
    try:
        return None if "," in cursor else Position.parse(cursor)
    except InvalidCursor:
        return None


class Place:
    """The place of one reader of one channel: what it has had, and where it goes on.

    Several connections may feed it at once, while one takes over from another. Each of them is without a hole from a
    place that the reader had reached, so whatever is not beyond the floor has been had.
    """

    def __init__(self) -> None:
        self.cursor: str | None = None
        """To go on from, over whatever transport; None before a server told."""
        self._epoch = ""
        self._seq = -1
        self._floor = 0
        self._told = 0

    def at(self, cursor: str) -> None:
        """Everything up to `cursor` was had."""
        place = split(cursor)
        if place is None:
            self.cursor = cursor
        elif not self._epoch or place.epoch == self._epoch:
            # Another epoch is for a gap to tell; here it is an old connection's last word.
            self._epoch = place.epoch
            if place.seq > self._seq:
                self.cursor, self._seq = cursor, place.seq
            self._floor = max(self._floor, place.seq)

    def take(self, epoch: str, seq: int) -> bool:
        """Tell whether a message is news; then it is had from now on."""
        if not self._epoch:
            self._epoch = epoch
        if epoch != self._epoch or seq <= self._floor:
            return False
        self._floor = seq
        if seq > self._seq and not (self.cursor and "," in self.cursor):
            self.cursor, self._seq = f"{epoch}.{seq}", seq
        return True

    def gap(self, gap: Gap) -> bool:
        """Tell whether a gap is news for this reader."""
        to = split(gap.to) or Position("", 0)
        came_from = split(gap.from_)
        if gap.reason == "epoch":
            # A second connection may tell of the same loss.
            if to.epoch == self._epoch and (came_from is None or came_from.epoch != to.epoch):
                return False
            self.cursor, self._epoch, self._seq = gap.to, to.epoch, to.seq
            # Messages before `to` may still come, where another channel's history is shorter.
            self._floor = self._told = 0
            return True
        # A request for many channels asks from the place of the one that is furthest behind.
        if to.epoch == self._epoch and (to.seq <= self._floor or to.seq <= self._told):
            return False
        self._told = to.seq
        return True


def lowest(cursors: Iterable[str | None]) -> str | None:
    """Return where one request for many places has to begin; None where that cannot be told."""
    low: list[Position] | None = None
    for cursor in set(cursors):
        if cursor is None:
            return None
        parts = Cursor.parse(cursor).parts
        if low is None:
            low = list(parts)
            continue
        if [part.epoch for part in parts] != [part.epoch for part in low]:
            return None
        low = [min(mine, other, key=lambda part: part.seq) for mine, other in zip(low, parts, strict=True)]
    return None if low is None else str(Cursor(tuple(low)))
