"""The Redis broker: the contract, over a real server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tellwire.brokers.base import Broker
from tellwire.brokers.redis import RedisBroker
from tellwire.brokers.redis_url import RedisPlace
from tellwire.names import Namespaces
from tellwire.testing.contract import DurableBrokerContract
from tellwire.testing.harness import MakeBroker
from tellwire.testing.model import BrokerModelContract
from tests.redis_servers import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

_logs = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


class TestRedisBroker(DurableBrokerContract, BrokerModelContract):
    """The contract."""

    durable = True

    @pytest.fixture
    def make_broker(self, server: RedisServer) -> MakeBroker:
        log = next(_logs)

        def make(
            namespaces: Namespaces | None = None,
            *,
            dedupe_window_s: float = 300.0,
            clock: Callable[[], int] | None = None,
            store: str = "main",
        ) -> Broker:
            place = RedisPlace.parse(f"{server.url}?prefix=log-{log}-{store.replace(' ', '-')}")
            return RedisBroker(place, namespaces, dedupe_window_s=dedupe_window_s, clock=clock)

        return make
