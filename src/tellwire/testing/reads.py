"""The contract of reading: forwards, backwards, over many channels, and on into the live feed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import pytest

from tellwire.message import Draft, Gap, Message, Position
from tellwire.tasks import Tasks
from tellwire.testing.harness import MakeBroker, Opened, on_loop, opened, placed, publish, read_to_head

T = TypeVar("T")


class ReadContract:
    """What `Broker.read` and `Broker.read_back` promise while nothing is trimmed."""

    @on_loop
    async def test_read_of_nothing_reaches_the_head(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker()) as (broker, _):
            start = broker.head
            assert await broker.read(["a"], None, 1000) == ([], start, None)
            await publish(broker, "b", 3)
            assert await broker.read(["a"], None, 1000) == ([], broker.head, None)
            assert await broker.read(["a"], start, 1000) == ([], broker.head, None)
            assert await broker.read(["a", "b"], broker.head, 1000) == ([], broker.head, None)
            assert await broker.read_back(["a"], None, 10) == ([], broker.head, None)

    @on_loop
    async def test_broker_is_asked_outside_of_any_task(self, make_broker: MakeBroker) -> None:
        """As a node does, which makes a task only of what waits."""
        async with opened(make_broker()) as (broker, _):
            tasks = Tasks()
            loop = asyncio.get_running_loop()

            async def begin(operation: Coroutine[Any, Any, T]) -> T:
                answer: asyncio.Future[T] = loop.create_future()

                def done(result: T | None, error: BaseException | None) -> None:
                    if error is not None:
                        answer.set_exception(error)
                    else:
                        answer.set_result(cast("T", result))

                # A callback of the loop is in no task.
                loop.call_soon(tasks.start, operation, done)
                return await answer

            await begin(broker.follow("a"))
            place = placed(await begin(broker.append(Draft("a", b"1", id="1"))))
            read = await begin(broker.read(["a"], Position(place.epoch, 0), 65_536))
            assert [message.seq for message in read.messages] == [place.seq]
            assert (await begin(broker.read(["a"], place, 65_536))).messages == []
            assert (await begin(broker.read_back(["a"], None, 1))).messages == read.messages
            await begin(broker.unfollow("a"))
            await tasks.aclose()

    @on_loop
    async def test_read_begins_after_the_position(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker()) as (broker, _):
            places = await publish(broker, "a", 10)
            for index, place in enumerate(places):
                read = await broker.read(["a"], place, 65_536)
                assert [message.seq for message in read.messages] == [later.seq for later in places[index + 1 :]]
                assert read.gap is None
                assert read.position == broker.head
            start = Position(broker.head.epoch, 0)
            assert (await read_to_head(broker, ["a"], start)).seqs == [place.seq for place in places]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    @on_loop
    async def test_read_pages_by_number(self, make_broker: MakeBroker, limit: int) -> None:
        async with opened(make_broker(), *"abc") as (broker, feed):
            for number in range(40):
                await publish(broker, "aabac"[number % 5])
            for channels in (["a"], ["a", "b", "c"], ["c", "nothing"]):
                read = await read_to_head(broker, channels, limit=limit)
                assert read.messages == [message for message in feed.messages if message.channel in channels]
                assert max(map(len, read.pages)) <= limit
                assert read.gaps == []

    @pytest.mark.parametrize("limit_bytes", [1, 200, 1000, 5000])
    @on_loop
    async def test_read_pages_by_bytes(self, make_broker: MakeBroker, limit_bytes: int) -> None:
        async with opened(make_broker(), *"abc") as (broker, feed):
            for number in range(40):
                await publish(broker, "aabac"[number % 5], size=number * 20)
            for channels in (["a"], ["a", "b", "c"]):
                read = await read_to_head(broker, channels, limit_bytes=limit_bytes)
                assert read.messages == [message for message in feed.messages if message.channel in channels]
                for page in read.pages:
                    assert len(page) <= 1 or sum(message.size for message in page) <= limit_bytes
                assert read.gaps == []

    @on_loop
    async def test_read_merges_a_thousand_channels(self, make_broker: MakeBroker) -> None:
        channels = [f"room:{number}" for number in range(1000)]
        async with opened(make_broker(), *channels) as (broker, feed):
            await asyncio.gather(*(broker.append(Draft(channel, b"1")) for channel in channels))
            await asyncio.gather(*(broker.append(Draft(channel, b"2")) for channel in reversed(channels)))
            assert len(feed.messages) == 2000
            read = await read_to_head(broker, channels, limit_bytes=50_000)
            assert read.messages == feed.messages
            assert len(read.pages) > 2
            assert [m.seq for m in (await broker.read_back(channels, None, 10)).messages] == feed.seqs[-10:]

    @on_loop
    async def test_read_back_brings_the_newest(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a", "b") as (broker, feed):
            for number in range(20):
                await publish(broker, "ab"[number % 2])
            of_a = [message for message in feed.messages if message.channel == "a"]
            assert await broker.read_back(["a"], None, 3) == (of_a[-3:], broker.head, None)
            assert await broker.read_back(["a", "b"], None, 3) == (feed.messages[-3:], broker.head, None)
            assert await broker.read_back(["a", "b"], None, 1000) == (feed.messages, broker.head, None)
            assert (await broker.read_back(["a"], broker.head, 1)).messages == of_a[-1:]

    @on_loop
    async def test_read_back_pages_to_the_beginning(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), *"abc") as (broker, feed):
            for number in range(50):
                await publish(broker, "aabac"[number % 5])
            wanted = [message for message in feed.messages if message.channel in "ab"]
            pages: list[list[Message]] = []
            before = None
            while True:
                read = await broker.read_back(["a", "b"], before, 7)
                assert read.gap is None
                if not read.messages:
                    break
                pages.insert(0, read.messages)
                before = Position(broker.head.epoch, read.messages[0].seq)
            assert [message for page in pages for message in page] == wanted
            assert [len(page) for page in pages] == [len(wanted) % 7] * bool(len(wanted) % 7) + [7] * (len(wanted) // 7)

    @on_loop
    async def test_read_tells_of_another_epoch(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a") as (broker, feed):
            await publish(broker, "a", 3)
            other = Position("another", 2)
            start = Position(broker.head.epoch, 0)
            gap = Gap(str(other), str(start), "epoch", ("a", "b"))
            assert await broker.read(["a", "b"], other, 65_536) == (feed.messages, broker.head, gap)
            gap = Gap(str(other), str(broker.head), "epoch", ("a",))
            assert await broker.read_back(["a"], other, 2) == (feed.messages[-2:], broker.head, gap)

    @on_loop
    async def test_read_tells_of_a_position_ahead_of_the_head(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a") as (broker, feed):
            await publish(broker, "a", 3)
            ahead = Position(broker.head.epoch, broker.head.seq + 1)
            gap = Gap(str(ahead), str(Position(broker.head.epoch, 0)), "epoch", ("a",))
            assert await broker.read(["a"], ahead, 65_536) == (feed.messages, broker.head, gap)
            assert (await broker.read_back(["a"], ahead, 5)).messages == feed.messages, "just behind the newest"
            further = Position(broker.head.epoch, broker.head.seq + 2)
            read = await broker.read_back(["a"], further, 2)
            assert read.messages == feed.messages[-2:]
            assert read.gap == Gap(str(further), str(broker.head), "epoch", ("a",))

    @on_loop
    async def test_read_joins_the_feed_while_others_publish(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), *"abc") as node:
            broker, feed = node
            await publish(broker, "a", 50)
            tasks = Tasks()
            readers = [
                asyncio.create_task(_follow(node, channels, limit, 150))
                for channels, limit in (("a", 3), ("ab", 10), ("abc", 50), ("c", 1))
            ]
            for number in range(900):
                tasks.start(broker.append(Draft("abc"[number % 3], b"1")))
                if number % 10 == 0:
                    await asyncio.sleep(0)
            await publish(broker, "a")
            for channels, had in zip(("a", "ab", "abc", "c"), await asyncio.gather(*readers), strict=True):
                wanted = [message.seq for message in feed.messages if message.channel in channels]
                assert had[: len(wanted)] == wanted[: len(had)]
                assert len(had) >= 150


async def _follow(node: Opened, channels: str, limit: int, enough: int) -> list[int]:
    """Read up to the head in pages, then take what the feed brings; return what one has had by then."""
    broker, feed = node
    read = await read_to_head(broker, list(channels), limit=limit)
    # Nothing was waited for since the head was reached: what is delivered from here on is what was not read.
    already = len(feed.messages)
    had = read.seqs
    while len(had) < enough:
        await asyncio.sleep(0)
        had = read.seqs + [message.seq for message in feed.messages[already:] if message.channel in channels]
    return had
