"""Who is there, over connections that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tellwire.client import Presence, TransportName
from tellwire.client.messages import ORDER
from tellwire.errors import Forbidden
from tests.client import virtual_time
from tests.client.fake_server import FakeServer, problem
from tests.client.proxy import Proxy
from tests.client.test_network import client_over, run, until
from tests.client.world import World, settle
from tests.serving import Server

every = pytest.mark.parametrize("name", ORDER)


async def wait_for(room: Presence, is_so: Callable[[], bool]) -> None:
    """Take events until it is so."""
    while not is_so():
        await anext(room)


def names(room: Presence) -> list[Any]:
    return sorted(member.state for member in room.members.values())


@every
def test_member_stays_over_a_cut_and_hears_what_it_missed(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        async with (
            Proxy(server.port) as proxy,
            client_over(proxy, [name]) as near,
            Proxy(server.port) as steady,
            client_over(steady, ["websocket"]) as far,
        ):
            room, other = near.presence(channel), far.presence(channel)
            await room.enter("near")
            await other.enter("far")
            await wait_for(room, lambda: names(room) == ["far", "near"])
            proxy.forbidden = {"/v1/"}
            proxy.cut()
            await until(near, lambda state: state.name == "disconnected")
            await other.enter("far away")
            async with Proxy(server.port) as third, client_over(third, ["websocket"]) as late:
                await late.presence(channel).enter("late")
                proxy.forbidden = set()
                await wait_for(room, lambda: names(room) == ["far away", "late", "near"])
                await near.send(channel, str(far.client_id), "still there")
            await wait_for(room, lambda: names(room) == ["far away", "near"])
            assert (room.clients, room.users) == (2, 2)

    run(test)


@every
def test_signals_that_come_while_away_are_not_missed(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        async with (
            Proxy(server.port) as proxy,
            client_over(proxy, [name]) as near,
            Proxy(server.port) as steady,
            client_over(steady, ["websocket"]) as far,
        ):
            signals = near.signals()
            await near.presence(channel).enter()
            await far.presence(channel).enter()
            for number in range(3):
                await far.send(channel, str(near.client_id), number)
                assert (await anext(signals)).data == number
            proxy.forbidden = {"/v1/"}
            proxy.cut()
            await until(near, lambda state: state.name == "disconnected")
            await far.send(channel, str(near.client_id), "while away")
            proxy.forbidden = set()
            assert (await anext(signals)).data == "while away"
            await far.send(channel, str(near.client_id), "after")
            assert (await anext(signals)).data == "after"

    run(test)


@every
def test_who_enters_offline_is_there_as_soon_as_there_is_a_connection(
    server: Server, channel: str, name: TransportName
) -> None:
    async def test() -> None:
        async with Proxy(server.port) as proxy:
            proxy.forbidden = {"/v1/"}
            async with client_over(proxy, [name]) as client:
                await until(client, lambda state: state.name == "disconnected")
                entering = asyncio.create_task(client.presence(channel).enter("here"))
                await asyncio.sleep(0)
                proxy.forbidden = set()
                await entering
                assert names(client.presence(channel)) == ["here"]

    run(test)


def test_presence_can_be_closed_without_a_connection() -> None:
    async def test() -> None:
        async with World() as world:
            world.server.is_down = True
            room = world.client.presence("a")
            entering = asyncio.create_task(room.enter())
            await asyncio.sleep(1)
            entering.cancel()
            await room.aclose()
            await room.aclose()
            assert [event async for event in room] == []

    virtual_time.run(test)


@every
def test_presence_that_is_forbidden_says_so_and_messages_come_all_the_same(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:

            def answer(what: str, fields: dict[str, Any]) -> Any:
                if what.endswith("presence"):
                    return {"type": "error", "code": "forbidden"} if "ws" in what else problem(403, "forbidden")
                return None

            world.server.answer = answer
            had = world.collect("a")
            with pytest.raises(Forbidden):
                await world.client.presence("a").enter()
            assert not world.client.presence("a").is_in
            world.server.publish("a", 1)
            await asyncio.sleep(3)
            assert had == [1]

    virtual_time.run(test)


def test_listener_that_fails_stops_nothing() -> None:
    seen: list[Any] = []

    async def test() -> None:
        async with World() as world:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))
            world.client.on_state(lambda state: seen.append(1 / 0))
            had = world.collect("a")
            await asyncio.sleep(1)
            world.server.publish("a", 1)
            await asyncio.sleep(1)
            assert had == [1]

    virtual_time.run(test)
    assert {type(each) for each in seen} == {ZeroDivisionError}


@pytest.mark.parametrize("name", ORDER[1:])
def test_what_is_said_from_the_entry_on_is_not_missed_whatever_else_is_read_meanwhile(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            server, told = world.server, asyncio.Event()
            since: list[str | None] = []

            def answer(what: str, fields: dict[str, Any]) -> Any:
                if what == "POST /v1/presence":
                    return later(told, lambda: there(server))
                if fields.get("query", {}).get("presence") == "enter":
                    since.append(fields["query"].get("since"))
                return None

            server.answer = answer
            had = world.collect("other")
            await asyncio.sleep(1)
            entering = asyncio.create_task(world.client.presence("a").enter())
            await asyncio.sleep(1)
            before = server.log.cursor
            server.publish("other", 1)
            await asyncio.sleep(5)
            assert had == [1]
            told.set()
            await entering
            await asyncio.sleep(1)
            assert since[0] == before

    virtual_time.run(test)


@pytest.mark.parametrize("name", ["longpoll", "poll"])
def test_what_is_said_in_one_channel_is_not_missed_while_another_is_entered(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            server, looked, read = world.server, asyncio.Event(), asyncio.Event()
            signal = {"type": "signal", "channel": "b", "from": "X", "event": "message", "data": "psst", "seq": 1}

            def answer(what: str, fields: dict[str, Any]) -> Any:
                query = fields.get("query", {})
                if what == "GET /v1/presence" and query.get("channel") == "a":
                    return later(looked, lambda: there(server))
                if what.endswith("/v1/presence"):
                    return there(server)
                is_first = query.get("presence") == "enter" and query["since"].endswith(".0")
                return later(read, lambda: page(server, signal)) if is_first else None

            server.answer = answer
            signals = world.client.signals()
            entering = asyncio.create_task(world.client.presence("a").enter())
            await world.client.presence("b").enter()
            await asyncio.sleep(1)
            server.publish("b", "what is said has a place of its own")
            looked.set()
            await entering
            read.set()
            async with asyncio.timeout(60):
                assert (await anext(signals)).data == "psst"

    virtual_time.run(test)


@pytest.mark.parametrize("name", ORDER[1:])
def test_who_comes_into_a_channel_is_not_missed_while_it_is_about_to_be_watched(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            server, begun = world.server, asyncio.Event()
            since: list[str | None] = []

            def answer(what: str, fields: dict[str, Any]) -> Any:
                query = fields["query"]
                if what == "GET /v1/presence":
                    return there(server)
                if query.get_list("channel") == ["b"]:  # where the reading of it begins is told late
                    return later(begun, lambda: page(server))
                if "b" in query.get_list("channel"):
                    since.append(query.get("since"))
                return None

            server.answer = answer
            async with world.client.presence("a"):
                had = world.collect("a")
                await asyncio.sleep(5)
                async with world.client.presence("b"):
                    world.collect("b")
                    await settle()
                    before = server.log.cursor
                    server.publish("a", 1)
                    await asyncio.sleep(5)
                    begun.set()
                    await asyncio.sleep(5)
                    assert had == [1]
                    assert since[0] == before

    virtual_time.run(test)


@pytest.mark.parametrize("name", ORDER)
def test_who_leaves_while_it_still_comes_in_is_out(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            server, told = world.server, asyncio.Event()
            asked: list[bool] = []

            def answer(what: str, fields: dict[str, Any]) -> Any:
                wish = fields.get("body") or fields
                if what.endswith("presence") and "enter" in wish:
                    asked.append(wish["enter"])
                    return None if "ws" in what else later(told, lambda: there(server))
                return None

            server.answer = answer
            room = world.client.presence("a")
            await room.ready()
            async with asyncio.TaskGroup() as group:
                group.create_task(room.enter())
                await settle()
                group.create_task(room.leave())
                await settle()
                if name != "websocket":
                    assert asked == [True]
                told.set()
            assert asked == [True, False]

    virtual_time.run(test)


def there(server: FakeServer) -> httpx.Response:
    """Answer that nobody is there."""
    return httpx.Response(200, json={"channel": "a", "client": "c1", "members": [], "cursor": server.log.cursor})


def page(server: FakeServer, *messages: dict[str, Any]) -> httpx.Response:
    """Answer a poll."""
    return httpx.Response(200, json={"messages": messages, "cursor": server.log.cursor, "gap": None})


async def later(let: asyncio.Event, answer: Callable[[], httpx.Response]) -> httpx.Response:
    """Answer, as things are then, once it is let."""
    await let.wait()
    return answer()
