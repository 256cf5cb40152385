"""The Redis broker in several shards: the contract over one server and a real Cluster, and what shards add to it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tellwire.brokers import make_broker as broker_of
from tellwire.brokers.base import Broker
from tellwire.brokers.redis_shards import RedisShards
from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import Unavailable
from tellwire.message import Draft, Position
from tellwire.names import Namespace, Namespaces
from tellwire.testing.contract import DurableBrokerContract
from tellwire.testing.harness import Collected, MakeBroker, on_loop, opened, placed, publish, read_to_head
from tellwire.testing.model import BrokerModelContract
from tests.publishers import insist, opened_at_last, say
from tests.redis_servers import RedisServer, needs_redis, redis_cluster, redis_server

pytestmark = needs_redis

CHANNELS = [f"room-{number}" for number in range(12)]
"""Enough for each of three shards to have some."""

_logs = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


def cluster_url(servers: list[RedisServer], shards: int = 3, options: str = "") -> str:
    return f"redis+cluster://127.0.0.1:{servers[0].port},127.0.0.1:{servers[1].port}?shards={shards}{options}"


def new_log(url: str) -> RedisPlace:
    return RedisPlace.parse(f"{url}&prefix=log-{next(_logs)}")


@pytest.mark.parametrize("where", ["server", "cluster"])
class TestRedisShards(DurableBrokerContract, BrokerModelContract):
    """The contract, but for what each shard has for itself.

    These are the bytes of a namespace, with the channels not used for longest, and the order of appends that are under
    way together.
    """

    durable = True

    test_append_places_messages_as_they_were_begun = None  # type: ignore[assignment]
    test_reopened_log_tells_what_was_trimmed = None  # type: ignore[assignment]
    test_trim_bounds_the_number_of_channels = None  # type: ignore[assignment]
    test_trim_empties_the_channels_not_used_for_longest = None  # type: ignore[assignment]

    @pytest.fixture
    def make_broker(self, where: str, request: pytest.FixtureRequest) -> MakeBroker:
        log = next(_logs)
        found = request.getfixturevalue(where)
        url = cluster_url(found) if where == "cluster" else f"{found.url}?shards=3"

        def make(
            namespaces: Namespaces | None = None,
            *,
            dedupe_window_s: float = 300.0,
            clock: Callable[[], int] | None = None,
            store: str = "main",
        ) -> Broker:
            place = RedisPlace.parse(f"{url}&prefix=log-{log}-{store.replace(' ', '-')}")
            return RedisShards(place, namespaces, dedupe_window_s=dedupe_window_s, clock=clock)

        return make


def test_shards_lie_in_equal_parts_of_the_slots(cluster: list[RedisServer]) -> None:
    for number in range(20):
        place = RedisPlace.parse(f"{cluster_url(cluster)}&prefix=log{number}")
        slots = [int(cluster[0].command(f"CLUSTER KEYSLOT {{{place.shard(at).tag}}}:log")[1:]) for at in range(3)]
        assert sorted(slot * 3 // 16384 for slot in slots) == [0, 1, 2]
        assert place.shard(0).tag == place.prefix, "presence lies beside it"


@on_loop
async def test_shards_have_one_order_on_every_node(cluster: list[RedisServer]) -> None:
    place = new_log(cluster_url(cluster))
    nodes = [RedisShards(place) for _ in range(3)]
    async with (
        opened(nodes[0], *CHANNELS) as (_, first),
        opened(nodes[1], *CHANNELS) as (_, second),
        opened(nodes[2], *CHANNELS) as (_, third),
    ):
        assert {nodes[0].shard_of(channel) for channel in CHANNELS} == {0, 1, 2}

        async def talk(node: RedisShards, name: str) -> list[Position]:
            return [
                placed(await node.append(Draft(CHANNELS[number % len(CHANNELS)], b"1", id=f"{name}{number}")))
                for number in range(40)
            ]

        places = await asyncio.gather(*(talk(node, f"{at}.{by}.") for at, node in enumerate(nodes) for by in "abc"))
        for own in places:
            assert [place.seq for place in own] == sorted(place.seq for place in own), "what is waited for is first"
        wanted = sorted(place.seq for own in places for place in own)
        head = max(wanted)
        for node, feed in zip(nodes, (first, second, third), strict=True):
            await node.read(CHANNELS, None, 100)  # it knows by then what the others had
            assert node.head.seq >= head
            assert [message.seq for message in feed.messages if message.channel] == wanted
            assert feed.heads == []
            assert {position.epoch for own in places for position in own} == {node.head.epoch}


@on_loop
async def test_cluster_is_found_by_whichever_of_its_servers_knows_it(
    cluster: list[RedisServer], server: RedisServer
) -> None:
    others = f"127.0.0.1:1,127.0.0.1:{server.port}"
    place = new_log(f"redis+cluster://{others},127.0.0.1:{cluster[2].port}?shards=3")
    async with opened(RedisShards(place), *CHANNELS) as (broker, _):
        for channel in CHANNELS:
            await publish(broker, channel)
    with pytest.raises(Unavailable) as caught:
        async with opened(RedisShards(new_log(f"redis+cluster://{others}?shards=3"))):
            pass
    for why in ("127.0.0.1:1: ", "refused", f"127.0.0.1:{server.port}: ", "cluster support disabled"):
        assert why in str(caught.value)


@on_loop
async def test_shards_wait_for_one_that_stands_still_and_lose_nothing(cluster: list[RedisServer]) -> None:
    place = new_log(cluster_url(cluster, options="&timeout=1"))
    async with (
        opened_at_last(lambda: RedisShards(place), *CHANNELS) as (one, feed),
        opened_at_last(lambda: RedisShards(place), *CHANNELS) as (two, other),
    ):
        for number in range(3):
            await say(one, Draft(CHANNELS[0], b"7", id=f"before {number}"))
        cluster[1].pause()
        try:
            drafts = [Draft(channel, b"%d" % number, id=f"{number}") for number, channel in enumerate(CHANNELS * 3)]
            answers = await asyncio.gather(*map(one.append, drafts), return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, Unavailable)]
            assert refused, "nothing is acknowledged before it can be delivered"
            assert all("try again with the same id" in str(exc) for exc in refused)
        finally:
            cluster[1].go_on()
        for draft in drafts:
            await say(one, draft)
        for node, had in ((one, feed), (two, other)):
            whole = (await insist(partial(read_to_head, node, CHANNELS))).messages
            assert len(whole) == len(drafts) + 3, "each once"
            if not had.heads:  # a Redis that came back before anybody missed it
                assert [message for message in had.messages if message.channel] == whole


@on_loop
async def test_shards_hold_so_much_for_one_that_stands_still_and_no_more(cluster: list[RedisServer]) -> None:
    place = new_log(cluster_url(cluster, options="&timeout=1"))
    async with opened_at_last(lambda: RedisShards(place, held_max_bytes=20_000), *CHANNELS) as (one, feed):
        assert isinstance(one, RedisShards)
        cluster[1].pause()
        try:
            drafts = [Draft(channel, b"7" * 2000, id=f"{number}") for number, channel in enumerate(CHANNELS * 3)]
            await asyncio.gather(*map(one.append, drafts), return_exceptions=True)
            assert one.held_bytes <= 20_000
        finally:
            cluster[1].go_on()
        for draft in drafts:
            await say(one, draft)
        assert feed.heads, "readers are told that they miss something"
        assert len((await insist(lambda: read_to_head(one, CHANNELS))).messages) == len(drafts)
        last = await say(one, Draft(CHANNELS[0], b"7", id="last"))
        assert feed.messages[-1].seq == last.seq


@on_loop
async def test_shards_are_another_log_when_one_of_them_was_lost(server: RedisServer) -> None:
    place = new_log(f"{server.url}?shards=3")
    one, two = RedisShards(place), RedisShards(place)
    async with opened(one, *CHANNELS) as (_, feed), opened(two, *CHANNELS) as (_, other):
        before = [(await publish(one, channel))[0] for channel in CHANNELS]
        lost = {channel for channel in CHANNELS if one.shard_of(channel) == 1}
        tag = place.shard(1).tag
        keys = server.command(f"EVAL \"return redis.call('DEL', unpack(redis.call('KEYS', '{{{tag}}}*')))\" 0")
        assert keys != b":0\r\n"
        after = [placed(await node.append(Draft(channel, b"2", id="x"))) for channel in CHANNELS for node in (one, two)]
        (epoch,) = {position.epoch for position in after}
        assert epoch != before[0].epoch
        assert min(position.seq for position in after) > max(position.seq for position in before)
        for node, had in ((one, feed), (two, other)):
            assert had.heads
            assert had.heads[-1].epoch == epoch
            read = await node.read(CHANNELS, before[-1], 65_536)
            assert read.gap is not None
            assert read.gap.reason == "epoch"
            assert {message.channel for message in read.messages if message.seq <= before[-1].seq} == {*CHANNELS} - lost


@on_loop
async def test_shards_of_another_number_are_refused(server: RedisServer) -> None:
    for had, given in ((3, 2), (1, 3), (3, 1)):
        name = f"log-{next(_logs)}"
        async with opened(broker_of(f"{server.url}?shards={had}&prefix={name}", Namespaces()), "a") as (broker, _):
            await publish(broker, "a")
        wrong = broker_of(f"{server.url}?shards={given}&prefix={name}", Namespaces())
        with pytest.raises(Unavailable, match=f"has {had} shards, but the URL says shards={given}"):
            await wrong.open(Collected())
        await wrong.aclose()


@on_loop
async def test_shards_each_bound_a_namespace(server: RedisServer) -> None:
    bounds = Namespaces([Namespace(history_bytes=20_000)])
    async with opened(RedisShards(new_log(f"{server.url}?shards=3"), bounds)) as (broker, _):
        start = broker.head
        for channel in CHANNELS * 20:
            await publish(broker, channel, size=500)
        read = await read_to_head(broker, CHANNELS, start)
        assert 20_000 < sum(message.size for message in read.messages) <= 60_000
        assert read.gaps
        assert read.gaps[0].reason == "trimmed"


@on_loop
async def test_cluster_whose_master_dies_goes_on_with_its_replica(tmp_path: Path) -> None:
    with redis_cluster(tmp_path, replicas=1) as servers:
        for server in servers[3:]:
            server.until("INFO replication", b"master_link_status:up")
        urls = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        place = RedisPlace.parse(f"redis+cluster://{urls}?shards=3&timeout=50")
        one, two = RedisShards(place), RedisShards(place)
        async with opened(one, *CHANNELS) as (_, feed), opened(two, *CHANNELS) as (_, other):
            before = [(await publish(one, channel))[0] for channel in CHANNELS]
            servers[1].kill()
            drafts = [Draft(channel, b"2", id=f"{number}") for number, channel in enumerate(CHANNELS * 4)]
            answers = await asyncio.gather(*(node.append(draft) for draft in drafts for node in (one, two)))
            (epoch,) = {placed(answer).epoch for answer in answers}
            assert epoch != before[0].epoch, "a replica may lack what its master had acknowledged"
            assert len({answer.position for answer in answers}) == len(drafts), "an id of two nodes is one message"
            for node, had in ((one, feed), (two, other)):
                assert had.heads[-1].epoch == epoch
                read = await node.read(CHANNELS, before[-1], 1 << 20)
                assert read.gap is not None
                assert read.gap.reason == "epoch"
                seen = {message.seq for message in read.messages}
                assert {placed(answer).seq for answer in answers} <= seen
