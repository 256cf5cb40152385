"""What an application publishes and reads: values, history, readings that go on, who is here."""

from __future__ import annotations

import asyncio
import datetime
import gc
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import Raw

from tellwire import (
    Appended,
    Conflict,
    Gap,
    Grants,
    Identity,
    InvalidData,
    Namespace,
    Received,
    Subscription,
    Tellwire,
    TellwireError,
    Unauthorized,
    Unavailable,
)
from tellwire.auth import UnusableKey
from tellwire.auth.tokens import Verifier
from tellwire.limits import Limits
from tellwire.names import Namespaces
from tellwire.node import Node
from tellwire.protocol.commands import Publish
from tellwire.testing.faulty import FaultyBroker
from tellwire.testing.harness import on_loop

SHORT = Namespace("short", history_messages=3)


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Tellwire]:
    """Open a Tellwire that is open to everybody."""
    tellwire = Tellwire(**{"open": True, "namespaces": [SHORT], **settings})
    async with tellwire.lifespan():
        yield tellwire


@asynccontextmanager
async def faulty(**limits: Any) -> AsyncIterator[tuple[Node, FaultyBroker]]:
    """Open a node over a broker that fails on request."""
    broker = FaultyBroker(Namespaces([SHORT]))
    node = Node(broker, namespaces=Namespaces([SHORT]), limits=Limits(**limits))
    await node.open()
    try:
        yield node, broker
    finally:
        await node.aclose()


def follow(node: Node, *channels: str, since: str | int = "now") -> Subscription:
    return Subscription(lambda: node, channels, since, None, "catch_up", "oldest")


async def take(subscription: Subscription, count: int) -> list[Any]:
    """Return what messages carry, and the reason of gaps."""
    items = [await anext(subscription) for _ in range(count)]
    return [item.reason if isinstance(item, Gap) else item.data for item in items]


@dataclass
class Point:
    x: int
    y: float


# Publishing


@pytest.mark.parametrize(
    ("given", "comes"),
    [
        (None, None),
        ({"a": [1, 2.5, True, "ä\n"]}, {"a": [1, 2.5, True, "ä\n"]}),
        (b"\0\xff", b"\0\xff"),
        ({"image": bytearray(b"png"), "of": [memoryview(b"x")]}, {"image": b"png", "of": [b"x"]}),
        (Point(1, 0.5), {"x": 1, "y": 0.5}),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        ((1, 2), [1, 2]),
        ({1: "one"}, {"1": "one"}),
    ],
    ids=lambda value: type(value).__name__,
)
@on_loop
async def test_value_comes_as_json_has_it(given: Any, comes: Any) -> None:
    async with running() as tellwire:
        await tellwire.publish("news", given)
        (message,) = (await tellwire.read("news")).messages
        assert message.data == comes
        assert type(message.data) is type(comes)


@pytest.mark.parametrize(
    "given",
    [object(), float("nan"), {"a": float("inf")}, "\ud800", len],
    ids=["object", "nan", "infinity", "surrogate", "function"],
)
@on_loop
async def test_value_that_json_has_not_is_refused(given: Any) -> None:
    async with running() as tellwire:
        with pytest.raises(InvalidData):
            await tellwire.publish("news", given)
        deep: Any = []
        for _ in range(200):
            deep = [deep]
        with pytest.raises(InvalidData, match="nested"):
            await tellwire.publish("news", deep)
        assert (await tellwire.read("news")).messages == ()


@on_loop
async def test_publish_takes_what_clients_can_say() -> None:
    async with running() as tellwire:
        first = await tellwire.publish("news", 1, id="one", event="rain", key="weather")
        assert not first.duplicate
        assert await tellwire.publish("news", 1, id="one") == Appended(first.position, duplicate=True)
        await tellwire.publish("news", 2, expect=first.position)
        with pytest.raises(Conflict):
            await tellwire.publish("news", 3, expect=str(first.position))
        message = (await tellwire.read("news")).messages[0]
        assert (message.id, message.event, message.key, message.position) == (
            "one", "rain", "weather", str(first.position),
        )  # fmt: skip
        async with tellwire.subscribe("news") as messages:
            assert (await tellwire.publish("news", 4, ephemeral=True)).position is None
            fleeting = await anext(messages)
            assert isinstance(fleeting, Received)
            assert (fleeting.data, fleeting.seq, fleeting.position) == (4, 0, None)


