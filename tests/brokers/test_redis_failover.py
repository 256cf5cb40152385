"""What becomes of a log when a replica takes over from the master: readers are told, whatever was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tellwire.brokers.redis import RedisBroker
from tellwire.brokers.redis_url import RedisPlace
from tellwire.message import Draft
from tellwire.presence.redis import RedisPresence
from tellwire.testing.harness import on_loop, opened, placed, publish, read_to_head
from tellwire.testing.members import member
from tellwire.testing.members import opened as opened_presence
from tests.redis_servers import Watched, needs_redis, watched_redis

pytestmark = needs_redis


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Watched]:
    with watched_redis(tmp_path) as watched:
        yield watched


def url(servers: Watched) -> str:
    return f"{servers.place}?timeout=50"


@on_loop
async def test_redis_failover_is_told_to_readers(servers: Watched) -> None:
    one, two = (RedisBroker(RedisPlace.parse(url(servers))) for _ in range(2))
    async with opened(one, "a") as (_, one_feed), opened(two, "a") as (_, two_feed):
        places = await publish(one, "a", 10)
        servers.kill_master()
        answers = await asyncio.gather(
            *(broker.append(Draft("a", b"%d" % n, id=str(n))) for n in range(10) for broker in (one, two))
        )
        assert len({answer.position for answer in answers}) == 10, "an id of two nodes is one message"
        (epoch,) = {placed(answer).epoch for answer in answers}
        assert epoch != places[0].epoch
        for broker, feed in ((one, one_feed), (two, two_feed)):
            assert [head.epoch for head in feed.heads] == [epoch]
            read = await broker.read(["a"], places[-1], 65_536)
            assert read.gap is not None
            assert read.gap.reason == "epoch"
            assert sorted(message.data for message in read.messages[-10:]) == [b"%d" % n for n in range(10)]
        assert (await read_to_head(one, ["a"])).messages == (await read_to_head(two, ["a"])).messages


@on_loop
async def test_redis_that_lost_its_newest_messages_is_told_to_readers(servers: Watched) -> None:
    """The replica was cut off before the newest messages, and others take their places on it."""
    broker = RedisBroker(RedisPlace.parse(url(servers)))
    async with opened(broker, "a") as (_, feed):
        kept = (await publish(broker, "a", 5))[-1]
        servers.replica.until("INFO replication", b"master_link_status:up")
        servers.replica.pause()
        lost = (await publish(broker, "a", 5))[-1]
        servers.kill_master()
        servers.replica.go_on()
        (place,) = await publish(broker, "a")
        assert place.epoch != lost.epoch
        assert place.seq <= kept.seq + 6
        assert len(feed.heads) == 1
        read = await broker.read(["a"], lost, 65_536)
        assert read.gap is not None
        assert read.gap.reason == "epoch"


@on_loop
async def test_redis_presence_of_a_replaced_server_is_entered_again(servers: Watched) -> None:
    async with opened_presence(RedisPresence(RedisPlace.parse(url(servers)))) as presence:
        await presence.enter(member("room", "c1"))
        assert await presence.beat() is True
        servers.kill_master()
        assert await presence.beat() is False, "who knows whom the replica had"
        await presence.enter(member("room", "c1"))
        assert await presence.beat() is True
        assert [found.client for found in await presence.members("room", 10)] == ["c1"]
