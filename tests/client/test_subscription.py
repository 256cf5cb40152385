"""What a reader has, where it stands, and what it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tellwire.client import Closed, Message, Settings, TransportName, connect
from tellwire.client.messages import ORDER
from tellwire.errors import BadRequest, InvalidChannel
from tellwire.message import Gap
from tests.client.virtual_time import run
from tests.client.world import World, settle

every = pytest.mark.parametrize("name", ORDER)


@every
def test_cursor_covers_what_was_handed_out_and_no_more(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            subscription = world.client.subscribe("a", since="earliest")
            before = subscription.cursor
            assert before is None
            for number in range(5):
                world.server.publish("a", number)
            await asyncio.sleep(5)
            assert subscription.cursor == "aaaa.0"
            for number in range(5):
                message = await anext(subscription)
                assert (message.data, subscription.cursor) == (number, f"aaaa.{number + 1}")
            world.server.publish("b", "elsewhere")
            await asyncio.sleep(60)
            # A quiet channel's cursor would grow old; a stream of events has no sign of life that tells another.
            assert subscription.cursor == ("aaaa.5" if name == "sse" else "aaaa.6")

    run(test)


@every
def test_whoever_goes_on_from_a_cursor_another_day_misses_nothing(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            for number in range(20):
                world.server.publish("a", number)
            had, cursor = [], "earliest"
            for _ in range(10):
                async with world.client.subscribe("a", since=cursor) as subscription:
                    had.append((await anext(subscription)).data)
                    had.append((await anext(subscription)).data)
                    cursor = str(subscription.cursor)
            assert had == list(range(20))

    run(test)


@every
@pytest.mark.parametrize("latency_s", [0.0, 0.13])
def test_slow_reader_gets_everything_over_a_short_queue(name: TransportName, latency_s: float) -> None:
    async def test() -> None:
        async with World((name,), queue_max_messages=4) as world:
            world.server.latency_s = latency_s
            subscription = world.client.subscribe("a", since="earliest")
            had = world.collect("b")
            await asyncio.sleep(1)

            async def read() -> list[Any]:
                taken: list[Any] = []
                while len(taken) < 100:
                    taken.append((await anext(subscription)).data)
                    assert len(subscription._queue) <= 4
                    await asyncio.sleep(0.02)
                return taken

            for number in range(100):
                world.server.publish("a", number)
                world.server.publish("b", number)
                if number % 30 == 0:
                    world.server.cut()
                await asyncio.sleep(0.05)
                if number == 60:
                    slow = asyncio.create_task(read())
            await slow
            assert slow.result() == list(range(100))
            assert had == list(range(100))

    run(test)


def test_queue_is_bounded_in_bytes() -> None:
    async def test() -> None:
        async with World(queue_max_bytes=1000) as world:
            subscription = world.client.subscribe("a", since="earliest")
            await settle()
            for _ in range(20):
                world.server.publish("a", "x" * 400)
            await asyncio.sleep(1)
            assert len(subscription._queue) == 3
            for _ in range(20):
                await anext(subscription)

    run(test)


@every
def test_gap_is_told_in_its_place(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            order: list[Any] = []
            subscription = world.client.subscribe("a", since="earliest", on_gap=lambda gap: order.append(gap.reason))

            async def read() -> None:
                async for message in subscription:  # what is told comes between
                    order.append(message.data)  # noqa: PERF401

            reading = asyncio.create_task(read())
            world.server.publish("a", 1)
            await asyncio.sleep(3)
            world.server.wipe("bbbb")
            world.server.publish("a", 2)
            await asyncio.sleep(10)
            assert order == [1, "epoch", 2]
            subscription.close()
            await reading

    run(test)


def test_gap_is_among_the_items() -> None:
    async def test() -> None:
        async with World(("websocket",)) as world:
            world.server.log.history = 2
            for number in range(5):
                world.server.publish("a", number)
            subscription = world.client.subscribe("a", since="aaaa.1")
            items = []
            async for item in subscription.with_gaps():
                items.append(item.data if isinstance(item, Message) else item)
                if len(items) == 3:
                    break
            assert items == [Gap("aaaa.1", "aaaa.3", "trimmed", ("a",)), 3, 4]

    run(test)


@every
def test_channels_come_and_go(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            had = world.collect("a")
            await settle()
            for number in range(40):
                world.collect(f"extra-{number}", since="earliest")
                world.server.publish("a", number)
                world.server.publish(f"extra-{number}", number)
                if number % 3 == 0:
                    world.subscriptions[f"extra-{number // 2}"].close()
                if number % 5 == 0:
                    await asyncio.sleep(0.5)
            await asyncio.sleep(5)
            assert had == list(range(40))
            still = [number for number in range(40) if not world.subscriptions[f"extra-{number}"].is_ended]
            assert len(still) > 20
            for number in still:
                assert world.had[f"extra-{number}"] == [number]

    run(test)


def test_thousand_channels_are_asked_for_together() -> None:
    async def test() -> None:
        async with World(("sse",)) as world:
            for number in range(1000):
                world.collect(f"c{number}")
            await asyncio.sleep(1)
            assert len(world.server.heard) == 2
            world.server.publish("c999", "news")
            await settle()
            assert world.had["c999"] == ["news"]

    run(test)


def test_channel_that_a_token_reads_by_itself_is_read_from_where_it_is_wanted() -> None:
    async def test() -> None:
        async with World(("websocket",)) as world:
            for number in range(3):
                world.server.publish("a", number)
            asked: list[str] = []

            def answer(what: str, fields: dict[str, Any]) -> Any:
                asked.append(what)
                if what == "ws subscribe" and "ws unsubscribe" not in asked:
                    for connection in world.server.connections:
                        connection.write({"type": "subscribed", "channel": "a", "cursor": "aaaa.3", "gap": None})
                    return {"type": "error", "code": "bad_request", "message": "a is read already"}
                return None

            world.server.answer = answer
            had = world.collect("a", since="earliest")
            await settle()
            assert had == [0, 1, 2]
            assert asked == ["ws connect", "ws subscribe", "ws unsubscribe", "ws subscribe"]

    run(test)


def test_reading_that_the_server_ends_is_over() -> None:
    async def test() -> None:
        async with World(("websocket",)) as world:
            world.collect("a")
            world.collect("b")
            await settle()
            for connection in world.server.connections:
                connection.write({"type": "unsubscribed", "channel": "a", "code": "forbidden"})
            await settle()
            assert world.errors["a"].code == "forbidden"
            assert "b" not in world.errors

    run(test)


def test_what_makes_no_sense_is_refused_at_once() -> None:
    async def test() -> None:
        async with World() as world:
            client = world.client
            world.collect("a")
            with pytest.raises(BadRequest, match="a is read already"):
                client.subscribe("a")
            with pytest.raises(BadRequest, match="exclude each other"):
                client.subscribe("b", since="earliest", last=3)
            with pytest.raises(InvalidChannel):
                client.subscribe("no spaces")
            subscription = client.subscribe("c")
            subscription.close()
            with pytest.raises(Closed):
                await subscription.ready()
            assert [each async for each in subscription] == []

    run(test)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"url": "localhost:8000"}, "is not the address of a server"),
        ({"url": "ftp://x"}, "is not the address of a server"),
        ({"url": "http://[x"}, "is not the address of a server"),
        ({"url": "http://x:99999"}, "is not the address of a server"),
        ({"transports": ("carrier-pigeon",)}, "carrier-pigeon"),
        ({"transports": ()}, "one has to be named"),
        ({"session": "é"}, "session"),
    ],
)
def test_bad_options_are_refused_at_once(given: dict[str, Any], fault: str) -> None:
    async def test() -> None:
        with pytest.raises(ValueError, match=fault):
            connect(**{"url": "http://x", **given})

    run(test)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="poll_s is 0; it is a time in seconds"):
        Settings(poll_s=0)
