"""What becomes of a log when its Redis fails: killed, cut off, standing still, emptied, replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tellwire.brokers.redis import RedisBroker
from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import Unavailable
from tellwire.message import Appended, Draft
from tellwire.testing.harness import Collected, Opened, on_loop, opened, placed, publish, read_to_head
from tests.publishers import CHANNELS, Publishers, Watched, check, hear, insist, opened_at_last, say, told
from tests.redis_servers import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

KEEPS_ALL = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server whose log outlives it: each write is on the disk before it is answered."""
    with redis_server(tmp_path, *KEEPS_ALL) as server:
        yield server


def make(server: RedisServer, timeout_s: float = 20.0) -> RedisBroker:
    return RedisBroker(RedisPlace.parse(f"{server.url}?timeout={timeout_s}"))


@asynccontextmanager
async def nodes(server: RedisServer, count: int = 2, timeout_s: float = 20.0) -> AsyncIterator[list[Opened]]:
    """Open as many nodes, each of which follows every channel."""
    async with AsyncExitStack() as stack:
        opening = (opened_at_last(partial(make, server, timeout_s), *CHANNELS) for _ in range(count))
        yield [await stack.enter_async_context(each) for each in opening]


@on_loop
async def test_redis_nodes_are_told_the_same(server: RedisServer) -> None:
    async with nodes(server, 3) as several:
        publishers = Publishers(several, 100)
        await check(several, publishers)
        assert publishers.twice == 0


@on_loop
async def test_redis_connections_that_are_cut_lose_nothing(server: RedisServer) -> None:
    async with nodes(server) as both:
        publishers = Publishers(both, 200)
        for part in range(1, 10):
            await publishers.until(part / 10)
            await asyncio.to_thread(server.command, "CLIENT KILL TYPE pubsub")
            await asyncio.to_thread(server.command, "CLIENT KILL TYPE normal")
        await check(both, publishers)
        assert publishers.twice == 0, "what was sent again knew itself"
        assert all(broker.figures()["reconnects"] > 0 for broker, _ in both)


@on_loop
async def test_redis_connection_cut_without_ids_appends_once(server: RedisServer) -> None:
    async with nodes(server) as ((one, one_feed), (two, two_feed)):
        cut: list[asyncio.Task[bytes]] = []
        answers: list[asyncio.Future[Appended]] = []
        for number in range(900):
            answers.append(asyncio.ensure_future(one.append(Draft("a", b"%d" % number))))
            if number % 100 == 99:
                cut.append(asyncio.create_task(asyncio.to_thread(server.command, "CLIENT KILL TYPE pubsub")))
                await answers[-50]
        await asyncio.gather(*answers, *cut)
        assert [message.data for message in told(one_feed)] == [b"%d" % number for number in range(900)]
        log = (await read_to_head(one, ["a"])).messages
        assert told(one_feed) == log
        await hear(two)
        assert told(two_feed) == log


@on_loop
async def test_redis_killed_and_started_again_loses_nothing(server: RedisServer) -> None:
    async with nodes(server) as both:
        publishers = Publishers(both, 100)
        for part in (0.25, 0.5, 0.75):
            await publishers.until(part)
            server.kill()
            await asyncio.to_thread(server.start)
        await check(both, publishers)
        assert publishers.twice == 0


async def kill_within_a_write(server: RedisServer) -> None:
    """Kill it, as if that had come in the middle of the last append, and start it again."""
    server.kill()
    # The append's first commands are in the file, its end is not.
    file = server.directory / "appendonlydir" / "appendonly.aof.1.incr.aof"
    file.write_bytes(file.read_bytes()[:-20])
    await asyncio.to_thread(server.start)


@on_loop
async def test_redis_killed_within_a_write_does_not_finish_it_later(server: RedisServer) -> None:
    async with nodes(server, 1) as ((broker, _),):
        await publish(broker, "a", 3)
        await publish(broker, "b")
        await kill_within_a_write(server)
        (place,) = await publish(broker, "c")
        await asyncio.to_thread(server.until, "INFO persistence", b"aof_rewrite_in_progress:0")
        log = (await read_to_head(broker, CHANNELS)).messages
        assert [message.channel for message in log] == ["a", "a", "a", "c"]
        server.kill()
        await asyncio.to_thread(server.start)
        assert (await read_to_head(broker, CHANNELS)).messages == log
        assert broker.head == place


@on_loop
async def test_redis_killed_while_its_file_is_written_anew_loses_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path, *KEEPS_ALL, "--rdb-key-save-delay", "2000000") as server:
        async with nodes(server, 1) as ((broker, feed),):
            await publish(broker, "a", 3)
            await publish(broker, "b")
            await kill_within_a_write(server)
            (place,) = await publish(broker, "c")
            log = (await read_to_head(broker, CHANNELS)).messages
            await asyncio.to_thread(server.until, "INFO persistence", b"aof_rewrite_in_progress:1")
            server.kill()
            await asyncio.to_thread(server.start)
            assert (await read_to_head(broker, CHANNELS)).messages == log
            assert [message.channel for message in log] == ["a", "a", "a", "c"]
            assert broker.head == place
            assert len(feed.heads) == 1, "a gap for what the first crash took, and no other"


