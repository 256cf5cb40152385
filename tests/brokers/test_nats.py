"""The NATS broker: the contract, over a real server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import nkeys  # type: ignore[import-untyped]
import pytest

from tellwire.brokers.base import Broker
from tellwire.brokers.nats import NatsBroker
from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import Unavailable
from tellwire.names import Namespaces
from tellwire.testing.contract import DurableBrokerContract
from tellwire.testing.harness import Collected, MakeBroker, on_loop, opened, publish
from tellwire.testing.model import BrokerModelContract
from tests.nats_servers import NatsServer, nats_server, needs_nats
from tests.serving import Certificate

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


@on_loop
async def test_nats_over_tls_with_a_password(tmp_path: Path, certificate: Certificate) -> None:
    config = f"""
        tls {{ cert_file: "{certificate.cert}", key_file: "{certificate.key}" }}
        authorization {{ user: ann, password: "s:cret" }}
    """
    with nats_server(tmp_path, config) as server:
        url = f"tls://ann:s%3Acret@127.0.0.1:{server.port}?ca={certificate.cert}"
        async with opened(NatsBroker(NatsPlace.parse(url)), "a") as (broker, feed):
            await publish(broker, "a", 3)
            assert feed.seqs == [1, 2, 3]
        for wrong, sentence in (
            (url.replace("s%3Acret", "guess"), "uthorization|token are wrong"),
            (url.partition("?")[0], "certificate"),
        ):
            broken = NatsBroker(NatsPlace.parse(wrong))
            with pytest.raises(Unavailable, match=sentence) as caught:
                await broken.open(Collected())
            assert "guess" not in str(caught.value)
            await broken.aclose()


@on_loop
async def test_nats_with_an_nkey(tmp_path: Path) -> None:
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    (tmp_path / "user.nk").write_bytes(seed)
    with nats_server(tmp_path, f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as server:
        async with opened(NatsBroker(NatsPlace.parse(f"{server.url}?nkey={tmp_path}/user.nk")), "a") as (broker, feed):
            await publish(broker, "a")
            assert feed.seqs == [1]
        broken = NatsBroker(NatsPlace.parse(server.url))
        with pytest.raises(Unavailable, match=r"uthorization|token are wrong"):
            await broken.open(Collected())
        await broken.aclose()
