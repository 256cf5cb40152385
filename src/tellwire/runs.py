"""Runs of things in ``seq`` order: kept, cut at the front, searched, merged and taken in bites.

A broker's channel and a node's tail are both such a run.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

_seq = attrgetter("seq")

_COMPACT_AT = 64
"""Dropped places at the front of a run before its list is cut."""


class Placed(Protocol):
    """What has a place in a log, and counts for some bytes."""

    @property
    def seq(self) -> int: ...

    @property
    def size(self) -> int: ...


P = TypeVar("P", bound=Placed)


class Run(Generic[P]):
    """A list in ``seq`` order that grows at its end and is dropped from its front, each in constant time.

    ``floor`` is the place up to which something was dropped: the run is complete after it.
    """

    __slots__ = ("_items", "_start", "floor")

    def __init__(self, floor: int = 0) -> None:
        self._items: list[P | None] = []
        self._start = 0
        self.floor = floor

    def __len__(self) -> int:
        return len(self._items) - self._start

    def append(self, item: P) -> None:
        """Put `item`, whose ``seq`` is larger than every other, at the end."""
        self._items.append(item)

    def prepend(self, items: Sequence[P], floor: int) -> None:
        """Put `items`, which are all that there is between `floor` and the present one, at the front."""
        self._items[: self._start] = items
        self._start = 0
        self.floor = floor

    @property
    def first(self) -> P:
        """The oldest item; raises IndexError where there is none."""
        item = self._items[self._start]
        assert item is not None
        return item

    def drop_first(self) -> P:
        """Drop the oldest item and return it; the floor rises to it."""
        items, start = self._items, self._start
        item = items[start]
        assert item is not None
        items[start] = None
        self._start = start = start + 1
        if start >= _COMPACT_AT and start * 2 >= len(items):
            del items[:start]
            self._start = 0
        self.floor = item.seq
        return item

    def after(self, seq: int, limit_bytes: int, limit: int | None = None) -> tuple[list[P], bool]:
        """Take what comes after `seq`, up to about the limits but at least one; say whether more is left."""
        return take_bite(self._items, bisect_right(self._items, seq, lo=self._start, key=_seq), limit_bytes, limit)

    def behind(self, seq: int) -> tuple[int, P | None]:
        """Count what comes after `seq`, and return the first of it."""
        place = bisect_right(self._items, seq, lo=self._start, key=_seq)
        return len(self._items) - place, self._items[place] if place < len(self._items) else None

    def newest(self, is_old: Callable[[P], bool]) -> tuple[int, P | None]:
        """Count the items at the end that are not old, and return the first of them; the old ones come first."""
        place = bisect_left(self._items, True, lo=self._start, key=lambda item: not is_old(item))  # type: ignore[arg-type]
        return len(self._items) - place, self._items[place] if place < len(self._items) else None

    def before(self, seq: int | None, limit: int) -> list[P]:
        """Take the newest `limit` items before `seq` (None: of all), oldest first."""
        end = len(self._items) if seq is None else bisect_left(self._items, seq, lo=self._start, key=_seq)
        return self._items[max(self._start, end - limit) : end]  # type: ignore[return-value]  # None is before start


def take_bite(
    items: Sequence[P | None], first: int, limit_bytes: int, limit: int | None = None
) -> tuple[list[P], bool]:
    """Take items from place `first` on, up to about the limits but at least one; say whether more is left."""
    bite: list[P] = []
    total = 0
    for place in range(first, len(items)):
        item = items[place]
        assert item is not None
        total += item.size
        if bite and (total > limit_bytes or (limit is not None and len(bite) >= limit)):
            return bite, True
        bite.append(item)
    return bite, False


def merge(runs: Sequence[tuple[list[P], bool]]) -> tuple[list[P], bool]:
    """Merge bites into one in ``seq`` order; past the end of a bite that left more (True) nothing is taken.

    Returns the merged bite, and whether it leaves more itself.
    """
    if len(runs) == 1:
        return runs[0]
    ceiling = min((run[-1].seq for run, more in runs if more), default=None)
    merged = sorted((item for run, _ in runs for item in run), key=_seq)
    if ceiling is not None:
        while merged[-1].seq > ceiling:
            merged.pop()
    return merged, ceiling is not None
