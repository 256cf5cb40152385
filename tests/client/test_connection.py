"""Which transport is tried when, and what becomes of a client that loses it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest

from tellwire.client import Client, ConnectionLost, Settings, TransportName, connect
from tellwire.client.messages import ORDER
from tellwire.errors import Forbidden, TellwireError, Unauthorized
from tests.client.fake_server import Block, FakeServer, FakeSocket, FakeStream, problem
from tests.client.virtual_time import run
from tests.client.world import World, settle

every = pytest.mark.parametrize("name", ORDER)


@pytest.mark.parametrize(
    ("blocked", "expected"),
    [
        ({}, "websocket"),
        ({"websocket": "refuse"}, "sse"),
        ({"websocket": "hang"}, "sse"),
        ({"websocket": "refuse", "sse": "buffer"}, "longpoll"),
        ({"websocket": "refuse", "sse": "hang"}, "longpoll"),
    ],
)
def test_next_transport_is_tried_within_the_deadline(blocked: dict[str, Block], expected: str) -> None:
    async def test() -> None:
        async with World() as world:
            world.server.blocked = blocked
            had = world.collect("a")
            await asyncio.sleep(len(blocked) * 5 + 0.1)
            assert world.client.state.transport == expected
            world.server.publish("a", 1)
            await settle()
            assert had == [1]

    run(test)


def test_transport_that_ends_as_soon_as_it_has_begun_is_left_for_the_next() -> None:
    async def test() -> None:
        async with World() as world:
            world.server.blocked = {"websocket": "refuse", "sse": "refuse", "longpoll": "refuse"}
            had = world.collect("a")
            # A long poll begins with one that does not wait.
            world.server.blocked = {"websocket": "refuse", "sse": "refuse", "longpoll": "refuse"}
            await asyncio.sleep(8)
            assert world.client.state.transport == "poll"
            world.server.publish("a", 1)
            await asyncio.sleep(2.1)
            assert had == [1]

    run(test)


def test_better_transport_is_tried_later_and_later_and_taken_over_to_without_a_break() -> None:
    async def test() -> None:
        async with World(upgrade_after_s=10.0) as world:
            server = world.server
            server.blocked = {"websocket": "refuse", "sse": "refuse"}
            had = world.collect("a")
            await settle()
            assert world.client.state.transport == "longpoll"
            assert server.heard.count("ws") == 1
            await asyncio.sleep(10)
            assert server.heard.count("ws") == 2
            await asyncio.sleep(19)
            assert server.heard.count("ws") == 2
            server.blocked = {"websocket": "refuse"}
            await asyncio.sleep(1.1)
            assert str(world.client.state.transport) == "sse"
            server.blocked = {}
            server.publish("a", 1)
            await asyncio.sleep(40)
            assert str(world.client.state.transport) == "websocket"
            server.publish("a", 2)
            await settle()
            assert had == [1, 2]
            assert [state.name for state in world.states] == ["connecting", *["connected"] * 3]
            assert len(server.connections) == 1

    run(test)


def test_what_worked_is_tried_first_the_next_time() -> None:
    async def test() -> None:
        async with World() as world:
            world.server.blocked = {"websocket": "refuse"}
            world.collect("a")
            await asyncio.sleep(3)
            world.server.heard.clear()
            world.server.cut()
            await asyncio.sleep(1.5)
            assert world.client.state.transport == "sse"
            assert "ws" not in world.server.heard

    run(test)


def test_waits_are_those_of_the_schedule_and_begin_anew_after_one_that_worked() -> None:
    async def test() -> None:
        async with World(("websocket",), chance=lambda: 0.5) as world:
            await asyncio.sleep(5)
            world.server.is_down = True
            world.server.cut()
            await asyncio.sleep(400)
            assert world.waits[:8] == [1.25, 2.25, 4.25, 8.25, 16.25, 32.25, 60.25, 60.25]
            world.server.is_down = False
            await asyncio.sleep(61)
            assert world.client.state.name == "connected"
            await asyncio.sleep(5)
            world.server.cut()
            await settle()
            assert world.waits[-1] == 1.25

    run(test)


def test_thousand_clients_that_lose_their_server_at_once_come_back_spread_out() -> None:
    async def test() -> None:
        server = FakeServer()
        chance = random.Random(1)
        clients: list[Client] = [
            connect(
                "http://crowd",
                transports=("websocket",),
                settings=Settings(chance=chance.random),
                http_transport=server,
                open_socket=server.open_socket,
            )
            for _ in range(1000)
        ]
        for client in clients:
            await client.__aenter__()
        await asyncio.sleep(5)
        assert len(server.connections) == 1000
        server.cut()
        await asyncio.sleep(0.999)
        assert not server.connections
        histogram = []
        for slot in range(10):
            before = len(server.connections)
            await asyncio.sleep(0.05 + (0.002 if slot == 0 else 0))
            histogram.append(len(server.connections) - before)
        assert len(server.connections) == 1000
        assert all(60 < count < 140 for count in histogram), histogram
        for client in clients:
            await client.aclose()

    run(test)


def test_server_says_when_to_come_back() -> None:
    async def test() -> None:
        async with World(("websocket",)) as world:
            await settle()
            for connection in list(world.server.connections):
                assert isinstance(connection, FakeSocket)
                connection.close(1012, "going", reconnect_in_ms=70)
            await settle()
            assert world.waits == [0.07]
            assert world.states[-1].error is not None
            assert world.states[-1].error.code == "draining"
            await asyncio.sleep(0.071)
            assert world.client.state.name == "connected"
        async with World(("sse",)) as world:
            world.collect("a")
            await settle()
            world.server.cut()
            await settle()
            assert world.waits == [1.0]
            await asyncio.sleep(1)
            for connection in list(world.server.connections):
                assert isinstance(connection, FakeStream)
                connection.close(1012, "going", reconnect_in_ms=5)
            await settle()
            assert world.waits == [1.0, 0.005]
        async with World(("sse", "longpoll")) as world:
            world.server.answer = lambda what, fields: problem(429, "rate_limited", Retry_After="7")
            world.collect("a")
            await settle()
            assert world.waits == [7.0]
            # A server that is busy is not asked over another transport as well.
            assert len(world.server.heard) == 1

    run(test)


@pytest.mark.parametrize(("name", "limit_s"), [("websocket", 62.5), ("sse", 62.5), ("longpoll", 30)])
def test_server_that_falls_silent_is_given_up_after_two_and_a_half_heartbeats(
    name: TransportName, limit_s: float
) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            had = world.collect("a")
            await asyncio.sleep(60)  # two heartbeats
            world.server.black_hole()
            world.server.publish("a", "while it was away")
            await asyncio.sleep(limit_s + 0.1)
            assert world.client.state.name != "connected"
            world.server.is_silent = False
            await asyncio.sleep(120)
            assert had == ["while it was away"]

    run(test)


@every
def test_quiet_server_with_heartbeats_is_not_given_up(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            world.collect("a")
            await settle()
            world.states.clear()
            await asyncio.sleep(3600)
            assert world.states == []

    run(test)


@pytest.mark.parametrize(
    ("transports", "made", "error"),
    [
        (("websocket", "sse"), lambda what: 4500 if what == "ws connect" else None, Unauthorized),
        (("websocket", "sse"), lambda what: 4502 if what == "ws connect" else None, Unauthorized),
        (("websocket", "sse"), lambda what: {"type": "error", "code": "revoked"}, Unauthorized),
        (("sse", "longpoll"), lambda what: problem(401, "unauthorized"), Unauthorized),
        (("longpoll", "poll"), lambda what: problem(403, "forbidden_origin"), Forbidden),
        (("poll",), lambda what: httpx.Response(401, text="<html>"), Unauthorized),
    ],
)
def test_wrong_credentials_are_the_end_at_once(transports: Any, made: Any, error: type[TellwireError]) -> None:
    async def test() -> None:
        async with World(transports, token="t") as world:
            client = world.client
            world.server.answer = lambda what, fields: made(what)
            world.collect("a")
            room = client.presence("a")
            waiting = [asyncio.create_task(work) for work in (client.publish("a", 1), room.enter(), client.connected())]
            await asyncio.sleep(100)
            assert client.state.name == "failed"
            for each in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(each, error)
            assert isinstance(world.errors["a"], error)
            for work in (client.publish("a", 2), client.history("a"), client.call("m"), room.enter(), anext(room)):
                with pytest.raises(error):
                    await work
            assert len(world.server.heard) <= 2

    run(test)


@every
@pytest.mark.parametrize("since", [None, "earliest", "aaaa.0"])
def test_channel_that_is_forbidden_ends_its_reading_and_the_others_go_on(
    name: TransportName, since: str | None
) -> None:
    async def test() -> None:
        async with World((name,)) as world:

            def answer(what: str, fields: dict[str, Any]) -> Any:
                query = fields.get("query")
                channels = query.get_list("channel") if query is not None else [fields.get("channel")]
                if "secret" not in channels:
                    return None
                return {"type": "error", "code": "forbidden"} if what.startswith("ws") else problem(403, "forbidden")

            world.server.answer = answer
            for channel in ("a", "secret", "b"):
                world.collect(channel, since=since)
            await asyncio.sleep(5)
            assert {channel: type(error) for channel, error in world.errors.items()} == {"secret": Forbidden}
            assert world.client.state.name == "connected"
            world.server.publish("a", 1)
            world.server.publish("b", 2)
            await asyncio.sleep(3)
            assert world.had == {"a": [1], "secret": [], "b": [2]}

    run(test)


@every
def test_token_that_has_expired_is_asked_for_again_and_the_client_is_back_at_once(name: TransportName) -> None:
    async def test() -> None:
        made = 0

        async def token() -> str:
            nonlocal made
            made += 1
            return f"token-{made}"

        async with World((name,), token=token) as world:
            server = world.server
            good = "token-1"

            def answer(what: str, fields: dict[str, Any]) -> Any:
                if what == "ws connect":
                    return None if fields["token"] == good else 4002
                if what.startswith("ws"):
                    return None
                return None if fields["headers"]["Authorization"] == f"Bearer {good}" else problem(401, "expired")

            server.answer = answer
            had = world.collect("a")
            await asyncio.sleep(3)
            good = "token-2"
            server.publish("a", 1)
            for connection in list(server.connections):
                if isinstance(connection, FakeSocket | FakeStream):
                    connection.close(4002, "expired")
            await asyncio.sleep(3)
            server.publish("a", 2)
            await asyncio.sleep(3)
            assert (had, made, world.client.state.name) == ([1, 2], 2, "connected")
            # Where the fresh one is not good either, the server is not asked in circles.
            good = "none"
            server.heard.clear()
            server.cut()
            await asyncio.sleep(30)
            assert len(server.heard) < 60

    run(test)


@every
def test_token_given_as_text_that_has_expired_is_the_end(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,), token="old") as world:
            world.server.answer = lambda what, fields: 4002 if what.startswith("ws") else problem(401, "expired")
            world.collect("a")
            await settle()
            assert world.client.state.name == "failed"
            assert "as a function" in str(world.client.state.error)

    run(test)


def test_token_is_refreshed_in_band_shortly_before_it_is_over() -> None:
    async def test() -> None:
        made = 0

        def token() -> str:
            nonlocal made
            made += 1
            return f"token-{made}"

        async with World(("websocket",), token=token) as world:
            refreshed = []

            def answer(what: str, fields: dict[str, Any]) -> Any:
                if what == "ws connect":
                    return {"type": "connected", "epoch": "aaaa", "cursor": "aaaa.0", "expires_in_ms": 60_000}
                if what == "ws refresh":
                    refreshed.append(fields["token"])
                    return {"type": "refreshed", "expires_in_ms": 60_000}
                return None

            world.server.answer = answer
            await asyncio.sleep(44.9)
            assert refreshed == []
            await asyncio.sleep(0.2)
            assert refreshed == ["token-2"]
            await asyncio.sleep(45)
            assert refreshed == ["token-2", "token-3"]
            assert [state.name for state in world.states] == ["connecting", "connected"]

    run(test)


@every
def test_who_cannot_get_a_token_tries_again(name: TransportName) -> None:
    async def test() -> None:
        fails = 2

        def token() -> str:
            nonlocal fails
            fails -= 1
            if fails >= 0:
                raise RuntimeError("the login server is away")
            return "t"

        async with World((name,), token=token) as world:
            world.collect("a")
            await settle()
            assert isinstance(world.states[-1].error, ConnectionLost)
            assert "the login server is away" in str(world.states[-1].error)
            await asyncio.sleep(4)
            assert world.client.state.name == "connected"

    run(test)


def test_thousand_rounds_of_connecting_and_closing_leave_nothing_behind() -> None:
    async def test() -> None:
        server = FakeServer()
        for number in range(1000):
            client = connect(
                "http://rounds",
                transports=(ORDER[number % 4],),
                http_transport=server,
                open_socket=server.open_socket,
            )
            async with client:
                client.subscribe("a")
                publishing = asyncio.create_task(client.publish("a", number))
                client.presence("a")
                # Closed at another moment each time.
                for _ in range(number % 23):
                    await asyncio.sleep(0)
            await asyncio.gather(publishing, return_exceptions=True)
            assert not server.connections

    run(test)


def test_better_transport_that_turns_out_to_be_none_is_left_at_once() -> None:
    async def test() -> None:
        async with World(("longpoll", "poll"), upgrade_after_s=10.0) as world:
            world.server.blocked = {"longpoll": "refuse"}
            had = world.collect("a")
            await asyncio.sleep(5)
            assert world.client.state.transport == "poll"
            world.states.clear()
            # Its first request is answered, as that does not wait.
            await asyncio.sleep(100)
            assert set(world.waits) == {0.0}
            assert len(world.waits) == 3  # after 10, 20, 40 seconds
            assert str(world.client.state.transport) == "poll"
            world.server.publish("a", 1)
            await asyncio.sleep(2.1)
            assert had == [1]

    run(test)