@on_loop
async def test_redis_that_keeps_nothing_begins_anew(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        async with nodes(server) as both:
            (one, one_feed), (two, two_feed) = both
            (before,) = await publish(one, "a")
            server.kill()
            await asyncio.to_thread(server.start)
            (after,) = await publish(two, "a")
            assert after.epoch != before.epoch
            assert two_feed.heads[0].epoch == after.epoch
            read = await one.read(["a"], before, 65_536)
            assert read.gap is not None
            assert read.gap.reason == "epoch"
            assert [message.seq for message in read.messages] == [after.seq]
            assert [head.epoch for head in one_feed.heads] == [after.epoch]
            assert one.head == two.head == after


@on_loop
async def test_redis_emptied_under_way_begins_anew(server: RedisServer) -> None:
    async with nodes(server) as both:
        (one, one_feed), (two, two_feed) = both
        places = await publish(one, "a", 5)
        server.command("FLUSHALL")
        answers = await asyncio.gather(*(broker.append(Draft("b", b"1")) for broker, _ in both for _ in range(20)))
        epochs = {placed(answer).epoch for answer in answers}
        assert len(epochs) == 1
        assert epochs != {places[0].epoch}
        for broker, feed in ((one, one_feed), (two, two_feed)):
            await read_to_head(broker, CHANNELS)
            assert [head.epoch for head in feed.heads] == [broker.head.epoch]
            assert len((await read_to_head(broker, ["b"])).messages) == 40


@on_loop
async def test_redis_emptied_is_noticed_by_a_node_that_does_nothing(server: RedisServer) -> None:
    broker, feed = make(server), Watched()
    await broker.open(feed)
    try:
        (before,) = await publish(broker, "a")
        server.command("FLUSHALL")
        await feed.was_reset.wait()
        assert broker.head.epoch != before.epoch
        assert broker.head.seq == 0
    finally:
        await broker.aclose()


@on_loop
async def test_redis_standing_still_fails_publishes_for_good(server: RedisServer) -> None:
    async with nodes(server, 2, timeout_s=0.5) as both:
        (one, one_feed), (two, two_feed) = both
        for number in range(3):
            await say(one, Draft("a", b"7", id=f"a{number}"))
        server.pause()
        drafts = [Draft("b", b"%d" % number, id=str(number) if number % 2 else None) for number in range(20)]
        failed = await asyncio.gather(*map(one.append, drafts), return_exceptions=True)
        assert {type(failure) for failure in failed} == {Unavailable}
        with pytest.raises(Unavailable, match="same id"):
            await one.read(["a"], None, 1000)
        with pytest.raises(Unavailable):
            await one.follow("d")
        server.go_on()
        again = await asyncio.gather(*(say(one, draft) for draft in drafts if draft.id))
        assert len(set(again)) == 10
        log = (await insist(lambda: read_to_head(one, CHANNELS))).messages
        await hear(one)
        assert [message.data for message in log if message.channel == "b"] == [b"%d" % n for n in range(1, 20, 2)]
        assert told(one_feed) == log
        await hear(two)
        assert told(two_feed) == log


@on_loop
async def test_redis_away_bounds_what_waits(server: RedisServer) -> None:
    place = RedisPlace.parse(f"{server.url}?timeout=0.5")
    async with opened_at_last(lambda: RedisBroker(place, queue_max_bytes=100_000)) as (broker, _):
        await say(broker, Draft("a", b"7", id="first"))
        server.kill()
        drafts = [Draft("a", b"1" * 10_000, id=str(number)) for number in range(100)]
        answers = await asyncio.gather(*map(broker.append, drafts), return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unavailable}
        waited = [answer for answer in answers if "wait for" not in str(answer)]
        assert 5 <= len(waited) <= 10
        assert broker.figures()["queue_bytes"] < 100_000


@on_loop
async def test_redis_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    broker = make(server, 1.0)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await broker.open(Collected())
    with pytest.raises(Unavailable, match="closed"):
        await broker.append(Draft("a", b"1"))
    await broker.aclose()


@on_loop
async def test_redis_node_hears_only_of_what_it_follows(server: RedisServer) -> None:
    async with nodes(server, 1) as ((one, _),), opened(make(server), "a") as (two, feed):
        await publish(one, "b", 5)
        (place,) = await publish(one, "a")
        await hear(two)
        assert [message.seq for message in told(feed)] == [place.seq]
        last = (await publish(one, "b", 3))[-1]
        await two.follow("b")
        assert two.head == last, "what is announced from here on comes later"
        assert feed.messages[-1].seq == last.seq
        (news,) = await publish(one, "b")
        await hear(two)
        assert [message.seq for message in told(feed)] == [place.seq, news.seq]
        assert [message.seq for message in (await two.read(["b"], place, 65_536)).messages][-1] == news.seq
        await two.unfollow("b")
        await hear(two)
        await publish(one, "b")
        assert (await two.read(["a"], place, 1000)).messages == []
        assert told(feed)[-1].seq == news.seq


@on_loop
async def test_redis_cursor_of_another_node_is_known(server: RedisServer) -> None:
    async with nodes(server, 1) as ((one, _),), opened(make(server)) as (two, _):
        places = await publish(one, "a", 5)
        read = await two.read(["a"], places[3], 65_536)
        assert read.gap is None
        assert [message.seq for message in read.messages] == [places[4].seq]
        assert two.head == places[4]


@on_loop
async def test_redis_ephemeral_messages_reach_other_nodes(server: RedisServer) -> None:
    async with nodes(server) as ((one, one_feed), (two, two_feed)):
        for number in range(20):
            await one.append(Draft("a", b"%d" % number, ephemeral=True))
        await two.append(Draft("a", b"20", ephemeral=True))
        await publish(two, "b")
        for broker, feed in ((one, one_feed), (two, two_feed)):
            await hear(broker)
            assert [m.data for m in told(feed) if not m.seq] == [b"%d" % number for number in range(21)]
