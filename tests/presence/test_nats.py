"""Presence in NATS: the contract, and what is its own: nodes that share it, lost connections."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing

import nats
import pytest

from tellwire.brokers.nats_url import NatsPlace
from tellwire.presence import make_presence as make_presence_of
from tellwire.presence.base import Counts, Presence
from tellwire.presence.nats import NatsPresence
from tellwire.testing.harness import on_loop
from tellwire.testing.members import MakePresence, PresenceContract, member, opened
from tellwire.testing.members_left import LastingPresenceContract, SharedPresenceContract
from tellwire.testing.members_model import PresenceModelContract
from tests.nats_servers import IN_THE_WAY, OVERRUN, SAME_ID, FeedCable, NatsServer, nats_server, needs_nats
from tests.redis_servers import Cable

pytestmark = needs_nats

_stores = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


class TestNatsPresence(PresenceContract, LastingPresenceContract, SharedPresenceContract, PresenceModelContract):
    """The contract."""

    nodes_at_once = 3

    @pytest.fixture
    def make_presence(self, server: NatsServer) -> MakePresence:
        test = next(_stores)

        def make(*, clock: Callable[[], int] | None = None, store: str = "main") -> Presence:
            place = NatsPlace.parse(f"{server.url}?prefix=store-{test}-{store.replace(' ', '-')}")
            return NatsPresence(place, clock=clock)

        return make


def test_nats_presence_lies_beside_the_log() -> None:
    presence = make_presence_of("nats://127.0.0.1:1?prefix=mine")
    assert isinstance(presence, NatsPresence)
    assert presence.place.prefix == "mine"


@on_loop
async def test_nats_presence_hands_members_out_once_over_cut_connections(server: NatsServer) -> None:
    with closing(Cable(server)) as cable:
        place = NatsPlace.parse(f"nats://127.0.0.1:{cable.port}?prefix=cut&timeout=20")
        async with opened(NatsPresence(place)) as one, opened(NatsPresence(place), "n2") as two:
            entered = [
                member(f"room{number % 5}", f"c{number}", f"u{number % 7}", since=number) for number in range(200)
            ]
            enters = [asyncio.ensure_future(one.enter(each)) for each in entered]
            await enters[20]
            cable.cut()
            cable.mend()
            assert await asyncio.gather(*enters) == [None] * 200, "what is sent again is not its own predecessor"
            leaves = [asyncio.ensure_future(each.leave(m.channel, m.client)) for m in entered for each in (one, two)]
            await leaves[50]
            cable.cut()
            cable.mend()
            gone = [left for left in await asyncio.gather(*leaves) if left is not None]
            assert sorted(gone, key=lambda each: each.since) == entered
            assert [await one.count(f"room{number}") for number in range(5)] == [Counts(0, 0)] * 5


@on_loop
async def test_nats_presence_that_is_refused_for_the_moment_asks_again(server: NatsServer) -> None:
    with closing(FeedCable(server)) as cable:
        place = NatsPlace.parse(f"nats://127.0.0.1:{cable.port}?prefix=refused&timeout=20")
        async with opened(NatsPresence(place)) as one, opened(NatsPresence(place), "n2") as two:
            cable.refusals = iter([OVERRUN, *[IN_THE_WAY, SAME_ID] * 2])
            entered = [member("room", f"c{number}", since=number) for number in range(5)]
            assert await asyncio.gather(*map(one.enter, entered)) == [None] * 5
            assert sorted(await two.members("room", 10), key=lambda each: each.since) == entered
            cable.refusals = iter([IN_THE_WAY] * 5)
            leaves = [each.leave("room", left.client) for left in entered for each in (one, two)]
            gone = [left for left in await asyncio.gather(*leaves) if left is not None]
            assert sorted(gone, key=lambda each: each.since) == entered


@on_loop
async def test_nats_presence_of_a_bucket_that_was_lost_is_entered_again(server: NatsServer) -> None:
    async with opened(NatsPresence(NatsPlace.parse(f"{server.url}?prefix=lost"))) as presence:
        await presence.enter(member("room", "c1"))
        assert await presence.beat() is True
        client = await nats.connect(server.url)
        await client.jetstream().delete_key_value("lost-presence")
        await client.close()
        assert await presence.find("room", "c1") is None
        assert await presence.beat() is False
        await presence.enter(member("room", "c1"))
        assert await presence.beat() is True
