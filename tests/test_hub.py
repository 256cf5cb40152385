"""Coming, going and the flush; what happens while somebody waits."""

from __future__ import annotations

import asyncio

import pytest

from tellwire.errors import CloseCode, Unavailable
from tellwire.hub import DEAD_AFTER_BEATS, WHEEL_SLOTS
from tellwire.message import Position
from tellwire.testing.doors import ask, begin, event_door, line_door, settle, slot_talk, socket_talk
from tellwire.testing.harness import on_loop
from tests.nodes import bench, data_of


@on_loop
async def test_flush_gives_one_batch_to_all_of_a_turn() -> None:
    async with bench() as node:
        doors = [line_door(node) for _ in range(3)]
        for door in doors:
            await begin(node, door, ["a", "b"])
        await node.say("a", 1)
        await node.say("b", 2)
        await node.say("a", 3)
        assert all(door.is_empty() for door in doors)
        await settle()
        assert [data_of(door.drain()) for door in doors] == [[1, 2, 3]] * 3


@on_loop
async def test_flush_merges_channels_and_ephemeral_messages_in_the_order_of_publishing() -> None:
    async with bench() as node:
        doors = {channels: line_door(node) for channels in ("abc", "a", "ab", "c", "bc", "d")}
        for channels, door in doors.items():
            await begin(node, door, list(channels))
        said = ["abc"[number * number % 5 % 3] for number in range(12)]
        for number, channel in enumerate(said):
            await node.say(channel, number, ephemeral=number % 4 == 0)
        await settle()
        for channels, door in doors.items():
            assert data_of(door.drain()) == [number for number, channel in enumerate(said) if channel in channels]


@on_loop
async def test_flush_leaves_out_the_session_that_asked_for_it() -> None:
    async with bench() as node:
        mine, other = line_door(node, session="mine"), line_door(node, session="other")
        for door in (mine, other):
            await begin(node, door, ["a"])
        await node.say("a", 1, "mine", echo=False)
        await node.say("a", 2, "mine")
        await settle()
        assert data_of(mine.drain()) == [2]
        assert data_of(other.drain()) == [1, 2]


@on_loop
async def test_reader_that_leaves_in_the_flush_harms_nobody() -> None:
    async with bench() as node:
        poll = await ask(node, ["cut:a"])
        slow, fine = line_door(node, capacity=10), line_door(node)
        for door in (slow, fine):
            await begin(node, door, ["cut:a", "a"])
        await node.say("cut:a", 1)
        await settle()
        await node.say("a", 2)
        await node.say("cut:a", 3)
        await settle()
        assert data_of(poll.page["messages"]) == [1]
        assert slow.closed_with is CloseCode.SLOW
        assert data_of(fine.drain()) == [1, 2, 3]
        assert node.hub.subscribers == {fine.subscriber}


@on_loop
async def test_everything_is_given_back_when_all_have_gone() -> None:
    async with bench() as node:
        doors = [line_door(node), event_door(node, capacity=10)]
        for door in doors:
            await begin(node, door, ["a", "b"], "earliest")
        talk = socket_talk(node)
        talk.say(type="subscribe", channel="a")
        poll = await ask(node, ["a", "c"])
        await node.say("a", 1)
        await settle()
        assert poll.page is not None
        for each in (*doors, talk.door):
            each.cut()
            each.cut()
        assert not node.hub.subscribers
        assert not len(node.hub.tails)
        assert not +node.broker.followed
        assert not len(node.tasks)


@on_loop
async def test_place_gives_back_what_it_held_when_the_log_fails() -> None:
    async with bench() as node:
        await node.say("a", 1)
        node.broker.fail_reads = 1
        with pytest.raises(Unavailable):
            await ask(node, ["a", "b"], "earliest")
        assert not len(node.hub.tails)
        assert not +node.broker.followed


