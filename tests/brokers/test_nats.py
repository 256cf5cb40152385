"""The NATS broker: the contract, over a real server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tellwire.brokers.base import Broker
from tellwire.brokers.nats import NatsBroker
from tellwire.brokers.nats_url import NatsPlace
from tellwire.names import Namespaces
from tellwire.testing.contract import DurableBrokerContract
from tellwire.testing.harness import MakeBroker
from tellwire.testing.model import BrokerModelContract
from tests.nats_servers import NatsServer, nats_server, needs_nats

pytestmark = needs_nats

_logs = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


class TestNatsBroker(DurableBrokerContract, BrokerModelContract):
    """The contract."""

    durable = True

    @pytest.fixture
    def make_broker(self, server: NatsServer) -> MakeBroker:
        log = next(_logs)

        def make(
            namespaces: Namespaces | None = None,
            *,
            dedupe_window_s: float = 300.0,
            clock: Callable[[], int] | None = None,
            store: str = "main",
        ) -> Broker:
            place = NatsPlace.parse(f"{server.url}?prefix=log-{log}-{store.replace(' ', '-')}")
            return NatsBroker(place, namespaces, dedupe_window_s=dedupe_window_s, clock=clock)

        return make


def place_of(server: NatsServer) -> NatsPlace:
    return NatsPlace.parse(f"{server.url}?prefix=log-{next(_logs)}")
