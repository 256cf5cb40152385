"""What is counted, where it happens: at the hub and its readers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellwire.brokers.memory import MemoryBroker
from tellwire.counters import MESSAGES, RATES_OVER_S, SECONDS, Counters, Histogram, Rates
from tellwire.hub import Hub
from tellwire.message import Cursor, Draft, Position, Since
from tellwire.names import Namespace, Namespaces, Policy
from tellwire.protocol.encodings import OBJECTS, Encoding, lines
from tellwire.subscriber import Subscriber
from tellwire.tasks import Tasks
from tellwire.testing.harness import on_loop
from tests.nodes import Sink, Who

LINES = lines(chunked=True)


class Case:
    """A hub with readers."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.counters = hub.counters

    async def read(
        self,
        channel: str,
        who: Who | None = None,
        *,
        since: Since = "now",
        policy: Policy = "catch_up",
        encoding: Encoding = LINES,
    ) -> tuple[Subscriber, Sink]:
        sink = Sink()
        subscriber = Subscriber(self.hub, sink, encoding, who or Who())
        self.hub.enter(subscriber)
        self.hub.join(subscriber, await self.hub.place({channel: policy}, since))
        return subscriber, sink

    async def say(self, channel: str, data: bytes = b"1", **fields: Any) -> Position:
        place = (await self.hub.broker.append(Draft(channel, data, **fields))).position
        assert place is not None
        return place


@asynccontextmanager
async def case() -> AsyncIterator[Case]:
    tasks = Tasks()
    broker = MemoryBroker(Namespaces([Namespace("short", history_messages=2)]))
    hub = Hub(broker, tasks, tail_max_bytes=100_000, read_bite_bytes=10_000)
    await hub.open()
    yield Case(hub)
    await tasks.aclose()
    await broker.aclose()