@on_loop
async def test_two_who_follow_a_channel_at_once_follow_it_once() -> None:
    async with bench() as node:
        node.broker.hold_reads()
        doors = [line_door(node), line_door(node)]
        tasks = [asyncio.create_task(begin(node, door, ["a"])) for door in doors]
        await settle()
        node.broker.release_reads()
        await asyncio.gather(*tasks)
        assert node.broker.followed["a"] == 1
        assert [tail.readers for tail in node.hub.tails] == [2]


@on_loop
async def test_reader_that_goes_while_its_place_is_sought_is_let_go() -> None:
    async with bench() as node:
        await node.say("a", 1)
        node.broker.hold_reads()
        talk = socket_talk(node)
        talk.say(type="subscribe", channel="a", since="earliest")
        await settle()
        talk.door.cut()
        node.broker.release_reads()
        await settle()
        assert not len(node.hub.tails)
        assert not +node.broker.followed


@on_loop
async def test_log_that_is_lost_while_a_place_is_sought_is_read_anew() -> None:
    async with bench() as node:
        await node.say_all("a", *range(5))
        old = node.broker.head.epoch
        node.broker.hold_reads()
        door = line_door(node)
        task = asyncio.create_task(begin(node, door, ["a"], f"{old}.2"))
        await settle()
        node.broker.release_read()  # it follows the channel by now, and reads
        await settle()
        node.broker.lose_log()
        node.broker.release_reads()
        await node.say("a", "new")
        await task
        await settle()
        gap, message = door.drain()
        assert (gap["from"], gap["reason"]) == (f"{old}.2", "epoch")
        assert (message["seq"], message["data"]) == (1, "new")


@on_loop
async def test_log_that_is_lost_between_place_and_join_is_told() -> None:
    async with bench() as node:
        await node.say_all("a", *range(5))
        old = node.broker.head
        door = line_door(node)
        placement = await node.reading.place(node.reading.wanted(["a"], None), str(old), None, "oldest")
        node.broker.lose_log()
        await node.say("a", "new")
        node.hub.join(door.subscriber, placement)
        await settle()
        gap, message = door.drain()
        assert (gap["from"], gap["reason"], gap["channels"]) == (str(old), "epoch", ["a"])
        assert message["data"] == "new"


@on_loop
async def test_lost_log_is_told_to_every_kind_of_reader() -> None:
    async with bench() as node:
        doors = [line_door(node), event_door(node)]
        for door in doors:
            await begin(node, door, ["a"])
        talk = socket_talk(node)
        talk.say(type="subscribe", channel="a")
        poll = await ask(node, ["a"])
        node.broker.lose_log()
        await node.say("a", 1)
        await settle()
        epoch = node.hub.epoch
        assert poll.page["gap"]["reason"] == "epoch"
        assert data_of(poll.page["messages"]) == [1]
        assert poll.page["cursor"] == f"{epoch}.1"
        assert [data_of(door.drain()) for door in (*doors, talk.door)] == [
            ["epoch", 1],
            ["epoch", 1],
            ["subscribed", "epoch", 1],
        ]


@on_loop
async def test_gap_of_a_lost_log_does_not_hide_one_of_the_new() -> None:
    async with bench() as node:
        door = line_door(node, capacity=300)
        await begin(node, door, ["short:a"])
        await node.say_all("short:a", *("x" * 300 for _ in range(50)))
        await settle()
        while not door.is_empty():
            door.drain()
        node.broker.lose_log()
        await node.say("short:a", "x" * 300)
        await settle()
        await node.say_all("short:a", *range(20))
        await settle()
        seen = []
        while not door.is_empty():
            seen += door.drain()
        assert data_of(seen) == ["epoch", "x" * 300, "slow", 17, 18, 19]


