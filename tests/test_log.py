"""Tails: what a node keeps of the channels that are read on it, bounded together."""

from __future__ import annotations

from tellwire.log import Entry, Tail, Tails
from tellwire.message import Message
from tellwire.protocol.encodings import OBJECTS, lines

LINES = lines(chunked=False)


def entry(seq: int, channel: str = "a", size: int = 10) -> Entry:
    return Entry(Message(channel, seq, f"id{seq}", 0, b"7" * size), "k", seq)


def fill(tails: Tails, tail: Tail, *entries: Entry) -> None:
    for each in entries:
        if each.seq:
            tail.run.append(each)
    tails.keep(tail, entries)


def seqs(tail: Tail) -> list[int]:
    return [each.seq for each in tail.run.after(tail.run.floor, 1 << 30)[0]]


def test_frame_is_made_once() -> None:
    one = entry(1)
    assert not one.has_frame(LINES)
    assert one.frame(LINES) is one.frame(LINES)
    assert one.has_frame(LINES)
    assert one.frame(OBJECTS) + b"\n" == one.frame(LINES)


def test_new_tail_is_complete_after_the_head() -> None:
    tails = Tails(1 << 20)
    tail = tails.open("a", 7)
    assert tail.run.floor == 7
    assert tails.open("a", 9) is tail
    assert tails.get("a") is tail
    assert tails.get("b") is None


def test_oldest_of_all_tails_go_first() -> None:
    weight = entry(1).weight
    tails = Tails(3 * weight)
    a, b = tails.open("a", 0), tails.open("b", 0)
    fill(tails, a, entry(1), entry(2))
    fill(tails, b, entry(3, "b"))
    assert (seqs(a), seqs(b)) == ([1, 2], [3])
    fill(tails, b, entry(4, "b"))
    assert (seqs(a), a.run.floor) == ([2], 1)
    fill(tails, b, entry(5, "b"), entry(6, "b"))
    assert (seqs(a), seqs(b)) == ([], [4, 5, 6])
    assert tails.size == 3 * weight


def test_frames_count_whenever_they_are_made() -> None:
    tails = Tails(1 << 20)
    tail = tails.open("a", 0)
    early, late = entry(1), entry(2)
    early.frame(LINES)
    fill(tails, tail, early, late)
    assert tails.size == early.weight + late.weight
    tails.frames([early, late], LINES)
    tails.frames([early, late], OBJECTS)
    assert tails.size == early.weight + late.weight


def test_frames_that_are_made_later_are_bounded_too() -> None:
    tails = Tails(4 * entry(1).weight)
    tail = tails.open("a", 0)
    entries = [entry(seq, size=100) for seq in range(1, 5)]
    fill(tails, tail, *entries[:3])
    assert [len(frame) for frame in tails.frames(entries[:3], LINES)] == [len(entries[0].frame(LINES))] * 3
    assert tails.size <= 4 * entry(1).weight
    assert tail.run.floor > 0


def test_ephemeral_entries_are_not_kept() -> None:
    tails = Tails(1 << 20)
    tail = tails.open("a", 0)
    fill(tails, tail, entry(0), entry(1))
    assert tails.size == entry(1).weight


def test_entries_of_a_dropped_tail_wait_for_their_turn() -> None:
    weight = entry(1).weight
    tails = Tails(2 * weight)
    tail = tails.open("a", 0)
    fill(tails, tail, entry(1))
    tails.drop(tail)
    tails.drop(tail)
    assert len(tails) == 0
    again = tails.open("a", 1)
    fill(tails, again, entry(2), entry(3))
    assert seqs(again) == [2, 3]
    assert tails.size == 2 * weight


def test_dropping_an_old_tail_leaves_the_new_one() -> None:
    tails = Tails(1 << 20)
    old = tails.open("a", 0)
    tails.drop(old)
    new = tails.open("a", 0)
    tails.drop(old)
    assert tails.get("a") is new


def test_what_is_put_before_a_tail_is_the_first_to_go() -> None:
    weight = entry(1).weight
    tails = Tails(4 * weight)
    a, b = tails.open("a", 2), tails.open("b", 2)
    fill(tails, b, entry(3, "b"))
    fill(tails, a, entry(4))
    tails.put_before(a, [entry(1), entry(2)], 0)
    assert (seqs(a), a.run.floor, tails.size) == ([1, 2, 4], 0, 4 * weight)
    fill(tails, b, entry(5, "b"))
    assert (seqs(a), a.run.floor, seqs(b)) == ([2, 4], 1, [3, 5])
    fill(tails, b, entry(6, "b"), entry(7, "b"))
    assert (seqs(a), a.run.floor, seqs(b)) == ([4], 2, [5, 6, 7])


def test_nothing_is_put_before_a_tail_that_has_no_room_for_all_of_it() -> None:
    tails = Tails(2 * entry(1).weight)
    tail = tails.open("a", 2)
    fill(tails, tail, entry(3))
    tails.put_before(tail, [entry(1), entry(2)], 0)
    assert (seqs(tail), tail.run.floor) == ([3], 2)


def test_new_log_empties_every_tail() -> None:
    tails = Tails(1 << 20)
    tail = tails.open("a", 0)
    fill(tails, tail, entry(5))
    tails.clear(2)
    assert (tails.size, seqs(tail), tail.run.floor) == (0, [], 2)
    fill(tails, tail, entry(3))
    assert tails.size == entry(3).weight


def test_reader_leaves_a_tail_twice() -> None:
    tail = Tails(1).open("a", 0)
    reader = object()
    tail.live[LINES] = {reader}
    tail.leave(LINES, reader)
    tail.leave(LINES, reader)
    assert not tail.live
