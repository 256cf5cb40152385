"""Presence in NATS: the contract, and what is its own: nodes that share it, lost connections."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tellwire.brokers.nats_url import NatsPlace
from tellwire.presence import make_presence as make_presence_of
from tellwire.presence.base import Presence
from tellwire.presence.nats import NatsPresence
from tellwire.testing.members import MakePresence, PresenceContract
from tellwire.testing.members_left import LastingPresenceContract, SharedPresenceContract
from tellwire.testing.members_model import PresenceModelContract
from tests.nats_servers import NatsServer, nats_server, needs_nats

pytestmark = needs_nats

_stores = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


class TestNatsPresence(PresenceContract, LastingPresenceContract, SharedPresenceContract, PresenceModelContract):
    """The contract."""

    nodes_at_once = 3

    @pytest.fixture
    def make_presence(self, server: NatsServer) -> MakePresence:
        test = next(_stores)

        def make(*, clock: Callable[[], int] | None = None, store: str = "main") -> Presence:
            place = NatsPlace.parse(f"{server.url}?prefix=store-{test}-{store.replace(' ', '-')}")
            return NatsPresence(place, clock=clock)

        return make


def test_nats_presence_lies_beside_the_log() -> None:
    presence = make_presence_of("nats://127.0.0.1:1?prefix=mine")
    assert isinstance(presence, NatsPresence)
    assert presence.place.prefix == "mine"