@pytest.mark.parametrize(
    "given",
    [{"channel": ".."}, {"channel": "$control"}, {"event": ""}, {"event": "gap"}, {"id": "x" * 200}, {"expect": "x"}],
    ids=repr,
)
@on_loop
async def test_publish_that_cannot_be_is_refused(given: dict[str, Any]) -> None:
    async with running() as tellwire:
        with pytest.raises(TellwireError):
            await tellwire.publish(**{"channel": "news", "data": 1, **given})


@on_loop
async def test_publish_does_not_ask_the_handlers() -> None:
    tellwire = Tellwire()
    tellwire.on_connect(lambda request: None)
    tellwire.on_publish(lambda client, publishing: 1 / 0)  # type: ignore[type-var]
    async with tellwire.lifespan():
        await tellwire.publish("news", 1)


# History


@on_loop
async def test_history_is_read_in_pieces_and_from_its_end() -> None:
    async with running() as tellwire:
        for number in range(10):
            await tellwire.publish("odd" if number % 2 else "even", number)
        seen: list[Any] = []
        cursor: str | int = "earliest"
        while (page := await tellwire.read("odd", "even", since=cursor, limit=3)).messages:
            seen += [message.data for message in page.messages]
            cursor = page.cursor
        assert seen == list(range(10))
        newest = await tellwire.read("odd", last=2)
        assert [message.data for message in newest.messages] == [7, 9]
        assert (await tellwire.read("odd", since=newest.cursor)).messages == ()
        assert (await tellwire.read("odd", since="now")).messages == ()


@on_loop
async def test_history_tells_of_gaps() -> None:
    async with running() as tellwire:
        begin = (await tellwire.read("short:1")).cursor
        for number in range(5):
            await tellwire.publish("short:1", number)
        history = await tellwire.read("short:1", since=begin)
        assert [message.data for message in history.messages] == [2, 3, 4]
        assert history.gap is not None
        assert history.gap.reason == "trimmed"


@on_loop
async def test_what_cannot_be_read_is_refused() -> None:
    async with running() as tellwire:
        for wrong in ({"since": "x"}, {"limit": 0}, {"limit": 10**6}, {"last": -1}, {"since": -1}):
            with pytest.raises(TellwireError):
                await tellwire.read("news", **wrong)
        for channel in ("", "$presence:news", "a b"):
            with pytest.raises(TellwireError):
                await tellwire.read(channel)
            with pytest.raises(TellwireError):
                await anext(tellwire.subscribe(channel))
        with pytest.raises(TellwireError, match="no channel is named"):
            await tellwire.read()
        with pytest.raises(TellwireError, match="no channel is named"):
            tellwire.subscribe()


# Readings that go on


@on_loop
async def test_subscription_begins_where_it_is_told_and_goes_on() -> None:
    async with running() as tellwire:
        for number in range(3):
            await tellwire.publish("news", number)
        async with (
            tellwire.subscribe("news", since="earliest") as all_of_them,
            tellwire.subscribe("news", last=1) as last,
            tellwire.subscribe("news") as new,
            tellwire.subscribe("news", since=2) as third,
        ):
            await tellwire.publish("news", 3)
            assert await take(all_of_them, 4) == [0, 1, 2, 3]
            assert await take(last, 2) == [2, 3]
            assert await take(new, 1) == [3]
            assert await take(third, 2) == [2, 3]
            assert all_of_them.cursor == new.cursor == (await tellwire.read("news")).cursor


