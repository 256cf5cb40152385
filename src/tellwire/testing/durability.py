"""The contract of beginning and ending: epochs, closing, and what a durable log still has afterwards."""

from __future__ import annotations

import asyncio

import pytest

from tellwire.errors import Conflict, Unavailable
from tellwire.message import Appended, Draft, Gap
from tellwire.names import Namespaces
from tellwire.testing.bounds import bounds
from tellwire.testing.harness import Clock, MakeBroker, on_loop, opened, placed, publish, read_to_head


class LifeContract:
    """What opening and closing promise, of any log."""

    @on_loop
    async def test_epoch_of_every_log_is_another(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(store="one")) as (one, _), opened(make_broker(store="two")) as (two, _):
            await publish(one, "a", 3)
            await publish(two, "a", 3)
            assert one.head.epoch != two.head.epoch
            read = await two.read(["a"], one.head, 65_536)
            assert read.gap is not None
            assert read.gap.reason == "epoch"
            assert len(read.messages) == 3

    @on_loop
    async def test_close_ends_publishing(self, make_broker: MakeBroker) -> None:
        broker = make_broker()
        async with opened(broker) as (_, feed):
            await publish(broker, "a")
        with pytest.raises(Unavailable, match="closed"):
            await broker.append(Draft("a", b"1"))
        with pytest.raises(Unavailable, match="closed"):
            await broker.append(Draft("a", b"1", ephemeral=True))
        assert len(feed.messages) == 1

    @on_loop
    async def test_close_may_be_called_again(self, make_broker: MakeBroker) -> None:
        never_opened = make_broker()
        await never_opened.aclose()
        async with opened(make_broker()) as (broker, _):
            await publish(broker, "a")
            await asyncio.gather(broker.aclose(), broker.aclose())
            await broker.aclose()

    @on_loop
    async def test_close_in_the_middle_finishes_what_was_begun(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a") as (broker, feed):
            appends = [asyncio.ensure_future(broker.append(Draft("a", b"1"))) for _ in range(500)]
            reads = [asyncio.ensure_future(broker.read(["a"], None, 65_536)) for _ in range(5)]
            await asyncio.sleep(0)
            await broker.aclose()
            late = asyncio.ensure_future(broker.append(Draft("a", b"1")))
            answers = await asyncio.gather(*appends, late, return_exceptions=True)
            assert [type(answer) for answer in answers] == [Appended] * 500 + [Unavailable]
            acknowledged = [placed(answer).seq for answer in answers if isinstance(answer, Appended)]
            assert acknowledged == feed.seqs
            for read in await asyncio.gather(*reads, return_exceptions=True):
                assert not isinstance(read, BaseException) or isinstance(read, Unavailable)


class DurabilityContract:
    """What a log that outlives its broker promises besides."""

    @on_loop
    async def test_reopened_log_goes_on(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a", "b") as (broker, feed):
            await publish(broker, "a", 5)
            await publish(broker, "b", 3)
            head = broker.head
        before = feed.messages
        async with opened(make_broker(), "a", "b") as (broker, feed):
            assert broker.head == head
            assert feed.messages == []
            assert (await read_to_head(broker, ["a", "b"])).messages == before
            assert await broker.read(["a", "b"], head, 1000) == ([], head, None)
            (place,) = await publish(broker, "a")
            assert place.epoch == head.epoch
            assert place.seq > head.seq
            assert (await read_to_head(broker, ["a", "b"], head)).messages == feed.messages

    @on_loop
    async def test_reopened_log_knows_ids_and_places(self, make_broker: MakeBroker) -> None:
        clock = Clock()
        few = Namespaces([bounds(messages=2)])
        async with opened(make_broker(few, clock=clock, dedupe_window_s=100)) as (broker, _):
            first = await broker.append(Draft("a", b"1", id="x"))
            clock.advance(50)
            await publish(broker, "a", 5)  # the message is trimmed, its id is remembered
            second = await broker.append(Draft("a", b"1", id="y"))
        async with opened(make_broker(few, clock=clock, dedupe_window_s=100)) as (broker, _):
            assert await broker.append(Draft("a", b"1", id="x")) == Appended(first.position, duplicate=True)
            with pytest.raises(Conflict) as caught:
                await broker.append(Draft("a", b"1", expect=first.position))
            assert caught.value.head == second.position
            clock.advance(50)
            assert (await broker.append(Draft("a", b"1", id="x", expect=second.position))).duplicate is False
            assert (await broker.append(Draft("a", b"1", id="y"))).duplicate is True
            clock.advance(50)
            assert (await broker.append(Draft("a", b"1", id="y"))).duplicate is False
            assert (await broker.append(Draft("a", b"1", id="x"))).duplicate is True

    @on_loop
    async def test_reopened_log_tells_what_was_trimmed(self, make_broker: MakeBroker) -> None:
        few = Namespaces([bounds(messages=2, size=50_000)])
        async with opened(make_broker(few)) as (broker, _):
            start = broker.head
            gone = await publish(broker, "gone")
            places = await publish(broker, "a", 5)
            await publish(broker, "b", 2, size=24_300)  # there is no room for "gone" beside these
        async with opened(make_broker(few)) as (broker, _):
            assert (await read_to_head(broker, ["gone"], start)).gaps == [
                Gap(str(start), str(gone[0]), "trimmed", ("gone",))
            ]
            assert (await read_to_head(broker, ["a"], places[2])).gaps == []
            read = await broker.read(["a"], places[0], 65_536)
            assert read.gap == Gap(str(places[0]), str(places[2]), "trimmed", ("a",))
            assert [message.seq for message in read.messages] == [place.seq for place in places[-2:]]
            await publish(broker, "a", 2)
            assert len((await read_to_head(broker, ["a"])).messages) == 2

    @on_loop
    async def test_reopened_log_of_other_namespaces_hides_nothing(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(Namespaces([bounds(size=5_000)]))) as (broker, _):
            start = broker.head
            await publish(broker, "game:1")
            await publish(broker, "a", size=4_900)
        for others in (
            Namespaces([bounds(name="game")]),
            Namespaces([bounds(name="other")]),
            Namespaces([bounds(messages=0), bounds(name="game", size=600)]),
        ):
            async with opened(make_broker(others)) as (broker, _):
                assert (await read_to_head(broker, ["game:1"], start)).gaps != []
                place = placed(await broker.append(Draft("game:2", b"1" * 500)))
                assert (await read_to_head(broker, ["game:2"])).seqs[-1:] == [place.seq]