@on_loop
async def test_newest_after_a_gap_names_every_channel_that_is_skipped() -> None:
    async with bench() as node:
        await node.say_all("short:a", *range(10))
        await node.say("b", "skipped")
        head = str(node.broker.head)
        door = line_door(node)
        await begin(node, door, ["short:a", "b"], 1, on_gap="newest")
        (gap,) = door.drain()
        assert set(gap["channels"]) == {"short:a", "b"}
        assert gap["to"] == head
        slice_ = await node.reading.read(["short:a", "b"], 1, limit=10, on_gap="newest")
        assert slice_.gap is not None
        assert set(slice_.gap.channels) == {"short:a", "b"}


@on_loop
async def test_heartbeats_move_the_cursor_of_a_quiet_reader() -> None:
    async with bench() as node:
        door = line_door(node)
        talk = slot_talk(node)
        talk.say(type="subscribe", channel="quiet")
        await begin(node, door, ["quiet"])
        talk.door.drain()
        await node.say_all("busy", 1, 2, 3)
        for _ in range(WHEEL_SLOTS):
            node.hub.tick()
        (beat,) = talk.door.drain()
        assert (beat["type"], beat["cursor"]) == ("heartbeat", str(node.broker.head))


@on_loop
async def test_poll_that_ends_empty_has_the_newest_cursor() -> None:
    async with bench() as node:
        poll = await ask(node, ["quiet"])
        await node.say_all("busy", 1, 2, 3)
        poll.give_up()
        assert poll.page == {"messages": [], "cursor": str(node.broker.head), "gap": None}


@on_loop
async def test_socket_that_takes_nothing_is_cut() -> None:
    async with bench() as node:
        door, fine = line_door(node, capacity=10), line_door(node)
        for each in (door, fine):
            await begin(node, each, ["a"])
        await node.say("a", 1)
        await settle()
        for _ in range((DEAD_AFTER_BEATS + 1) * WHEEL_SLOTS):
            node.hub.tick()
        assert door.closed_with is CloseCode.DEAD
        assert node.hub.subscribers == {fine.subscriber}


@on_loop
async def test_cursor_of_several_shards_is_of_another_log() -> None:
    async with bench() as node:
        await node.say("a", 1)
        head = node.broker.head
        poll = await ask(node, ["a"], f"{head},{head}")
        assert poll.page["gap"]["reason"] == "epoch"
        assert Position.parse(poll.page["cursor"]).epoch == head.epoch


@on_loop
async def test_clients_that_come_back_read_the_log_once_for_all() -> None:
    async with bench() as node:
        positions = await node.say_all("a", *range(10))
        await node.say("b", "other")
        doors = [line_door(node) for _ in range(3)]
        for door in doors:
            await begin(node, door, ["a"], positions[3])
            node.broker.fail_reads = 1000
        await node.say("a", "live")
        await settle()
        for door in doors:
            assert data_of(door.drain()) == [*range(4, 10), "live"]
        batch = doors[0].subscriber.encoding
        entries, _ = node.hub.tails.get("a").run.after(0, 1 << 20)  # type: ignore[union-attr]
        assert all(entry.has_frame(batch) for entry in entries)


@on_loop
async def test_tail_goes_back_only_as_far_as_was_read() -> None:
    async with bench() as node:
        positions = await node.say_all("a", *range(10))
        await node.say("b", "other")
        first, second, third = line_door(node), line_door(node), line_door(node)
        await begin(node, first, ["a", "b"], positions[6])
        await begin(node, second, ["a"], positions[2])
        await begin(node, third, ["a"], positions[4])
        assert data_of(first.drain()) == [7, 8, 9, "other"]
        assert data_of(second.drain()) == list(range(3, 10))
        assert data_of(third.drain()) == list(range(5, 10))
        node.broker.fail_reads = 1
        with pytest.raises(Unavailable):
            await ask(node, ["a"], positions[1])


@on_loop
async def test_history_that_was_trimmed_is_not_taken_for_whole() -> None:
    async with bench() as node:
        positions = await node.say_all("short:a", *range(10))
        for _ in range(2):
            door = line_door(node)
            await begin(node, door, ["short:a"], positions[2])
            assert data_of(door.drain()) == ["trimmed", 7, 8, 9]