@given(st.lists(st.floats(0, 100)))
def test_histogram_counts_each_value_in_the_first_bucket_that_holds_it(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(sum(values))
    for place, bound in enumerate(SECONDS):
        assert sum(histogram.counts[: place + 1]) == sum(value <= bound for value in values)


@pytest.mark.parametrize("bounds", [SECONDS, MESSAGES])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


@on_loop
async def test_flush_counts_every_reader_and_what_it_was_given() -> None:
    async with case() as it:
        readers = [await it.read("a") for _ in range(3)]
        objects = await it.read("a", encoding=OBJECTS)
        await it.say("a", b'"one"')
        await it.say("a", b'"two"')
        it.hub.flush()
        assert it.counters.delivered_messages == 2 * 4
        frames = list(objects[1].batches[0])
        # Chunked, three readers have the same frames and a newline each, in a chunk with a head of its own.
        assert it.counters.delivered_bytes == sum(map(len, frames)) * 4 + 2 * 3
        assert len({id(sink.batches[0]) for _, sink in readers}) == 1, "one object for all"
        assert it.counters.flush_messages.counts[1] == 1
        assert it.counters.deliver_lag_s.count == 1


@on_loop
async def test_flush_counts_one_flush_for_several_channels() -> None:
    async with case() as it:
        await it.read("a")
        await it.read("b")
        for channel in "abb":
            await it.say(channel)
        it.hub.flush()
        assert it.counters.flush_messages.total == 3
        assert it.counters.flush_messages.count == 1
        assert it.counters.delivered_messages == 3
        it.hub.flush()
        assert it.counters.flush_messages.count == 1, "a flush with nothing in it is none"


@on_loop
async def test_flush_leaves_out_of_the_count_who_was_left_out() -> None:
    async with case() as it:
        mine, _ = await it.read("a", Who(session="mine"))
        _, other = await it.read("a", Who(session="other"))
        await it.say("a", b"1", skip="mine")
        it.hub.flush()
        assert it.counters.delivered_messages == 1
        await it.say("a", b"2", skip="mine")
        await it.say("a", b"3")
        it.hub.flush()
        assert it.counters.delivered_messages == 1 + 1 + 2
        assert it.counters.fell_behind == 0
        assert len(other.batches) == 2
        it.hub.leave(mine)


@on_loop
async def test_catching_up_is_counted_once_it_is_written() -> None:
    async with case() as it:
        reader, sink = await it.read("a")
        await it.read("a")
        sink.writable = False
        for number in range(3):
            await it.say("a", b"%d" % number)
            it.hub.flush()
        assert it.counters.fell_behind == 1, "it left the live set, and is not looked at again"
        assert it.counters.delivered_messages == 3
        sink.writable = True
        reader.advance()
        assert reader.live
        assert it.counters.delivered_messages == 6
        await it.read("a", since="earliest")
        assert it.counters.delivered_messages == 9


@on_loop
async def test_bytes_of_catching_up_are_those_of_the_flush() -> None:
    async with case() as it:
        await it.read("a")
        begin = await it.say("a", b'"x"')
        await it.say("a", b'"yy"')
        it.hub.flush()
        live = it.counters.delivered_bytes
        await it.read("a", since=Cursor((Position(begin.epoch, 0),)))
        assert it.counters.delivered_bytes == 2 * live


@on_loop
async def test_gaps_are_counted_by_reason_where_the_reader_is_told() -> None:
    async with case() as it:
        for _ in range(4):
            await it.say("short:a")
        await it.read("short:a", since=Cursor((Position(it.hub.epoch, 0),)))
        assert dict(it.counters.gaps) == {"trimmed": 1}
        await it.read("short:a", since=Cursor((Position("other", 5),)))
        assert dict(it.counters.gaps) == {"trimmed": 1, "epoch": 1}
        it.hub.reset(Position("fresh", 0))
        assert dict(it.counters.gaps) == {"trimmed": 1, "epoch": 3}, "each of the two readers was told"


@on_loop
async def test_connections_are_counted_by_transport_and_only_once() -> None:
    async with case() as it:
        socket, _ = await it.read("a", Who(transport="websocket"))
        stream, _ = await it.read("b")
        assert dict(it.counters.connections) == {"websocket": 1, "stream": 1}
        assert it.hub.readings == 2
        for _ in range(2):
            it.hub.leave(socket)
        assert dict(it.counters.connections) == {"websocket": 0, "stream": 1}
        it.hub.leave(stream)
        await it.read("a", Who(transport="websocket"))
        assert dict(it.counters.connections_opened) == {"websocket": 2, "stream": 1}
        assert it.hub.readings == 1


def test_publishes_count_duplicates_apart() -> None:
    counters = Counters()
    counters.published(time.perf_counter(), 10, duplicate=False)
    counters.published(time.perf_counter(), 10, duplicate=True)
    assert (counters.published_messages, counters.published_bytes, counters.duplicates) == (1, 10, 1)
    assert counters.publish_s.count == 2


def test_messages_from_a_clock_that_is_ahead_have_no_lag() -> None:
    counters = Counters()
    counters.flushed(1, int(time.time() * 1000) + 60_000)
    assert counters.deliver_lag_s.total == 0
    assert counters.deliver_lag_s.counts[0] == 1


def test_hooks_count_calls_failures_and_time() -> None:
    counters = Counters()
    for failed in (False, True, False):
        counters.hooked("publish", time.perf_counter(), failed=failed)
    hook = counters.hooks["publish"]
    assert (hook.calls, hook.failures) == (3, 1)


def test_rates_are_over_the_last_seconds_only() -> None:
    rates = Rates()
    assert rates.per_second() == {}
    rates.sample(0.0, {"published": 0})
    assert rates.per_second() == {}
    rates.sample(1.0, {"published": 1000})
    assert rates.per_second() == {"published": 1000.0}
    for second in range(2, 100):
        assert rates.is_due(second)
        assert not rates.is_due(second - 0.5)
        rates.sample(second, {"published": 1000 + 5 * (second - 1)})
    assert rates.per_second() == {"published": 5.0}
    rates.sample(99 + 5 * RATES_OVER_S, {"published": 1000 + 5 * 98})
    assert rates.per_second() == {"published": 0.0}


def test_counters_tell_rates_of_what_they_count() -> None:
    counters = Counters()
    counters.sample(10.0)
    counters.opened("sse")
    counters.delivered(2, 100, readers=50)
    counters.published(time.perf_counter(), 7, duplicate=False)
    counters.rejects["forbidden"] += 1
    counters.sample(10.5)
    assert counters.rates() == {}, "too soon"
    counters.sample(12.0)
    assert counters.rates() == {
        "published": 0.5,
        "published_bytes": 3.5,
        "delivered": 50.0,
        "delivered_bytes": 2500.0,
        "connections": 0.5,
        "rejects": 0.5,
    }
