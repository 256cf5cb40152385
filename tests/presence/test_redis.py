"""Presence in Redis: the contract, and what is its own: nodes that share it, lost connections."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import Unavailable
from tellwire.presence import make_presence as make_presence_of
from tellwire.presence.base import Counts, Presence
from tellwire.presence.redis import RedisPresence
from tellwire.testing.harness import on_loop
from tellwire.testing.members import MakePresence, PresenceContract, member, opened
from tellwire.testing.members_left import LastingPresenceContract, SharedPresenceContract
from tellwire.testing.members_model import PresenceModelContract
from tests.publishers import insist
from tests.redis_servers import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

_stores = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


class TestRedisPresence(PresenceContract, LastingPresenceContract, SharedPresenceContract, PresenceModelContract):
    """The contract."""

    nodes_at_once = 3

    @pytest.fixture
    def make_presence(self, server: RedisServer) -> MakePresence:
        test = next(_stores)

        def make(*, clock: Callable[[], int] | None = None, store: str = "main") -> Presence:
            place = RedisPlace.parse(f"{server.url}?prefix=store-{test}-{store.replace(' ', '-')}")
            return RedisPresence(place, clock=clock)

        return make


def test_redis_presence_lies_beside_the_log() -> None:
    presence = make_presence_of("redis://127.0.0.1:1/3?prefix=mine")
    assert isinstance(presence, RedisPresence)
    assert (presence.place.db, presence.place.prefix) == (3, "mine")


@on_loop
async def test_redis_presence_hands_members_out_once_over_cut_connections(server: RedisServer) -> None:
    place = RedisPlace.parse(f"{server.url}?prefix=cut&timeout=20")
    async with opened(RedisPresence(place)) as one, opened(RedisPresence(place), "n2") as two:
        entered = [member(f"room{number % 5}", f"c{number}", f"u{number % 7}", since=number) for number in range(500)]
        for half in (entered[:250], entered[250:]):
            enters = [asyncio.ensure_future(one.enter(each)) for each in half]
            await enters[20]
            await asyncio.to_thread(server.command, "CLIENT KILL TYPE normal")
            assert await asyncio.gather(*enters) == [None] * 250, "what is sent again is not its own predecessor"
        leaves = [asyncio.ensure_future(each.leave(m.channel, m.client)) for m in entered for each in (one, two)]
        for at in (50, 400, 900):
            await leaves[at]
            await asyncio.to_thread(server.command, "CLIENT KILL TYPE normal")
        gone = [left for left in await asyncio.gather(*leaves) if left is not None]
        assert sorted(gone, key=lambda each: each.since) == entered
        assert [await one.count(f"room{number}") for number in range(5)] == [Counts(0, 0)] * 5


@on_loop
async def test_redis_presence_standing_still_changes_nothing_later(server: RedisServer) -> None:
    still, patient = (RedisPlace.parse(f"{server.url}?prefix=still&timeout={seconds}") for seconds in (0.5, 20))
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(opened(RedisPresence(patient), "n2"))
        presence = await insist(lambda: stack.enter_async_context(opened(RedisPresence(still))))
        await insist(lambda: presence.enter(member("room", "c1")))
        server.pause()
        try:
            with pytest.raises(Unavailable):
                await presence.leave("room", "c1")
            with pytest.raises(Unavailable):
                await presence.enter(member("room", "c2"))
        finally:
            server.go_on()
        found = await insist(lambda: presence.members("room", 10))
        assert [each.client for each in found] == ["c1"]
        assert await other.leave("room", "c1") is not None
