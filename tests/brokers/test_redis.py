"""The Redis broker: the contract, over a real server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tellwire.brokers.base import Broker
from tellwire.brokers.redis import RedisBroker
from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import InvalidData, Unavailable
from tellwire.message import Draft
from tellwire.names import Namespaces
from tellwire.testing.contract import DurableBrokerContract
from tellwire.testing.harness import Collected, MakeBroker, on_loop, opened, publish
from tellwire.testing.model import BrokerModelContract
from tests.ports import free_port
from tests.redis_servers import RedisServer, needs_redis, redis_server
from tests.serving import Certificate

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


def place_of(server: RedisServer) -> RedisPlace:
    return RedisPlace.parse(f"{server.url}?prefix=log-{next(_logs)}")


@on_loop
async def test_redis_fails_a_message_that_cannot_be_kept_alone(server: RedisServer) -> None:
    async with opened(RedisBroker(place_of(server)), "a") as (broker, feed):
        drafts = [Draft("a", b"%d" % number, id=str(number)) for number in range(20)]
        drafts[3] = Draft("a", b"3", id="\ud800")
        drafts[5] = Draft("a", b"5", event="\udfff")
        drafts[7] = Draft("\ud800", b"7")
        answers = await asyncio.gather(*map(broker.append, drafts), return_exceptions=True)
        assert [number for number, answer in enumerate(answers) if isinstance(answer, InvalidData)] == [3, 5, 7]
        assert len(feed.messages) == 17


@on_loop
async def test_redis_that_forgot_the_scripts_is_told_them_again(server: RedisServer) -> None:
    async with opened(RedisBroker(place_of(server)), "a") as (broker, feed):
        await publish(broker, "a")
        server.command("SCRIPT FLUSH")
        answers = await asyncio.gather(*(broker.append(Draft("a", b"%d" % number)) for number in range(20)))
        assert not any(answer.duplicate for answer in answers)
        assert [message.data for message in feed.messages[1:]] == [b"%d" % number for number in range(20)]
        assert feed.heads == []


@on_loop
async def test_redis_out_of_memory_refuses_and_keeps_nothing(server: RedisServer) -> None:
    async with opened(RedisBroker(place_of(server)), "a") as (broker, feed):
        (first,) = await publish(broker, "a")
        server.command("CONFIG SET maxmemory 1")
        try:
            with pytest.raises(Unavailable, match="refused: OOM"):
                await broker.append(Draft("a", b"2", id="x"))
            assert [message.seq for message in (await broker.read(["a"], None, 1000)).messages] == [first.seq]
        finally:
            server.command("CONFIG SET maxmemory 0")
        assert not (await broker.append(Draft("a", b"2", id="x"))).duplicate
        assert feed.seqs == [1, 2]


@on_loop
async def test_redis_logs_of_other_names_and_databases_are_apart(server: RedisServer) -> None:
    one = RedisPlace.parse(f"{server.url}?prefix=apart")
    urls = [f"{server.url}?prefix=apart-2", f"redis://127.0.0.1:{server.port}/1?prefix=apart"]
    async with opened(RedisBroker(one), "a") as (broker, _):
        for url in urls:
            async with opened(RedisBroker(RedisPlace.parse(url)), "a") as (other, other_feed):
                await publish(broker, "a", 3)
                assert other.head.epoch != broker.head.epoch
                assert await other.read(["a"], None, 1000) == ([], other.head, None)
                await publish(other, "a")
                assert other_feed.seqs == [1]


@on_loop
async def test_redis_over_tls_with_a_password(tmp_path: Path, certificate: Certificate) -> None:
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", str(certificate.cert), "--tls-key-file", str(certificate.key))
    with redis_server(
        tmp_path, *tls, "--tls-ca-cert-file", str(certificate.cert), "--tls-auth-clients", "no"
    ) as server:
        server.command("ACL SETUSER ann on >s:cret ~{tellwire}:* &{tellwire}:* +@all")
        url = f"rediss://ann:s%3Acret@127.0.0.1:{port}/0?ca={certificate.cert}"
        async with opened(RedisBroker(RedisPlace.parse(url)), "a") as (broker, feed):
            await publish(broker, "a", 3)
            assert feed.seqs == [1, 2, 3]
        for wrong, sentence in (
            (url.replace("s%3Acret", "guess"), "WRONGPASS"),
            (url.partition("?")[0], "certificate"),
            (f"redis://127.0.0.1:{port}", "cannot be reached"),
        ):
            broken = RedisBroker(RedisPlace.parse(wrong))
            with pytest.raises(Unavailable, match=sentence) as caught:
                await broken.open(Collected())
            assert "guess" not in str(caught.value)
            await broken.aclose()
