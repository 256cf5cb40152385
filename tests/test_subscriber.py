"""Catching up, joining, lagging: a reader is a cursor."""

from __future__ import annotations

import sys

import pytest

from tellwire.errors import CloseCode
from tellwire.testing.doors import begin, line_door, line_slot, settle, socket_talk
from tellwire.testing.harness import on_loop
from tests.nodes import Bench, bench, data_of


@on_loop
async def test_slow_reader_costs_one_bite_and_then_gets_everything() -> None:
    async with bench() as node:
        door = line_door(node, capacity=2_000)
        await begin(node, door, ["a"])
        for start in range(0, 500, 10):
            await node.say_all("a", *range(start, start + 10))
            await settle()
            assert door.waiting_bytes < 5_000
        seen = []
        while not door.is_empty():
            seen += door.drain(777)
        assert data_of(seen) == list(range(500))
        assert door.subscriber.live


@on_loop
async def test_slow_reader_that_fell_off_the_history_is_told_once() -> None:
    async with bench() as node:
        door = line_slot(node)
        await begin(node, door, ["short:a", "b"])
        first = (await node.say_all("short:a", 0))[0]
        await settle()
        await node.say_all("short:a", *range(1, 200))
        await node.say_all("b", *"xyz")
        await settle()
        assert data_of(door.drain()) == [0]
        seen = []
        while not door.is_empty():
            seen += door.drain()
        assert data_of(seen) == ["slow", 197, 198, 199, *"xyz"]
        assert (seen[0]["from"], seen[0]["channels"]) == (first, ["short:a"])


@on_loop
async def test_newest_after_a_gap_leaves_channels_without_one_alone() -> None:
    async with bench() as node:
        talk = socket_talk(node, capacity=500)
        talk.say(type="subscribe", channel="short:a", on_gap="newest")
        talk.say(type="subscribe", channel="b")
        assert data_of(talk.door.drain()) == ["subscribed"] * 2
        for number in range(30):
            await node.say("short:a", f"{number:0200}")
            await node.say("b", number)
            await settle()
        seen = []
        while not talk.door.is_empty():
            seen += talk.door.drain()
        (gap,) = (push for push in seen if push["type"] == "gap")
        assert gap["channels"] == ["short:a"]
        assert [push["data"] for push in seen if push.get("channel") == "b"] == list(range(30))
        assert set(talk.door.subscriber.channels) == {"short:a", "b"}
        assert not talk.door.subscriber.joining


@on_loop
async def test_reader_catches_up_over_more_bites_than_calls_can_nest() -> None:
    async with bench(read_bite_bytes=1, tail_max_bytes=0) as node:
        count = sys.getrecursionlimit()
        for number in range(count):
            await node.say("a", number, "mine", echo=False)
        await node.say("a", "end")
        door = line_door(node, session="mine")
        # The newest of a history that is longer than its channel keeps: no gap is asked for.
        await begin(node, door, ["a"], "earliest")
        await settle()
        assert door.subscriber in node.hub.subscribers
        assert data_of(door.drain()) == ["end"]


@on_loop
async def test_channel_that_is_read_anew_gets_nothing_of_an_earlier_read() -> None:
    async with bench() as node:
        await node.say_all("a", *range(50))
        talk = socket_talk(node, capacity=100)
        talk.say(type="subscribe", channel="a", since="earliest")
        node.broker.hold_reads()
        talk.door.drain()
        while not node.broker.held_reads:
            talk.door.drain()
            await settle()
        talk.say(type="unsubscribe", channel="a")
        talk.say(type="subscribe", channel="a", since="now")
        await settle()
        node.broker.release_reads()
        await settle()
        await node.say("a", "new")
        await settle()
        seen = []
        while not talk.door.is_empty():
            seen += talk.door.drain()
        kinds = data_of(seen)
        assert kinds[kinds.index("unsubscribed") :] == ["unsubscribed", "subscribed", "new"]


