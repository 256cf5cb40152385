"""Runs against plain lists."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellwire.runs import Run, merge, take_bite


class Thing(NamedTuple):
    seq: int
    size: int


things = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 50)), unique_by=lambda pair: pair[0]).map(
    lambda pairs: [Thing(*pair) for pair in sorted(pairs)]
)
limits = st.integers(0, 200)
counts = st.none() | st.integers(1, 20)


def expected_bite(items: list[Thing], limit_bytes: int, limit: int | None) -> list[Thing]:
    bite: list[Thing] = []
    for item in items:
        too_large = sum(each.size for each in bite) + item.size > limit_bytes
        if bite and (too_large or (limit is not None and len(bite) >= limit)):
            break
        bite.append(item)
    return bite


@given(things, st.integers(0, 200), st.integers(0, 210), limits, counts)
def test_run_reads_as_a_list_does(
    items: list[Thing], dropped: int, after: int, limit_bytes: int, limit: int | None
) -> None:
    run: Run[Thing] = Run()
    for item in items:
        run.append(item)
    dropped = min(dropped, len(items))
    assert [run.drop_first() for _ in range(dropped)] == items[:dropped]
    kept = items[dropped:]
    assert len(run) == len(kept)
    assert run.floor == (items[dropped - 1].seq if dropped else 0)
    if kept:
        assert run.first == kept[0]
    else:
        with pytest.raises(IndexError):
            _ = run.first
    again = max(0, dropped - 2)
    run.prepend(items[again:dropped], items[again - 1].seq if again else 0)
    kept = items[again:]
    assert len(run) == len(kept)
    newer = [item for item in kept if item.seq > after]
    bite, more = run.after(after, limit_bytes, limit)
    assert bite == expected_bite(newer, limit_bytes, limit)
    assert more == (len(bite) < len(newer))
    count = limit or 7
    assert run.before(None, count) == kept[-count:]
    assert run.before(after, count) == [item for item in kept if item.seq < after][-count:]


def test_long_run_keeps_no_dropped_items() -> None:
    run: Run[Thing] = Run()
    for seq in range(1, 10_001):
        run.append(Thing(seq, 1))
        if seq > 10:
            run.drop_first()
    assert len(run) == 10
    assert len(run._items) < 200
    assert [item.seq for item in run.after(0, 1_000)[0]] == list(range(9_991, 10_001))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), max_size=40), limits, counts, st.integers(0, 40))
def test_merged_bites_lead_through_everything_in_order(
    owners: list[tuple[int, int]], limit_bytes: int, limit: int | None, after: int
) -> None:
    runs: list[Run[Thing]] = [Run() for _ in range(4)]
    everything = [Thing(seq, size) for seq, (_, size) in enumerate(owners, 1)]
    for (owner, _), item in zip(owners, everything, strict=True):
        runs[owner].append(item)
    wanted = [item for item in everything if item.seq > after]
    seen: list[Thing] = []
    more = True
    while more:
        merged, more = merge([run.after(after, limit_bytes, limit) for run in runs])
        assert merged or not more, "a bite that leaves more has brought something"
        seen += merged
        after = merged[-1].seq if merged else after
    assert seen == wanted


def test_bite_has_at_least_one() -> None:
    items = [Thing(1, 100), Thing(2, 100)]
    assert take_bite(items, 0, 0) == (items[:1], True)
    assert take_bite(items, 1, 0) == (items[1:], False)
    assert take_bite(items, 2, 0) == ([], False)
