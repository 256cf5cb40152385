"""A cluster of three NATS servers that lose one: what was acknowledged is there, and everybody is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nats
import pytest

from tellwire.brokers.nats import NatsBroker
from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import Conflict, Unavailable
from tellwire.message import Appended, Draft
from tellwire.presence.nats import NatsPresence
from tellwire.testing.harness import Collected, on_loop, opened, placed, read_to_head
from tellwire.testing.members import member
from tellwire.testing.members import opened as opened_presence
from tests.nats_servers import NatsServer, nats_cluster, nats_server, needs_nats
from tests.publishers import CHANNELS, Publishers, check, insist, told

pytestmark = needs_nats

LOG = "tellwire-log"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[NatsServer]]:
    with nats_cluster(tmp_path) as servers:
        yield servers


def url_of(servers: list[NatsServer]) -> str:
    return "nats://" + ",".join(f"127.0.0.1:{server.port}" for server in servers) + "?replicas=3&timeout=30"


async def leader_of(servers: list[NatsServer], stream: str) -> NatsServer:
    """Find the server that leads a stream, from one that is there."""
    client = await nats.connect([server.url for server in servers])
    try:
        info = await client.jetstream().stream_info(stream)
    finally:
        await client.close()
    assert info.cluster is not None
    assert info.cluster.leader is not None
    return servers[int(info.cluster.leader[1:])]


@on_loop
async def test_nats_leader_killed_loses_nothing(cluster: list[NatsServer]) -> None:
    one, two = (NatsBroker(NatsPlace.parse(url_of(cluster))) for _ in range(2))
    async with opened(one, *CHANNELS) as first, opened(two, *CHANNELS) as second:
        publishers = Publishers([first, second], 40)
        await publishers.until(0.3)
        if cluster[0].version < (2, 10):
            # It loses now and then what its leader is about to acknowledge when it is killed, or lets its replicas
            # differ in that; nothing that is done here could mend it.
            await publishers.hold()
        leader = await leader_of(cluster, LOG)
        leader.kill()
        publishers.go_on()
        await publishers.until(0.6)
        await asyncio.to_thread(leader.start, "/varz")
        await check([first, second], publishers)
        assert publishers.twice == 0, "what was sent again knew itself"


@on_loop
async def test_nats_cluster_lets_one_of_many_in(cluster: list[NatsServer]) -> None:
    """A cluster of 2.9 looks at conditions before messages have their places."""
    one, two = (NatsBroker(NatsPlace.parse(url_of(cluster))) for _ in range(2))
    async with opened(one, "a") as (_, one_feed), opened(two, "a") as (_, two_feed):
        start = placed(await one.append(Draft("a", b"0")))
        for turn in range(10):
            await two.read(["a"], start, 1)
            drafts = [Draft("a", b"%d" % turn, expect=start, id=f"{turn}-{number}") for number in range(10)]
            both = [node.append(draft) for draft in drafts for node in (one, two)]
            answers = await asyncio.gather(*both, return_exceptions=True)
            won = [answer for answer in answers if isinstance(answer, Appended)]
            lost = [answer for answer in answers if isinstance(answer, Conflict)]
            assert len({answer.position for answer in won}) == 1
            assert [answer.duplicate for answer in won].count(False) == 1
            assert len(won) + len(lost) == 20
            start = placed(won[0])
            assert {conflict.head for conflict in lost} == {start}
        await two.read(["a"], start, 1)
        assert [message.data for message in told(one_feed)] == [b"0", *(b"%d" % turn for turn in range(10))]
        assert told(one_feed) == told(two_feed)
        async with opened(NatsBroker(NatsPlace.parse(url_of(cluster)))) as (three, _):
            assert (await read_to_head(three, ["a"])).messages == told(one_feed)


@on_loop
async def test_nats_presence_outlives_the_leader(cluster: list[NatsServer]) -> None:
    place = NatsPlace.parse(url_of(cluster))
    async with opened_presence(NatsPresence(place)) as one, opened_presence(NatsPresence(place), "n2") as two:
        entered = [member("room", f"c{number}", since=number) for number in range(40)]
        await asyncio.gather(*map(one.enter, entered[:20]))
        (await leader_of(cluster, "KV_tellwire-presence")).kill()
        # A new leader may take longer than the timeout.
        await asyncio.gather(*(insist(partial(one.enter, each)) for each in entered[20:]))
        assert await one.beat() is True, "nothing was lost"
        assert await insist(lambda: two.members("room", 100)) == await one.members("room", 100)
        leaves = [presence.leave("room", each.client) for each in entered for presence in (one, two)]
        gone = [left for left in await asyncio.gather(*leaves) if left is not None]
        assert sorted(gone, key=lambda each: each.since) == entered


@on_loop
async def test_nats_replicas_without_a_cluster_are_refused(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        broker = NatsBroker(NatsPlace.parse(f"{server.url}?replicas=3"))
        with pytest.raises(Unavailable, match="replicas"):
            await broker.open(Collected())
        await broker.aclose()