@on_loop
async def test_channels_come_in_one_order() -> None:
    async with running() as tellwire, tellwire.subscribe("a", "b", "c") as messages:
        for number in range(30):
            await tellwire.publish("abc"[number % 3], number)
        assert await take(messages, 30) == list(range(30))


@on_loop
async def test_slow_reader_is_a_cursor() -> None:
    """Nothing is kept for it, and nothing is missing when it comes back."""
    async with running(limits=Limits(tail_max_bytes=4_000)) as tellwire, tellwire.subscribe("news") as messages:
        for number in range(900):
            await tellwire.publish("news", number)
        assert len(messages._reading.waiting) < 600
        assert await take(messages, 900) == list(range(900))


@on_loop
async def test_reader_that_fell_off_the_log_is_told_so() -> None:
    async with running(limits=Limits(tail_max_bytes=1)) as tellwire, tellwire.subscribe("short:1") as messages:
        for number in range(700):
            await tellwire.publish("short:1", number)
            if number % 50 == 0:
                await asyncio.sleep(0)
        items: list[Any] = []
        while not items or items[-1] != 699:
            items += await take(messages, 1)
        place = items.index("slow")
        assert items[:place] == list(range(place))
        assert items[place + 1 :] == [697, 698, 699]


@on_loop
async def test_subscription_from_too_long_ago_begins_with_a_gap() -> None:
    async with running() as tellwire:
        begin = (await tellwire.read("short:1")).cursor
        for number in range(5):
            await tellwire.publish("short:1", number)
        async with tellwire.subscribe("short:1", since=begin) as messages:
            assert await take(messages, 4) == ["trimmed", 2, 3, 4]
        async with tellwire.subscribe("short:1", since=begin, on_gap="newest") as messages:
            await tellwire.publish("short:1", 5)
            assert await take(messages, 2) == ["trimmed", 5]
        async with tellwire.subscribe("short:1", since="otherlog.7") as messages:
            assert await take(messages, 2) == ["epoch", 3]


@on_loop
async def test_subscription_goes_on_in_a_log_that_was_lost() -> None:
    async with faulty() as (node, broker), follow(node, "news") as messages:
        await node.publish_own(_publish("news", b"1"))
        assert await take(messages, 1) == [1]
        before = messages.cursor
        broker.lose_log()
        await node.publish_own(_publish("news", b"2"))
        gap, message = await anext(messages), await anext(messages)
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.from_) == ("epoch", before)
        assert isinstance(message, Received)
        assert message.position == f"{broker.head.epoch}.1" == messages.cursor


@on_loop
async def test_log_that_cannot_be_read_ends_it_with_an_error() -> None:
    async with faulty(tail_max_bytes=1) as (node, broker), follow(node, "news") as messages:
        for number in range(600):
            await node.publish_own(_publish("news", b"%d" % number))
            await asyncio.sleep(0)
        broker.fail_reads = 1
        with pytest.raises(Unavailable, match="the subscription ended"):
            await take(messages, 600)
        assert messages.cursor is not None
        async with follow(node, "news", since=messages.cursor) as again:
            assert (await take(again, 1))[0] == int(messages.cursor.rpartition(".")[2])
        with pytest.raises(StopAsyncIteration):
            await anext(messages)


@on_loop
async def test_failure_to_begin_is_raised_and_can_be_tried_again() -> None:
    async with faulty() as (node, broker):
        await node.publish_own(_publish("news", b"1"))
        own = node.hub.readings  # of what nodes tell each other
        messages = follow(node, "news", since="earliest")
        broker.fail_reads = 1
        with pytest.raises(Unavailable):
            await anext(messages)
        assert await take(messages, 1) == [1]
        await messages.aclose()
        assert node.hub.readings == own


