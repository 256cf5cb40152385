"""The steward: commands, checks, polls, draining."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest

from tellwire.errors import (
    BadRequest,
    CloseCode,
    Conflict,
    Draining,
    InvalidChannel,
    InvalidCursor,
    RequestError,
    TooLarge,
    TooManyChannels,
)
from tellwire.limits import Limits
from tellwire.message import Position
from tellwire.names import Namespace, Namespaces
from tellwire.node import LAST_MAX, Node
from tellwire.node.steward import DRAIN_PACE_S, DRAIN_SLOTS
from tellwire.protocol.commands import Publish
from tellwire.protocol.encodings import lines
from tellwire.subscriber import Subscriber
from tellwire.testing.doors import ask, begin, line_door, settle, socket_talk, somebody
from tellwire.testing.faulty import FaultyBroker
from tellwire.testing.harness import on_loop
from tests.client.virtual_time import VirtualLoop, run
from tests.nodes import Sink, bench, data_of

RAW = msgspec.Raw(b"1")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"channel": "a b"}, InvalidChannel),
        ({"channel": "a", "data": msgspec.UNSET}, BadRequest),
        ({"channel": "a", "data": msgspec.Raw(b'"' + b"x" * 70_000 + b'"')}, TooLarge),
        ({"channel": "a", "id": ""}, BadRequest),
        ({"channel": "a", "id": "x" * 129}, BadRequest),
        ({"channel": "a", "key": "a\nb"}, BadRequest),
        ({"channel": "a", "event": "gap"}, BadRequest),
        ({"channel": "a", "expect": "here"}, InvalidCursor),
        ({"channel": "a", "echo": False}, BadRequest),
        ({"channel": "a", "echo": False, "session": "x" * 65}, BadRequest),
    ],
)
def test_publish_is_refused(fields: dict[str, Any], error: type[RequestError]) -> None:
    node = Node(FaultyBroker())
    with pytest.raises(error):
        node.draft(Publish(**{"data": RAW, **fields}), None, packed=False)


def test_namespace_says_how_large_and_how_lasting_messages_are() -> None:
    namespaces = Namespaces([Namespace("n", message_max_bytes=3, ephemeral=True)])
    node = Node(FaultyBroker(namespaces), namespaces=namespaces)
    assert node.draft(Publish(channel="n:a", data=RAW), None, packed=False).ephemeral
    assert not node.draft(Publish(channel="a", data=RAW), None, packed=False).ephemeral
    with pytest.raises(TooLarge):
        node.draft(Publish(channel="n:a", data=msgspec.Raw(b"1234")), None, packed=False)


@on_loop
async def test_conversation_answers_in_order() -> None:
    async with bench() as node:
        talk = socket_talk(node)
        talk.say(type="connect", ref=1, session="mine")
        talk.say(type="subscribe", ref=2, channel="a")
        talk.say(type="publish", ref=3, channel="a", data=1, echo=False)
        talk.say(type="publish", ref=4, channel="a", data=2)
        talk.say(type="subscribe", ref=5, channel="a")
        talk.say(type="unsubscribe", ref=6, channel="b")
        talk.say(type="ping", ref=7)
        await settle()
        seen = talk.door.drain()
        answers = [(push["ref"], push["type"]) for push in seen if "ref" in push]
        kinds = ["connected", "subscribed", "published", "published", "error", "error", "pong"]
        assert answers == list(enumerate(kinds, 1))
        assert data_of([push for push in seen if push["type"] == "message"]) == [2]


@on_loop
async def test_commands_wait_for_those_before_them() -> None:
    async with bench() as node:
        talk = socket_talk(node)
        node.broker.hold()
        for number in range(3):
            talk.say(type="publish", ref=number, channel="a", data=number)
        talk.say(type="subscribe", ref=3, channel="a", since="earliest")
        await settle()
        assert talk.is_paused
        assert not talk.door.drain()
        node.broker.release()
        await settle()
        seen = talk.door.drain()
        assert [push.get("ref") for push in seen] == [0, 1, 2, 3, None, None, None]
        assert data_of(seen[4:]) == [0, 1, 2]


@on_loop
async def test_reading_is_refused_and_nothing_is_held() -> None:
    async with bench(channels_per_connection=2) as node:
        with pytest.raises(TooManyChannels):
            await ask(node, ["a", "b", "c"])
        with pytest.raises(BadRequest):
            await ask(node, ["a"], "now", last=1)
        with pytest.raises(BadRequest):
            await ask(node, ["a"], last=LAST_MAX + 1)
        with pytest.raises(InvalidCursor):
            await ask(node, ["a"], "yesterday")
        assert not node.hub.subscribers
        assert not len(node.hub.tails)


@on_loop
async def test_poll_with_a_limit_gets_the_first_of_them_and_their_place() -> None:
    async with bench() as node:
        positions = await node.say_all("a", *range(10))
        poll = await ask(node, ["a"], "earliest", limit=3)
        assert data_of(poll.page["messages"]) == [0, 1, 2]
        assert poll.page["cursor"] == positions[2]
        poll = await ask(node, ["a"], positions[8], limit=3)
        assert data_of(poll.page["messages"]) == [9]


@on_loop
async def test_poll_is_answered_by_the_first_news() -> None:
    async with bench() as node:
        poll = await ask(node, ["a", "b"], session="mine")
        await node.say("a", 0, "mine", echo=False)
        await settle()
        assert poll.subscriber in node.hub.subscribers
        await node.say("b", 1)
        last = await node.say("a", 2)
        await settle()
        assert data_of(poll.page["messages"]) == [1, 2]
        assert poll.page["cursor"] == str(last.position)
        assert not node.hub.subscribers


@on_loop
async def test_poll_is_told_of_what_was_trimmed_while_it_was_placed() -> None:
    async with bench(tail_max_bytes=0) as node:
        (start,) = await node.say_all("a", 0)
        await node.say_all("short:a", 1)
        placement = await node.reading.place(node.reading.wanted(["short:a"], None), start, None, "oldest")
        door = line_door(node)
        await node.say_all("short:a", *range(2, 9))
        node.hub.join(door.subscriber, placement)
        assert data_of(door.drain()) == [1, "slow", 6, 7, 8]
        poll = await ask(node, ["short:a"], start)
        assert poll.page["gap"]["reason"] == "trimmed"
        assert data_of(poll.page["messages"]) == [6, 7, 8]


@on_loop
async def test_conflict_says_where_the_channel_is() -> None:
    async with bench() as node:
        first = (await node.say("a", 1)).position
        await node.say("b", 1)
        second = (await node.say("a", 2, expect=str(first))).position
        with pytest.raises(Conflict) as caught:
            await node.say("a", 3, expect=str(first))
        assert caught.value.head == second
        assert (await node.say("new", 1, expect=str(Position(node.hub.epoch, 0)))).position is not None


@on_loop
async def test_draining_answers_everyone_and_lets_nobody_in() -> None:
    async with bench(drain_s=0.0) as node:
        door, talk = line_door(node), socket_talk(node)
        await begin(node, door, ["a"])
        poll = await ask(node, ["a"])
        await node.drain()
        await node.drain()
        assert door.closed_with is talk.door.closed_with is CloseCode.SERVICE_RESTART
        assert poll.page["messages"] == []
        assert not node.hub.subscribers
        assert not len(node.hub.tails)
        with pytest.raises(Draining):
            line_door(node)


@pytest.mark.parametrize("count", [1, 7, 99, 100, 101, 250, 1_000])
def test_drain_gives_connections_slots_that_are_spread_evenly(count: int) -> None:
    closed_at: list[float] = []

    class TimedDoor(Sink):
        """Notes when its reader is to be back."""

        def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
            super().close(code, reason, reconnect_in_ms)
            assert code is CloseCode.SERVICE_RESTART
            assert reconnect_in_ms is not None
            closed_at.append(asyncio.get_running_loop().time() + reconnect_in_ms / 1000)

    async def drain() -> None:
        node = Node(FaultyBroker(), limits=Limits(drain_s=4.0))
        for _ in range(count):
            node.admit(TimedDoor(), lines(chunked=False), somebody())
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await node.drain()
        window_s = loop.time() - begun
        await node.tasks.aclose()
        assert window_s == pytest.approx(min(4.0, count * DRAIN_PACE_S))
        slots = min(count, DRAIN_SLOTS)
        histogram = Counter(round((at - begun) / window_s * slots) for at in closed_at)
        assert sorted(histogram) == list(range(slots))
        assert max(histogram.values()) - min(histogram.values()) <= 1

    run(drain)


def test_node_that_stood_still_cuts_nobody_who_answers() -> None:
    class Answering(Sink):
        """Answers each sign of life a moment after it was given it."""

        hears = True

        def write(self, batch: Any) -> None:
            super().write(batch)
            asyncio.get_running_loop().call_later(0.01, self.answer)

        def answer(self) -> None:
            admitted[0].silent_beats = 0

    admitted: list[Subscriber] = []

    async def test() -> None:
        node = Node(FaultyBroker(), limits=Limits(heartbeat_s=10.0))
        await node.open()
        living, dead = Answering(), Sink()
        dead.hears = True
        admitted.extend(node.admit(door, lines(chunked=False), somebody()) for door in (living, dead))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await asyncio.sleep(1)
        loop.stand_still(1000)
        await asyncio.sleep(20)
        assert [door.closed_with for door in (living, dead)] == [None, None]
        await asyncio.sleep(15)
        assert [door.closed_with for door in (living, dead)] == [None, CloseCode.DEAD]
        await node.aclose()

    run(test)
