"""The broker that fails on request: the contract while nothing is wrong, and each of its faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tellwire.brokers.base import Broker
from tellwire.errors import Unavailable
from tellwire.message import Appended, Draft
from tellwire.names import Namespaces
from tellwire.testing.contract import BrokerContract
from tellwire.testing.faulty import FaultyBroker
from tellwire.testing.harness import MakeBroker, on_loop, opened, publish, read_to_head


class TestFaultyBroker(BrokerContract):
    """The contract, over a log whose appends wait."""

    @pytest.fixture
    def make_broker(self) -> MakeBroker:
        def make(
            namespaces: Namespaces | None = None,
            *,
            dedupe_window_s: float = 300.0,
            clock: Callable[[], int] | None = None,
            store: str = "main",
        ) -> Broker:
            return FaultyBroker(namespaces, dedupe_window_s=dedupe_window_s, clock=clock, latency_s=0.0)

        return make


@on_loop
async def test_faulty_broker_refuses_appends() -> None:
    async with opened(FaultyBroker()) as (broker, feed):
        assert isinstance(broker, FaultyBroker)
        broker.fail_appends = 2
        for _ in range(2):
            with pytest.raises(Unavailable, match="refuse"):
                await publish(broker, "a")
        await publish(broker, "a")
        assert feed.seqs == [1]


@on_loop
async def test_faulty_broker_loses_answers_but_not_messages() -> None:
    async with opened(FaultyBroker()) as (broker, feed):
        assert isinstance(broker, FaultyBroker)
        broker.lose_answers = 1
        draft = Draft("a", b"1", id="x")
        with pytest.raises(Unavailable, match="lose"):
            await broker.append(draft)
        assert await broker.append(draft) == Appended(broker.head, duplicate=True)
        assert len(feed.messages) == 1


@on_loop
async def test_faulty_broker_holds_appends_until_released() -> None:
    async with opened(FaultyBroker()) as (broker, feed):
        assert isinstance(broker, FaultyBroker)
        broker.hold()
        appends = [asyncio.ensure_future(broker.append(Draft("a", str(n).encode()))) for n in range(3)]
        await asyncio.sleep(0)
        assert feed.messages == []
        broker.release()
        await asyncio.gather(*appends)
        assert [message.data for message in feed.messages] == [b"0", b"1", b"2"]


@on_loop
async def test_faulty_broker_fails_reads() -> None:
    async with opened(FaultyBroker()) as (broker, _):
        assert isinstance(broker, FaultyBroker)
        broker.fail_reads = 2
        with pytest.raises(Unavailable, match="read"):
            await broker.read(["a"], None, 1000)
        with pytest.raises(Unavailable, match="read"):
            await broker.read_back(["a"], None, 10)
        assert (await broker.read(["a"], None, 1000)).messages == []


@on_loop
async def test_faulty_broker_loses_its_log() -> None:
    async with opened(FaultyBroker()) as (broker, feed):
        assert isinstance(broker, FaultyBroker)
        (place,) = await publish(broker, "a")
        broker.lose_log()
        assert feed.heads == [broker.head]
        assert broker.head.epoch != place.epoch
        read = await read_to_head(broker, ["a"], place)
        assert read.messages == []
        assert [gap.reason for gap in read.gaps] == ["epoch"]


def test_loop_of_a_test_ends_where_a_connection_is_left_open() -> None:
    pytest.importorskip("uvloop")
    left: list[object] = []

    @on_loop
    async def leave() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        left.append(await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname()))
        server.close()

    with pytest.warns(ResourceWarning, match="TCPTransport"):
        leave()
