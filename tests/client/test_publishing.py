"""Publishes that are held, refused for now, cancelled, or too many."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tellwire.client import Closed, OutboxFull, Published, TransportName, Uncertain
from tellwire.client.messages import ORDER
from tellwire.errors import Forbidden, Internal, TooLarge
from tests.client.virtual_time import run
from tests.client.world import World, settle

every = pytest.mark.parametrize("name", ORDER)


def tasks(world: World, *data: Any, **fields: Any) -> list[asyncio.Task[Published]]:
    return [asyncio.create_task(world.client.publish("a", each, **fields)) for each in data]


@every
def test_what_is_published_offline_waits_and_keeps_its_order(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            world.server.is_down = True
            waiting = tasks(world, *range(500))
            await asyncio.sleep(20)
            assert world.server.log.messages == []
            world.server.is_down = False
            await world.client.flush()
            assert world.server.log.data("a") == list(range(500))
            assert [(await each).position for each in waiting] == [f"aaaa.{number}" for number in range(1, 501)]

    run(test)


def test_outbox_is_bounded_in_number_and_size() -> None:
    async def test() -> None:
        async with World(outbox_max_messages=3, outbox_max_bytes=500) as world:
            world.server.is_down = True
            waiting = tasks(world, 1, 2, 3)
            await settle()
            with pytest.raises(OutboxFull, match=r"3 publishes \(\d+ bytes\) wait"):
                await world.client.publish("a", 4)
            world.server.is_down = False
            await asyncio.gather(*waiting)
            with pytest.raises(OutboxFull):
                await world.client.publish("a", "x" * 500)
            assert world.server.log.data("a") == [1, 2, 3]
            await world.client.publish("a", "x" * 100)

    run(test)


@pytest.mark.parametrize("latency_s", [0.0, 0.2])
@every
def test_message_refused_for_now_is_not_overtaken(name: TransportName, latency_s: float) -> None:
    """Not by those that were under way with it, nor by those that were published meanwhile."""

    async def test() -> None:
        for refused in range(1, 8):
            async with World((name,)) as world:
                world.server.latency_s = latency_s
                await settle()
                world.server.patience = refused
                waiting = tasks(world, 1, 2, 3, 4)
                await asyncio.sleep(0.1)
                waiting += tasks(world, 5, 6, 7, 8)
                await asyncio.gather(*waiting)
                assert world.server.log.data("a") == list(range(1, 9)), f"the {refused}th is refused"

    run(test)


def test_publish_that_is_given_up_after_a_refusal_does_not_hold_the_others_up() -> None:
    async def test() -> None:
        async with World(("websocket",)) as world:
            await settle()
            world.server.patience = 2
            waiting = tasks(world, 1, 2, 3)
            await asyncio.sleep(0.1)
            waiting[1].cancel()
            await world.client.publish("a", 4)
            assert world.server.log.data("a") == [1, 3, 4]
            await asyncio.gather(*waiting, return_exceptions=True)

    run(test)


def test_server_that_is_away_for_a_moment_is_waited_for_once_for_all_that_is_under_way() -> None:
    async def test() -> None:
        async with World(("websocket",)) as world:
            await settle()
            world.server.is_busy = True
            waiting = tasks(world, *range(500))
            await asyncio.sleep(0.5)
            world.server.is_busy = False
            await asyncio.sleep(1)
            assert world.server.log.data("a") == list(range(500))
            await asyncio.gather(*waiting)

    run(test)


@every
def test_refusal_is_about_one_message_only(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:

            def answer(what: str, fields: dict[str, Any]) -> Any:
                if what == "ws publish" and fields["data"] == "secret":
                    return {"type": "error", "code": "forbidden", "message": "not for you"}
                if what == "POST /v1/messages" and fields["body"][0]["data"] == "secret":
                    return httpx.Response(200, json=[{"error": {"code": "forbidden", "message": "not for you"}}])
                return None

            world.server.answer = answer
            await asyncio.gather(*tasks(world, 1))
            with pytest.raises(Forbidden, match="not for you"):
                await world.client.publish("a", "secret")
            await world.client.publish("a", 2)
            assert world.server.log.data("a") == [1, 2]

    run(test)


def test_lost_acknowledgement_beyond_the_window_is_uncertain() -> None:
    async def test() -> None:
        async with World(("websocket",), idempotency_window_s=30.0) as world:
            await settle()
            world.server.black_hole()
            waiting = tasks(world, 1)
            await asyncio.sleep(100)
            world.server.is_silent = False
            with pytest.raises(Uncertain, match="not acknowledged"):
                await waiting[0]

    run(test)


@every
def test_who_gives_up_a_publish_that_was_not_sent_yet_takes_it_back(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            world.server.is_down = True
            waiting = tasks(world, 1, 2, 3)
            await settle()
            waiting[1].cancel()
            await asyncio.sleep(3)
            world.server.is_down = False
            await world.client.flush()
            assert world.server.log.data("a") == [1, 3]
            await asyncio.gather(*waiting, return_exceptions=True)

    run(test)


def test_message_that_the_server_cuts_for_is_given_up_and_the_others_go_on() -> None:
    async def test() -> None:
        async with World(("websocket",)) as world:

            def answer(what: str, fields: dict[str, Any]) -> Any:
                return 1009 if what == "ws publish" and len(str(fields["data"])) > 100 else None

            world.server.answer = answer
            waiting = tasks(world, 1, "x" * 200, 2)
            await asyncio.sleep(10)
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(result) for result in results] == [Published, TooLarge, Published]
            assert world.server.log.data("a") == [1, 2]

    run(test)


def test_ephemeral_messages_are_now_or_never() -> None:
    async def test() -> None:
        async with World() as world:
            world.server.is_down = True
            assert await world.client.publish("a", 1, ephemeral=True) == Published(None, dropped=True)
            world.server.is_down = False
            had = world.collect("a")
            await asyncio.sleep(3)
            assert await world.client.publish("a", 2, ephemeral=True) == Published(None)
            await settle()
            assert had == [2]

    run(test)


def test_close_fails_what_waits() -> None:
    async def test() -> None:
        async with World() as world:
            world.server.is_down = True
            waiting = tasks(world, 1)
            await settle()
        with pytest.raises(Closed):
            await waiting[0]
        with pytest.raises(Closed):
            await world.client.publish("a", 2)
        await world.client.aclose()

    run(test)


@pytest.mark.parametrize("name", ["sse", "poll"])
def test_incomplete_answer_is_an_error_of_the_server(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            world.server.answer = lambda what, fields: httpx.Response(200, json=[]) if "POST" in what else None
            with pytest.raises(Internal):
                await world.client.publish("a", 1)

    run(test)
