"""A node that is cut off from its Redis, while others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tellwire.brokers.redis import RedisBroker
from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import Unavailable
from tellwire.message import Draft
from tellwire.names import Namespaces
from tellwire.testing.bounds import bounds
from tellwire.testing.harness import Collected, on_loop, opened, publish, read_to_head
from tests.publishers import hear, opened_at_last, say
from tests.readers import READERS
from tests.redis_servers import Cable, RedisServer, needs_redis, redis_server
from tests.serving import Server

pytestmark = needs_redis

FEW = Namespaces([bounds(messages=5)])


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def cable(redis: RedisServer) -> Iterator[Cable]:
    with closing(Cable(redis)) as cable:
        yield cable


def make(url: str, namespaces: Namespaces | None = None, timeout_s: float = 20.0) -> RedisBroker:
    return RedisBroker(RedisPlace.parse(f"{url}?timeout={timeout_s}"), namespaces)


def told(feed: Collected) -> list[int]:
    return [message.seq for message in feed.messages if message.channel]


@on_loop
async def test_redis_node_that_was_cut_off_is_told_of_what_it_missed(redis: RedisServer, cable: Cable) -> None:
    async with opened(make(redis.url), "a", "b") as (near, near_feed), opened(make(cable.url), "a") as (far, far_feed):
        for _ in range(5):
            await publish(near, "a", 20)
            await hear(far)
            cable.cut()
            await publish(near, "a", 50)
            await publish(near, "b", 50)
            cable.mend()
        await hear(far)
        assert told(far_feed) == [message.seq for message in near_feed.messages if message.channel == "a"]
        assert far_feed.heads == []
        assert far.head == near.head


@on_loop
async def test_redis_node_that_missed_too_much_says_so(redis: RedisServer, cable: Cable) -> None:
    async with (
        opened(make(redis.url, FEW), "a") as (near, _),
        opened(make(cable.url, FEW), "a", "b") as (far, far_feed),
    ):
        (before,) = await publish(near, "a")
        await hear(far)
        cable.cut()
        places = await publish(near, "a", 20)
        cable.mend()
        await hear(far)
        assert far_feed.heads == [places[-1]], "its readers are told, and read from the log what is there"
        assert told(far_feed) == [before.seq]
        assert (await read_to_head(far, ["a"])).seqs == [place.seq for place in places[-5:]]
        (news,) = await publish(near, "a")
        await hear(far)
        assert told(far_feed) == [before.seq, news.seq]


@on_loop
async def test_redis_that_falls_silent_is_noticed(redis: RedisServer, cable: Cable) -> None:
    async with (
        opened_at_last(lambda: make(cable.url, timeout_s=0.5), "a") as (far, far_feed),
        opened(make(redis.url), "a") as (near, _),
    ):
        for number in range(3):
            await say(far, Draft("a", b"7", id=f"{number}"))
        cable.stall()
        with pytest.raises(Unavailable, match="same id"):
            await far.append(Draft("a", b"late", id="late"))
        places = await publish(near, "a", 3)
        cable.go_on()
        await hear(far)
        again = await say(far, Draft("a", b"late", id="late"))
        await hear(far)
        log = (await read_to_head(near, ["a"])).messages
        assert [message.data for message in log].count(b"late") == 1
        assert told(far_feed) == [message.seq for message in log]
        assert again not in places


def test_readers_of_a_server_that_missed_too_much_are_told(
    redis: RedisServer, cable: Cable, start_server: Callable[..., Server]
) -> None:
    settings: dict[str, Any] = {"namespaces": [{"name": "short", "history_messages": 5}]}
    near = start_server(server={"broker": redis.url}, **settings)
    far = start_server(server={"broker": cable.url}, **settings)
    for name, reader_of in READERS.items():
        channel = f"short:{name}"
        with reader_of(far, channel) as reader:
            near.publish(channel, 0)
            assert reader.read_data(1) == [0]
            cable.cut()
            for number in range(1, 21):
                near.publish(channel, number)
            cable.mend()
            gap = reader.read_gap()
            assert gap["channels"] == [channel]
            push = reader.read()
            while push["type"] == "gap":  # over again for what was trimmed
                push = reader.read()
            assert push["data"] == 16
            assert reader.read_data(4) == [17, 18, 19, 20]
            near.publish(channel, 21)
            assert reader.read_data(1) == [21]
