"""The memory broker: the contract, and what is its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tellwire.brokers import make_broker as make_broker_of
from tellwire.brokers.base import Broker
from tellwire.brokers.memory import MemoryBroker
from tellwire.message import Draft
from tellwire.names import Namespaces
from tellwire.testing.contract import BrokerContract
from tellwire.testing.harness import MakeBroker, on_loop, opened
from tellwire.testing.model import BrokerModelContract


class TestMemoryBroker(BrokerContract, BrokerModelContract):
    """The contract, over logs in memory."""

    @pytest.fixture
    def make_broker(self) -> MakeBroker:
        return make_memory


def make_memory(
    namespaces: Namespaces | None = None,
    *,
    dedupe_window_s: float = 300.0,
    clock: Callable[[], int] | None = None,
    store: str = "main",
) -> Broker:
    if clock is None:
        return MemoryBroker(namespaces, dedupe_window_s=dedupe_window_s)
    return MemoryBroker(namespaces, dedupe_window_s=dedupe_window_s, clock=clock)


def test_memory_broker_is_named_by_its_url() -> None:
    assert isinstance(make_broker_of("memory://", Namespaces()), MemoryBroker)


@pytest.mark.parametrize("url", ["memory://host", "memory:///path", "memory://?sync=full"])
def test_memory_broker_takes_no_parts(url: str) -> None:
    with pytest.raises(ValueError, match="memory://"):
        make_broker_of(url, Namespaces())


def test_broker_url_of_an_unknown_scheme_is_refused_with_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"'nowhere://x'.*memory://, sqlite://"):
        make_broker_of("nowhere://x", Namespaces())


@on_loop
async def test_memory_broker_forgets_the_oldest_ids_over_the_bound() -> None:
    async with opened(MemoryBroker(dedupe_max_bytes=5_000)) as (broker, _):
        for number in range(100):
            await broker.append(Draft("a", b"1", id=str(number)))
        assert (await broker.append(Draft("a", b"1", id="99"))).duplicate
        assert not (await broker.append(Draft("a", b"1", id="0"))).duplicate
