"""What becomes of a log when its NATS fails: killed, cut off, standing still, emptied, replaced."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path

import nats
import pytest
from nats.js import JetStreamContext

from tellwire.brokers.base import Broker
from tellwire.brokers.nats import NatsBroker
from tellwire.brokers.nats_link import end
from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import Unavailable
from tellwire.message import Appended, Draft, Position
from tellwire.names import Namespaces
from tellwire.testing.bounds import bounds
from tellwire.testing.harness import Clock, Collected, Opened, on_loop, opened, placed, publish, read_to_head
from tests.nats_servers import FeedCable, NatsServer, nats_server, needs_nats
from tests.publishers import CHANNELS, Publishers, Watched, check, insist, opened_at_last, say, told
from tests.redis_servers import Cable

pytestmark = needs_nats

LOG = "tellwire-log"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server whose log outlives it."""
    with nats_server(tmp_path) as server:
        yield server


def make(url: str, timeout_s: float = 20.0, **settings: object) -> NatsBroker:
    return NatsBroker(NatsPlace.parse(f"{url}?timeout={timeout_s}"), **settings)  # type: ignore[arg-type]


@asynccontextmanager
async def nodes(url: str, count: int = 2, timeout_s: float = 20.0) -> AsyncIterator[list[Opened]]:
    """Open as many nodes, each of which follows every channel."""
    async with AsyncExitStack() as stack:
        opening = (opened_at_last(partial(make, url, timeout_s), *CHANNELS) for _ in range(count))
        yield [await stack.enter_async_context(each) for each in opening]


