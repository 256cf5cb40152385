"""Data channels of several nodes on one log: ``DELETE`` ends a connection wherever it is asked (spec, section 17.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psutil
import pytest

from tests.guarded import SECRET, bearer, someone, token
from tests.redis_servers import RedisServer, needs_redis, redis_server
from tests.rtc.conftest import RTC
from tests.rtc.peers import Peer, run
from tests.serving import Server
from tests.wires import Http, Response

pytestmark = needs_redis


class Nodes(NamedTuple):
    """Where peers are, and another node, with their Redis."""

    one: Server
    two: Server
    redis: RedisServer


def start(redis: RedisServer, start_server: Callable[..., Server] = Server, *, node_lease_s: float) -> Server:
    return start_server(
        rtc={**RTC, "rtc_offers_per_caller_s": 5.0, "rtc_offers_per_s": 50.0},
        server={"broker": redis.url},
        auth={"token_key": SECRET},
        limits={"drain_s": 0.1, "node_lease_s": node_lease_s},
    )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        # The first one is not taken for dead while it stands still; the second one looks often who is.
        one, two = start(redis, node_lease_s=30.0), start(redis, node_lease_s=1.5)
        yield Nodes(one, two, redis)
        one.close()
        two.close()


def end(server: Server, location: str, user: str) -> Response:
    """End a connection for a user."""
    with Http(server) as http:
        return http.request("DELETE", location, headers=[bearer(token(user))])


async def end_aside(server: Server, location: str, user: str) -> Any:
    """End a connection while this loop goes on; return 200, or the code that it was refused with."""
    answer = await asyncio.to_thread(end, server, location, user)
    return answer.json().get("code", answer.status)


LATER = ("unavailable", "rate_limited")
"""To be asked again: a node has two seconds to answer another."""


async def end_in_the_end(server: Server, location: str, user: str) -> tuple[Any, bool]:
    """End a connection as `end_aside` does, until there is an answer; tell also whether one came too late before."""
    is_late = False
    while (said := await end_aside(server, location, user)) in LATER:
        is_late |= said == "unavailable"
    return said, is_late


async def refusal(server: Server, location: str, user: str) -> Any:
    """End a connection; return 200, or the code that it was refused with."""
    said, _ = await end_in_the_end(server, location, user)
    return said


async def is_ended(server: Server, location: str, user: str) -> bool:
    """End a connection; tell whether that did it. It is not found, either, where an answer came too late before."""
    said, is_late = await end_in_the_end(server, location, user)
    return bool(said == 200 or (is_late and said == "not_found"))


def test_any_node_ends_it_for_its_user_only(nodes: Nodes) -> None:
    ann = someone()

    async def test() -> None:
        async with Peer(nodes.one, token=token(ann)) as peer:
            await peer.ask(type="connect")
            assert await refusal(nodes.two, peer.location, someone()) == "not_found"
            secret, _, node = peer.location.removeprefix("/v1/rtc/").partition(".")
            other = secret[:-1] + ("a" if secret[-1] != "a" else "b")
            for wrong in (f"{other}.{node}", f"{secret}.{node[::-1]}", f"{secret}.{node}x", secret, f"{secret}.", "x"):
                assert await refusal(nodes.two, f"/v1/rtc/{wrong}", ann) == "not_found", wrong
            assert (await peer.ask(type="ping"))["type"] == "pong"
            assert await is_ended(nodes.two, peer.location, ann)
            assert await refusal(nodes.two, peer.location, ann) == "not_found"
            assert await refusal(nodes.one, peer.location, ann) == "not_found"
            closing = await peer.read_closing()
            assert (closing["type"], closing["code"]) == ("closing", 1000)

    run(test())


@pytest.mark.parametrize("is_open", [True, False])
def test_of_those_who_end_it_at_once_one_does(nodes: Nodes, is_open: bool) -> None:
    ann = someone()

    async def test() -> None:
        peer = Peer(nodes.one, token=token(ann))
        assert (await peer.offer()).status_code == 201
        if is_open:
            await peer.opened()
            await peer.ask(type="connect")
        every = [end_in_the_end(each, peer.location, ann) for each in (*nodes[:2], *nodes[:2])]
        told = await asyncio.gather(*every)
        ends = [said for said, _ in told if said != "not_found"]
        assert ends == [200] or (ends == [] and any(is_late for _, is_late in told)), told
        await peer.connection.close()

    run(test())


def test_one_user_cannot_have_the_others_ask_without_end(nodes: Nodes) -> None:
    ann, bob = someone(), someone()

    async def test() -> None:
        async with Peer(nodes.one, token=token(ann)) as peer:
            await peer.ask(type="connect")
            with Http(nodes.two) as http:
                mallory = [bearer(token(someone()))]
                refused = 0
                while refused < 100:
                    answer = http.request("DELETE", peer.location, headers=mallory)
                    refused += answer.status == 429
                    assert answer.status in (404, 429, 503)
                assert answer.headers["retry-after"] == "1"
            assert await refusal(nodes.two, peer.location, bob) == "not_found", "they are counted apart"
            assert await is_ended(nodes.two, peer.location, ann)

    run(test())


def test_node_that_holds_it_needs_no_broker(nodes: Nodes) -> None:
    ann = someone()

    async def test() -> None:
        async with Peer(nodes.one, token=token(ann)) as peer, Peer(nodes.one, token=token(ann)) as other:
            for each in (peer, other):
                await each.ask(type="connect")
            nodes.redis.pause()
            try:
                assert await end_aside(nodes.two, peer.location, ann) == "unavailable"
                assert await end_aside(nodes.one, other.location, ann) == 200
            finally:
                nodes.redis.go_on()
            assert (await other.read_closing())["code"] == 1000
            assert await refusal(nodes.two, peer.location, ann) in (200, "not_found")
            assert (await peer.read_closing())["code"] == 1000

    run(test())


def test_node_that_says_nothing_is_gone_only_when_its_lease_is_over(
    nodes: Nodes, start_server: Callable[..., Server]
) -> None:
    ann = someone()
    killed = start(nodes.redis, start_server, node_lease_s=1.0)
    stopped = psutil.Process(nodes.one.pid)

    async def test() -> None:
        async with Peer(nodes.one, token=token(ann)) as peer, Peer(killed, token=token(ann)) as lost:
            for each in (peer, lost):
                await each.ask(type="connect")
            killed.kill()
            stopped.suspend()
            try:
                assert await end_aside(nodes.two, peer.location, ann) == "unavailable"
            finally:
                stopped.resume()
            assert (await peer.read_closing())["code"] == 1000, "it did what it was asked, once it could"
            assert await refusal(nodes.two, lost.location, ann) == "not_found"

    run(test())