@on_loop
async def test_channel_that_is_added_catches_up_while_the_others_go_on() -> None:
    async with bench() as node:
        await node.say_all("old", *range(40))
        talk = socket_talk(node)
        talk.say(type="subscribe", channel="a")
        node.broker.hold_reads()
        talk.say(type="subscribe", channel="old", since="earliest")
        await settle()
        await node.say("a", "live")
        await settle()
        assert data_of(talk.door.drain()) == ["subscribed", "live"]
        node.broker.release_reads()
        await settle()
        assert data_of(talk.door.drain()) == ["subscribed", *range(40)]
        await node.say("old", "o")
        await node.say("a", "a")
        await settle()
        assert data_of(talk.door.drain()) == ["o", "a"]


@on_loop
async def test_cursor_claims_no_more_than_every_channel_has() -> None:
    async with bench() as node:
        positions = await node.say_all("old", *range(40))
        talk = socket_talk(node, capacity=200)
        talk.say(type="subscribe", channel="a")
        talk.say(type="subscribe", channel="old", since=positions[4])
        subscriber = talk.door.subscriber
        had = 4
        while not talk.door.is_empty():
            for push in talk.door.drain(50):
                had = push.get("data", had)
        assert had == 39
        assert str(subscriber.cursor) == positions[-1]
        node.broker.hold_reads()
        talk.say(type="unsubscribe", channel="old")
        talk.say(type="subscribe", channel="old", since=positions[4])
        await settle()
        node.broker.release_read()  # it is followed
        await node.say("a", 1)
        await settle()
        node.broker.release_reads()
        await settle()
        assert subscriber.cursor.seq < 41
        while not talk.door.is_empty():
            talk.door.drain()
        assert subscriber.cursor.seq == 41


@on_loop
async def test_latest_gives_the_newest_of_each_key_and_a_live_reader_all() -> None:
    async with bench() as node:
        fast, slow = line_door(node), line_slot(node)
        for door in (fast, slow):
            await begin(node, door, ["newest:a", "b"])
        await node.say("b", "first")
        await settle()
        for number in range(9):
            await node.say("newest:a", number, key=f"k{number % 2}")
        await node.say("newest:a", "no key")
        await node.say("b", "kept")
        await node.say("b", "kept too")
        await settle()
        assert data_of(slow.drain()) == ["first"]
        assert data_of(slow.drain()) == [7, 8, "no key", "kept", "kept too"]
        assert data_of(fast.drain()) == ["first", *range(9), "no key", "kept", "kept too"]


@on_loop
@pytest.mark.parametrize("tail_max_bytes", [0, 100_000])
async def test_latest_of_a_key_is_the_newest_that_this_session_gets(tail_max_bytes: int) -> None:
    async with bench(tail_max_bytes=tail_max_bytes) as node:
        door = line_slot(node, session="mine")
        await begin(node, door, ["newest:a"])
        await node.say("newest:a", "busy")
        await settle()
        await node.say("newest:a", 1, key="k")
        await node.say("newest:a", 2, "mine", key="k", echo=False)
        await settle()
        assert data_of(door.drain()) == ["busy"]
        assert data_of(door.drain()) == [1]


@on_loop
async def test_disconnect_closes_a_reader_as_soon_as_it_lags() -> None:
    async with bench() as node:
        door = line_slot(node)
        await begin(node, door, ["a"], policy="disconnect")
        await node.say("a", 1)
        await settle()
        assert door.subscriber in node.hub.subscribers
        await node.say("b", 2)
        await settle()
        assert door.subscriber in node.hub.subscribers
        await node.say("a", 3)
        await settle()
        assert door.closed_with is CloseCode.SLOW
        message, closing = door.drain()
        assert (message["data"], closing["type"], closing["code"]) == (1, "closing", 4001)


async def _fail_a_read(node: Bench) -> CloseCode | None:
    door = line_slot(node)
    await begin(node, door, ["a"])
    await node.say("a", 0)
    await settle()
    await node.say_all("a", *("x" * 300 for _ in range(30)))
    await settle()
    node.broker.fail_reads = 1
    door.drain()
    await settle()
    return door.closed_with


@on_loop
async def test_reader_whose_log_fails_is_told_to_come_back() -> None:
    async with bench() as node:
        assert await _fail_a_read(node) is CloseCode.TRY_AGAIN_LATER
        assert not len(node.hub.tails)