@asynccontextmanager
async def operator(server: NatsServer) -> AsyncIterator[JetStreamContext]:
    """Come in beside the broker, as an operator does."""
    client = await nats.connect(server.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def back_up(server: NatsServer) -> None:
    """Keep what the server has on its disk."""
    server.kill()
    shutil.copytree(server.directory / "store", server.directory / "backup")
    await asyncio.to_thread(server.start)


async def put_back(server: NatsServer) -> None:
    """Let the server go on from what was kept."""
    server.kill()
    shutil.rmtree(server.directory / "store")
    shutil.copytree(server.directory / "backup", server.directory / "store")
    await asyncio.to_thread(server.start)


async def give_away(server: NatsServer, cable: Cable, far: Broker, count: int) -> tuple[list[Position], list[Position]]:
    """Lose two places that a node has, and give as many as `count` to another; return those lost, and those given."""
    lost = await publish(far, "a", 2)
    cable.cut()
    await put_back(server)
    async with opened(make(server.url)) as (near, _):
        return lost, await publish(near, "a", count)


async def hear(broker: Broker) -> None:
    """Wait until a node was fed all that was appended before."""
    assert isinstance(broker, NatsBroker)
    await insist(broker.level)


@on_loop
async def test_nats_nodes_are_told_the_same(server: NatsServer) -> None:
    async with nodes(server.url, 3) as several:
        publishers = Publishers(several, 60)
        await check(several, publishers)
        assert publishers.twice == 0


@on_loop
async def test_nats_connections_that_are_cut_lose_nothing(server: NatsServer) -> None:
    with closing(Cable(server)) as cable:
        async with nodes(f"nats://127.0.0.1:{cable.port}") as both:
            publishers = Publishers(both, 60)
            for part in range(1, 6):
                await publishers.until(part / 6)
                cable.cut()
                cable.mend()
            await check(both, publishers)
            assert publishers.twice == 0, "what was sent again knew itself"
            assert all(broker.figures()["reconnects"] > 0 for broker, _ in both)


@on_loop
async def test_nats_connection_cut_without_ids_appends_once(server: NatsServer) -> None:
    with closing(Cable(server)) as cable:
        async with nodes(f"nats://127.0.0.1:{cable.port}", 1) as ((one, one_feed),):
            answers: list[asyncio.Future[Appended]] = []
            for number in range(300):
                answers.append(asyncio.ensure_future(one.append(Draft("a", b"%d" % number))))
                if number % 100 == 99:
                    await answers[-50]
                    cable.cut()
                    cable.mend()
            await asyncio.gather(*answers)
            assert sorted(int(message.data) for message in told(one_feed)) == list(range(300))
            assert (await read_to_head(one, ["a"])).messages == told(one_feed)


@on_loop
async def test_nats_killed_and_started_again_loses_nothing(server: NatsServer) -> None:
    async with nodes(server.url) as both:
        publishers = Publishers(both, 60)
        for part in (0.3, 0.6):
            await publishers.until(part)
            server.kill()
            await asyncio.to_thread(server.start)
        await check(both, publishers)
        assert publishers.twice == 0


@on_loop
async def test_nats_that_lost_its_files_begins_anew(server: NatsServer) -> None:
    async with nodes(server.url) as ((one, one_feed), (two, two_feed)):
        (before,) = await publish(one, "a")
        await hear(two)
        server.kill()
        shutil.rmtree(server.directory / "store")
        await asyncio.to_thread(server.start)
        (after,) = await publish(two, "a")
        assert after.epoch != before.epoch
        await hear(one)
        read = await one.read(["a"], before, 65_536)
        assert read.gap is not None
        assert read.gap.reason == "epoch"
        assert [message.seq for message in read.messages] == [after.seq]
        assert [head.epoch for head in one_feed.heads] == [head.epoch for head in two_feed.heads] == [after.epoch]


@on_loop
async def test_nats_put_back_to_an_earlier_state_begins_anew(server: NatsServer) -> None:
    """A backup was put back, and others took the places of what is missing before this node came back."""
    async with nodes(server.url, 1) as ((one, feed),):
        await publish(one, "a", 5)
        await back_up(server)
        lost = (await publish(one, "a", 5))[-1]
        await put_back(server)
        await hear(one)
        (place,) = await publish(one, "a")
        assert place.epoch != lost.epoch
        assert [head.epoch for head in feed.heads] == [place.epoch]
        read = await one.read(["a"], lost, 65_536)
        assert read.gap is not None
        assert read.gap.reason == "epoch"


@on_loop
async def test_nats_node_that_others_outran_on_an_older_log_notices(server: NatsServer) -> None:
    with closing(Cable(server)) as cable:
        async with nodes(f"nats://127.0.0.1:{cable.port}", 1) as ((far, feed),):
            await publish(far, "a", 5)
            await back_up(server)
            lost, _ = await give_away(server, cable, far, 10)
            cable.mend()
            await hear(far)
            assert far.head.epoch != lost[-1].epoch
            assert len(feed.heads) == 1
            assert len((await read_to_head(far, ["a"])).messages) == 15


@on_loop
async def test_nats_that_gave_an_acknowledged_place_away_begins_anew(server: NatsServer) -> None:
    """What was acknowledged but not fed yet was lost, and others have its places when the node comes back."""
    with closing(FeedCable(server)) as cable:
        async with nodes(f"nats://127.0.0.1:{cable.port}", 1) as ((far, feed),):
            await publish(far, "a", 5)
            await hear(far)
            await back_up(server)
            await hear(far)
            cable.holds_feed = True
            lost, given = await give_away(server, cable, far, 2)
            assert given == lost
            cable.holds_feed = False
            cable.mend()
            await hear(far)
            assert [head.epoch for head in feed.heads] == [far.head.epoch] != [lost[-1].epoch]
            assert len((await read_to_head(far, ["a"])).messages) == 7


@on_loop
async def test_nats_stream_deleted_under_way_is_noticed(server: NatsServer) -> None:
    broker, feed = make(server.url), Watched()
    await broker.open(feed)
    try:
        (before,) = await publish(broker, "a")
        async with operator(server) as stream:
            await stream.delete_stream(LOG)
        await feed.was_reset.wait()
        assert broker.head.epoch != before.epoch
        assert (await publish(broker, "a"))[0].seq == 1
    finally:
        await broker.aclose()


@on_loop
async def test_nats_stream_purged_is_told_to_readers_of_a_new_node(server: NatsServer) -> None:
    async with opened(make(server.url), "a") as (one, feed):
        places = await publish(one, "a", 5)
        async with operator(server) as stream:
            await stream.purge_stream(LOG)
        (news,) = await publish(one, "a")
        assert feed.heads == [], "this node has it all"
        assert len((await one.read(["a"], places[0], 65_536)).messages) == 5
        async with opened(make(server.url), "a") as (two, _):
            read = await two.read(["a"], places[0], 65_536)
            assert [message.seq for message in read.messages] == [news.seq]
            assert read.gap is not None
            assert (read.gap.reason, read.gap.channels) == ("trimmed", ("a",))
            read = await two.read(["never"], places[0], 65_536)
            assert read.gap is not None, "who knows what it had"


@on_loop
async def test_nats_node_that_missed_too_much_says_so(server: NatsServer) -> None:
    with closing(Cable(server)) as cable:
        async with (
            opened(make(f"nats://127.0.0.1:{cable.port}"), "a") as (far, far_feed),
            opened(make(server.url), "a") as (near, _),
        ):
            (before,) = await publish(near, "a")
            await hear(far)
            cable.cut()
            places = await publish(near, "a", 20)
            async with operator(server) as stream:
                await stream.purge_stream(LOG, keep=5)
            cable.mend()
            await hear(far)
            assert far_feed.heads == [places[-1]], "its readers are told, and read from the log what is there"
            assert [message.seq for message in told(far_feed)] == [before.seq]
            (news,) = await publish(near, "a")
            await hear(far)
            assert [message.seq for message in told(far_feed)] == [before.seq, news.seq]


@on_loop
async def test_nats_stream_is_trimmed_once_ids_are_not_needed(server: NatsServer) -> None:
    few = Namespaces([bounds(messages=3)])
    async with opened(make(server.url, namespaces=few, trim_every_s=0.05, keep_s=0.2)) as (broker, feed):
        start = broker.head
        places = await publish(broker, "a", 30)
        async with operator(server) as stream:
            while (await stream.stream_info(LOG)).state.messages > 4:  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(0.05)
        assert feed.heads == []
    async with opened(make(server.url, namespaces=few)) as (broker, _):
        read = await broker.read(["a"], start, 65_536)
        assert [message.seq for message in read.messages] == [place.seq for place in places[-3:]]
        assert read.gap is not None
        assert read.gap.to == str(places[-4]), "the newest that was dropped stays, to tell it"


@on_loop
async def test_nats_standing_still_fails_publishes_for_good(server: NatsServer) -> None:
    async with nodes(server.url, 2, timeout_s=1.0) as ((one, one_feed), (two, two_feed)):
        assert isinstance(one, NatsBroker)
        for number in range(3):
            await say(one, Draft("a", b"7", id=f"a{number}"))
        server.pause()
        drafts = [Draft("b", b"%d" % number, id=str(number) if number % 2 else None) for number in range(20)]
        failed = await asyncio.gather(*map(one.append, drafts), return_exceptions=True)
        server_silent = await asyncio.gather(
            one.append(Draft("a", b"late", ephemeral=True)), one.level(), return_exceptions=True
        )
        server.go_on()
        assert {type(failure) for failure in failed} == {Unavailable}
        assert isinstance(server_silent[1], Unavailable)
        again = await asyncio.gather(*(say(one, draft) for draft in drafts if draft.id))
        assert len(set(again)) == 10
        await hear(one)
        await hear(two)
        log = (await read_to_head(one, CHANNELS)).messages
        ids = [message.data for message in log if message.channel == "b"]
        assert sorted(ids) == sorted(b"%d" % n for n in range(1, 20, 2)), "what failed is not there without a retry"
        assert [message for message in told(one_feed) if message.seq] == log
        assert [message for message in told(two_feed) if message.seq] == log


@on_loop
async def test_nats_node_that_stood_still_itself_keeps_its_connection(server: NatsServer) -> None:
    async with nodes(server.url, 1) as ((one, feed),):
        await publish(one, "a")
        time.sleep(4)  # noqa: ASYNC251  # longer than NATS may be silent
        for _ in range(10):
            await hear(one)
            await publish(one, "a")
        assert one.figures()["reconnects"] == 0
        assert feed.seqs == list(range(1, 12))


@on_loop
async def test_nats_away_bounds_what_waits(server: NatsServer) -> None:
    async with opened(make(server.url, 0.5, queue_max_bytes=100_000)) as (broker, _):
        await publish(broker, "a")
        server.kill()
        drafts = [Draft("a", b"1" * 10_000, id=str(number)) for number in range(100)]
        answers = await asyncio.gather(*map(broker.append, drafts), return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unavailable}
        waited = [answer for answer in answers if "wait for" not in str(answer)]
        assert 5 <= len(waited) <= 10
        assert broker.figures()["queue_bytes"] < 100_000


@on_loop
async def test_a_task_that_lost_a_cancellation_is_ended_all_the_same() -> None:
    lost = 0

    async def connecting() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = asyncio.create_task(connecting())
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()


@on_loop
async def test_nats_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    broker = make(NatsServer(tmp_path).url, 1.0)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await broker.open(Collected())
    with pytest.raises(Unavailable, match="closed"):
        await broker.append(Draft("a", b"1"))
    await broker.aclose()


@on_loop
async def test_nats_without_jetstream_says_so(tmp_path: Path) -> None:
    with nats_server(tmp_path, jetstream=False) as server:
        broker = make(server.url, 2.0)
        with pytest.raises(Unavailable, match="JetStream"):
            await broker.open(Collected())
        await broker.aclose()


@on_loop
async def test_nats_stream_of_somebody_else_is_left_alone(server: NatsServer) -> None:
    async with operator(server) as stream:
        await stream.add_stream(name=LOG, subjects=["theirs.*"])
        broker = make(server.url)
        with pytest.raises(Unavailable, match="none of Tellwire's"):
            await broker.open(Collected())
        await broker.aclose()
        assert (await stream.stream_info(LOG)).config.subjects == ["theirs.*"]


@on_loop
async def test_nats_foreign_message_in_the_log_is_passed_over(server: NatsServer) -> None:
    async with opened(make(server.url), "a") as (broker, feed):
        await publish(broker, "a")
        async with operator(server) as stream:
            await stream.publish("tellwire.log.a", b"not ours")
        (last,) = await publish(broker, "a")
        assert last.seq == 3
        assert [message.seq for message in told(feed)] == [1, 3]
        assert broker.head == last


@on_loop
async def test_nats_ephemeral_messages_reach_other_nodes_in_order(server: NatsServer) -> None:
    async with nodes(server.url) as ((one, one_feed), (two, two_feed)):
        drafts = [Draft("a", b"%d" % number, ephemeral=number % 2 == 0) for number in range(20)]
        await asyncio.gather(*map(one.append, drafts))
        await hear(two)
        while len(two_feed.messages) < 20:  # noqa: ASYNC110  # core NATS has no answer to wait for
            await asyncio.sleep(0)
        assert [message.data for message in one_feed.messages] == [b"%d" % number for number in range(20)]
        passing = [message.data for message in two_feed.messages if not message.seq]
        assert passing == [b"%d" % number for number in range(0, 20, 2)]


@on_loop
async def test_nats_cursor_of_another_node_is_known(server: NatsServer) -> None:
    async with nodes(server.url, 1) as ((one, _),), opened(make(server.url)) as (two, _):
        places = await publish(one, "a", 50)
        read = await two.read(["a"], places[-1], 65_536)
        assert read.gap is None
        assert two.head == places[-1]


@on_loop
async def test_nats_id_is_known_on_every_node_for_its_time(server: NatsServer) -> None:
    clock = Clock()
    async with (
        opened(make(server.url, dedupe_window_s=10, clock=clock)) as (one, _),
        opened(make(server.url, dedupe_window_s=10, clock=clock)) as (two, _),
    ):
        first = placed(await one.append(Draft("a", b"1", id="x")))
        assert await two.append(Draft("a", b"1", id="x")) == Appended(first, duplicate=True)
        clock.advance(10)
        answers = await asyncio.gather(
            *(node.append(Draft("a", b"1", id="x")) for node in (one, two) for _ in range(5))
        )
        assert len({answer.position for answer in answers}) == 1
        assert [answer.duplicate for answer in answers].count(False) == 1


@on_loop
async def test_nats_logs_of_other_names_are_apart(server: NatsServer) -> None:
    async with opened(NatsBroker(NatsPlace.parse(f"{server.url}?prefix=one")), "a") as (one, _):
        await publish(one, "a", 3)
        async with opened(NatsBroker(NatsPlace.parse(f"{server.url}?prefix=two")), "a") as (two, feed):
            assert two.head.epoch != one.head.epoch
            assert await two.read(["a"], None, 1000) == ([], two.head, None)
            assert two.head == Position(two.head.epoch, 0)
            assert feed.messages == []