@on_loop
async def test_cancelled_wait_loses_nothing() -> None:
    async with running() as tellwire, tellwire.subscribe("news") as messages:
        seen: list[Any] = []
        for number in range(30):
            waiting = asyncio.ensure_future(anext(messages))
            for _ in range(number % 3):
                await asyncio.sleep(0)
            await tellwire.publish("news", number)
            for _ in range(number // 3 % 3):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            if not waiting.cancelled():
                item = waiting.result()
                assert isinstance(item, Received)
                seen.append(item.data)
        assert seen + await take(messages, 30 - len(seen)) == list(range(30))


@on_loop
async def test_every_way_out_gives_its_place_back() -> None:
    async with running() as tellwire:
        hub = tellwire._running_node().hub
        before = (len(hub.subscribers), hub.readings)
        await tellwire.publish("news", 1)
        async for _ in tellwire.subscribe("news", since="earliest"):
            break
        gc.collect()
        await asyncio.sleep(0)
        assert (len(hub.subscribers), hub.readings) == before
        async with aclosing(tellwire.subscribe("news")) as messages, asyncio.TaskGroup() as group:
            task = group.create_task(_count(messages))
            await asyncio.sleep(0)
            task.cancel()
        async with tellwire.subscribe("news", since="earliest") as messages:
            assert len(hub.subscribers) == before[0] + 1
        await messages.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(messages)
        assert (len(hub.subscribers), hub.readings) == before


@on_loop
async def test_close_wakes_who_waits() -> None:
    async with running() as tellwire:
        messages = tellwire.subscribe("news")
        counting = asyncio.create_task(_count(messages))
        await asyncio.sleep(0)
        await messages.aclose()
        assert await counting == 0


@on_loop
async def test_stopping_ends_it_after_what_has_come() -> None:
    tellwire = Tellwire(open=True)
    await tellwire.start()
    async with tellwire.subscribe("news") as messages:
        await tellwire.publish("news", 1)
        await asyncio.sleep(0)
        await tellwire.stop()
        assert [item.data async for item in messages if isinstance(item, Received)] == [1]


@on_loop
async def test_reader_of_a_long_history_lets_others_have_their_turn() -> None:
    async with running(namespaces=[Namespace(history_messages=10_000)]) as tellwire:
        for number in range(5_000):
            await tellwire.publish("news", number)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        async with tellwire.subscribe("news", since="earliest") as messages:
            await take(messages, 5_000)
        task.cancel()
        assert turns > 50


async def _count(messages: Subscription) -> int:
    return len([item async for item in messages])


def _publish(channel: str, data: bytes) -> Publish:
    return Publish(channel=channel, data=Raw(data))


# Tokens


@on_loop
async def test_token_says_what_it_was_made_for() -> None:
    tellwire = Tellwire(token_key="k" * 32)
    token = tellwire.token(
        "ann", subscribe=["news:*"], publish=("room:1",), channels=["user:ann"], info={"name": "Ann"}, expires_s=60
    )
    identity = await Verifier(tellwire.settings.auth).verify(token)
    assert (identity.user, identity.channels, identity.info) == ("ann", ("user:ann",), b'{"name":"Ann"}')
    assert identity.grants == Grants.of(
        {"subscribe": ["news:*"], "publish": ["room:1"]}, channels=["user:ann"]
    )  # fmt: skip
    assert identity.expires_at is not None
    assert identity.token_id
    assert await Verifier(tellwire.settings.auth).verify(tellwire.token()) != Identity()


def test_token_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(UnusableKey, match="no key to sign tokens with"):
        Tellwire(open=True).token("ann")
    tellwire = Tellwire(token_key="k" * 32)
    with pytest.raises(TypeError, match=r"subscribe is a list of texts, such as \['news'\]"):
        tellwire.token("ann", subscribe="news")
    with pytest.raises(Unauthorized, match="claim sub"):
        tellwire.token("a\nb")
    with pytest.raises(Unauthorized, match="claim channels"):
        tellwire.token("ann", channels=["$control"])


@on_loop
async def test_orders_need_to_be_about_somebody() -> None:
    async with running() as tellwire:
        for wrong in (tellwire.disconnect(), tellwire.revoke(), tellwire.revoke(user="ann", token_id="1")):
            with pytest.raises(ValueError, match="give one of"):
                await wrong
