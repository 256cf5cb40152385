"""Presence in Redis: the contract, and what is its own: nodes that share it, lost connections."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tellwire.brokers.redis_url import RedisPlace
from tellwire.presence import make_presence as make_presence_of
from tellwire.presence.base import Presence
from tellwire.presence.redis import RedisPresence
from tellwire.testing.members import MakePresence, PresenceContract
from tellwire.testing.members_left import LastingPresenceContract, SharedPresenceContract
from tellwire.testing.members_model import PresenceModelContract
from tests.redis_servers import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

_stores = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


class TestRedisPresence(PresenceContract, LastingPresenceContract, SharedPresenceContract, PresenceModelContract):
    """The contract."""

    nodes_at_once = 3

    @pytest.fixture
    def make_presence(self, server: RedisServer) -> MakePresence:
        test = next(_stores)

        def make(*, clock: Callable[[], int] | None = None, store: str = "main") -> Presence:
            place = RedisPlace.parse(f"{server.url}?prefix=store-{test}-{store.replace(' ', '-')}")
            return RedisPresence(place, clock=clock)

        return make


def test_redis_presence_lies_beside_the_log() -> None:
    presence = make_presence_of("redis://127.0.0.1:1/3?prefix=mine")
    assert isinstance(presence, RedisPresence)
    assert (presence.place.db, presence.place.prefix) == (3, "mine")
