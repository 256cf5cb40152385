"""The contract of keeping: how much history there is, and what a reader is told of the rest."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from tellwire.message import Draft, Gap, Position
from tellwire.names import Namespace, Namespaces
from tellwire.tasks import Tasks
from tellwire.testing.harness import Clock, MakeBroker, Opened, on_loop, opened, publish, read_to_head


def bounds(messages: int = 1000, age_s: float = 86_400.0, size: int = 1 << 26, name: str = "default") -> Namespace:
    """Make a namespace of these bounds."""
    return Namespace(name, history_messages=messages, history_age_s=age_s, history_bytes=size)


class Had(NamedTuple):
    """What a reader was given, what it was told of, and how far it came."""

    seqs: list[int]
    gaps: list[Gap]
    position: Position


async def _read_behind(node: Opened, channels: str, pages: int) -> Had:
    """Read page after page of a log that is written faster than that."""
    broker, _ = node
    had: list[int] = []
    gaps: list[Gap] = []
    position = Position(broker.head.epoch, 0)
    for _ in range(pages):
        read = await broker.read(list(channels), position, 65_536, 3)
        position = read.position
        had += [message.seq for message in read.messages]
        if read.gap is not None:
            gaps.append(read.gap)
            assert Position.parse(read.gap.to) <= broker.head, (
                "a gap ends at the head at most: the feed brings the rest"
            )
        await asyncio.sleep(0)
    return Had(had, gaps, position)


class BoundsContract:
    """What the bounds of a `Namespace` do to a log."""

    @on_loop
    async def test_trim_keeps_so_many_messages_per_channel(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(Namespaces([bounds(messages=5)]))) as (broker, _):
            of_a = await publish(broker, "a", 3)
            of_b = await publish(broker, "b", 12)
            of_a += await publish(broker, "a", 4)
            assert (await read_to_head(broker, ["a"])).seqs == [place.seq for place in of_a[-5:]]
            assert (await read_to_head(broker, ["b"])).seqs == [place.seq for place in of_b[-5:]]
            assert (await broker.read_back(["a"], None, 100)).messages == (await read_to_head(broker, ["a"])).messages

    @on_loop
    async def test_trim_is_told_to_readers_behind_it_only(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(Namespaces([bounds(messages=5)]))) as (broker, _):
            places = await publish(broker, "a", 20)
            floor = places[14]
            for place in places:
                read = await broker.read(["a"], place, 65_536)
                behind = place < floor
                assert read.gap == (Gap(str(place), str(floor), "trimmed", ("a",)) if behind else None)
                kept = [later.seq for later in places if later > max(place, floor)]
                assert [message.seq for message in read.messages] == kept
            assert (await broker.read(["a"], None, 65_536)).gap is None
            (gap,) = (await read_to_head(broker, ["a"], places[0], limit=1)).gaps
            assert gap.to == str(floor)
            foreign = await broker.read(["a"], Position("another", 1), 65_536)
            assert foreign.gap == Gap("another.1", str(floor), "epoch", ("a",))

    @on_loop
    async def test_trim_names_the_channels_that_miss_something(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(Namespaces([bounds(messages=3)]))) as (broker, _):
            of_b = await publish(broker, "b", 2)
            of_a = await publish(broker, "a", 10)
            read = await broker.read(["a", "b"], of_b[0], 65_536)
            assert read.gap == Gap(str(of_b[0]), str(of_a[6]), "trimmed", ("a",))
            assert [message.seq for message in read.messages] == [place.seq for place in [of_b[1], *of_a[-3:]]]
            assert (await broker.read(["b"], of_b[0], 65_536)).gap is None

    @on_loop
    async def test_trim_drops_what_is_too_old(self, make_broker: MakeBroker) -> None:
        clock = Clock()
        async with opened(make_broker(Namespaces([bounds(age_s=60)]), clock=clock)) as (broker, _):
            old = await publish(broker, "a", 3)
            await publish(broker, "b")
            clock.advance(30)
            young = await publish(broker, "a", 2)
            clock.advance(30)
            assert (await read_to_head(broker, ["a"], old[0])).gaps == []
            clock.advance(0.001)
            read = await broker.read(["a"], old[0], 65_536)
            assert [message.seq for message in read.messages] == [place.seq for place in young]
            assert read.gap == Gap(str(old[0]), str(old[2]), "trimmed", ("a",))
            assert (await broker.read(["a"], old[2], 65_536)).gap is None
            assert len((await broker.read_back(["a"], None, 100)).messages) == 2
            clock.advance(29.999)
            assert (await read_to_head(broker, ["a"])).seqs == [place.seq for place in young]
            clock.advance(0.001)
            read = await broker.read(["a", "b"], old[0], 65_536)
            assert read.messages == []
            assert read.position == broker.head
            assert read.gap == Gap(str(old[0]), str(young[-1]), "trimmed", ("a", "b"))
            newest = await publish(broker, "a", 2)
            assert (await read_to_head(broker, ["a"])).seqs == [place.seq for place in newest]
            assert (await broker.read(["a"], young[-1], 65_536)).gap is None
            assert (await broker.read(["b"], old[0], 65_536)).gap is not None

    @on_loop
    async def test_trim_empties_the_channels_not_used_for_longest(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(Namespaces([bounds(size=20_000)]))) as (broker, _):
            start = broker.head
            for channel in ("a", "b", "c"):
                await publish(broker, channel, 2, size=2500)
            await broker.read(["a"], start, 100)  # reading is using, too
            last = (await publish(broker, "d", 2, size=2500))[-1]
            for channel, messages in (("a", 2), ("b", 0), ("c", 2), ("d", 2)):
                read = await read_to_head(broker, [channel], start)
                assert len(read.messages) == messages, channel
                assert bool(read.gaps) == (channel == "b") or channel == "d"
            (gap,) = (await read_to_head(broker, ["b"], start)).gaps
            assert gap.reason == "trimmed"
            assert Position.parse(gap.to) < last
            again = await publish(broker, "b")
            assert (await read_to_head(broker, ["b"], last)).seqs == [again[0].seq]

    @on_loop
    async def test_trim_keeps_the_newest_of_one_large_channel(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(Namespaces([bounds(size=10_000)]))) as (broker, _):
            places = await publish(broker, "a", 50, size=500)
            kept = (await read_to_head(broker, ["a"])).messages
            assert 8_000 < sum(message.size for message in kept) <= 10_000
            assert [message.seq for message in kept] == [place.seq for place in places[-len(kept) :]]
            (gap,) = (await read_to_head(broker, ["a"], places[0])).gaps
            assert gap.to == str(places[-len(kept) - 1])
            huge = await publish(broker, "a", size=100_000)
            assert (await read_to_head(broker, ["a"])).seqs == [huge[0].seq], "the newest message is always kept"

    @on_loop
    async def test_trim_bounds_the_number_of_channels(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(Namespaces([bounds(size=100_000)]))) as (broker, _):
            start = broker.head
            channels = [f"room-{number}" for number in range(1000)]
            for channel in channels:
                await publish(broker, channel)
            kept = await read_to_head(broker, channels, start)
            assert 50 < len(kept.messages) < 500
            assert [message.channel for message in kept.messages] == channels[-len(kept.messages) :]
            (gap,) = kept.gaps
            assert set(channels[: -len(kept.messages)]) <= set(gap.channels)

    @on_loop
    async def test_trim_while_others_read_is_told(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(Namespaces([bounds(messages=7)])), *"abc") as node:
            broker, feed = node
            tasks = Tasks()
            readers = [asyncio.create_task(_read_behind(node, channels, 60)) for channels in ("a", "ab", "abc")]
            while not all(reader.done() for reader in readers):
                for number in range(30):
                    tasks.start(broker.append(Draft("aabac"[number % 5], b"1")))
                await publish(broker, "a")
                await asyncio.sleep(0)  # a log in memory never waits
            for channels, reader in zip(("a", "ab", "abc"), readers, strict=True):
                had, gaps, position = await reader
                assert had == sorted(set(had))
                for message in feed.messages:
                    if message.channel in channels and message.seq <= position.seq and message.seq not in had:
                        place = Position(position.epoch, message.seq)
                        assert any(
                            message.channel in gap.channels
                            and Position.parse(gap.from_) < place <= Position.parse(gap.to)
                            for gap in gaps
                        ), f"{message.seq} is missing, and nobody was told"

    @on_loop
    async def test_trim_of_one_namespace_spares_another(self, make_broker: MakeBroker) -> None:
        namespaces = Namespaces([bounds(messages=2, name="short"), bounds(size=5_000, name="small")])
        async with opened(make_broker(namespaces)) as (broker, _):
            for channel in ("a", "short:a", "small:a", "unknown:a", "short"):
                await publish(broker, channel, 30, size=100)
            kept = {
                channel: len((await read_to_head(broker, [channel])).messages)
                for channel in ("a", "short:a", "small:a", "unknown:a", "short")
            }
            assert 10 < kept.pop("small:a") < 30
            assert kept == {"a": 30, "short:a": 2, "unknown:a": 30, "short": 30}
