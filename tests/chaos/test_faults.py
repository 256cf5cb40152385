"""Whatever fails, what was acknowledged comes to every reader once and in order, or a gap says what may be missing."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from tests.chaos.crowd import Crowd, check_gaps_say_what_is_missing, check_nothing_is_missing
from tests.chaos.network import Network
from tests.chaos.nodes import BEGIN, Nodes
from tests.chaos.places import BROKERS, TIMEOUT_S, Site, site
from tests.chaos.seats import RawSeat
from tests.nats_servers import NatsServer, nats_cluster, needs_nats
from tests.redis_servers import RedisServer, needs_redis, running, watched_redis
from tests.wires import Http

FLOW = 15
"""Publishes of each publisher before, between and after faults."""


@pytest.fixture(scope="module", params=BROKERS)
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a broker with three nodes on it; a test leaves all of them running."""
    with site(request.param, tmp_path_factory.mktemp("site")) as there:
        yield there


@pytest.fixture
def crowd(here: Site, channel: str) -> Iterator[Crowd]:
    with Crowd(here.nodes.addresses, channel) as crowd:
        crowd.flow(FLOW)
        yield crowd


def test_broker_is_killed_and_started_again(here: Site, crowd: Crowd) -> None:
    here.place.kill()
    crowd.fail()
    here.place.start()
    crowd.flow(FLOW)
    check_nothing_is_missing(crowd, crowd.finish())


def test_broker_is_killed_while_it_writes(here: Site, crowd: Crowd) -> None:
    for _ in range(3):
        here.place.kill()
        here.place.start()
        crowd.flow(FLOW // 3)
    check_nothing_is_missing(crowd, crowd.finish())


def test_connections_with_the_broker_are_cut(here: Site, crowd: Crowd) -> None:
    for _ in range(5):
        for cable in here.cables:
            cable.cut()
            cable.mend()
        crowd.flow(FLOW // 3)
    check_nothing_is_missing(crowd, crowd.finish())


def test_broker_stands_still_for_longer_than_anybody_waits(here: Site, crowd: Crowd) -> None:
    here.place.pause()
    try:
        crowd.fail(2)
    finally:
        here.place.go_on()
    crowd.flow(FLOW)
    check_nothing_is_missing(crowd, crowd.finish())


def test_node_is_killed(here: Site, crowd: Crowd) -> None:
    for place in (0, 1):
        here.nodes.servers[place].kill()
        here.nodes.servers[place].wait()
        crowd.flow(FLOW)
        here.nodes.start_again(place)
    crowd.flow(FLOW)
    check_nothing_is_missing(crowd, crowd.finish())


def test_node_is_cut_off_from_the_broker(here: Site, crowd: Crowd) -> None:
    check_cut_off(here.nodes, crowd, here.cables[2].stall, here.cables[2].go_on)


@needs_redis
def test_node_is_cut_off_by_the_network(channel: str, tmp_path: Path) -> None:
    with Network() as network:
        near, far = network.wires
        options = ("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--protected-mode", "no")
        redis = RedisServer(tmp_path, *options, "--bind", near.host, far.host, host=near.host, through=network.inside)
        with running(redis):
            urls = [f"redis://{wire.host}:{redis.port}/0?timeout={TIMEOUT_S}" for wire in (near, near, far)]
            with closing(Nodes(urls)) as nodes, Crowd(nodes.addresses, channel) as crowd:
                crowd.flow(FLOW)
                check_cut_off(nodes, crowd, far.unplug, far.plug_in)


def check_cut_off(nodes: Nodes, crowd: Crowd, cut: Callable[[], None], mend: Callable[[], None]) -> None:
    """Let nothing through between the third node and the broker, and neither be told so; the others go on."""
    others = crowd.mouths[:2]
    cut()
    try:
        crowd.flow(FLOW, others)
        with Http(nodes.addresses[2]) as http:
            answer = http.post("/v1/messages", {"channel": crowd.channels[0], "data": BEGIN, "id": "cut off"})
            assert answer.code == "unavailable"
        crowd.flow(FLOW, others)
        elsewhere = [seat for seat in crowd.seats if isinstance(seat, RawSeat) and seat.node != 2]
        assert len(elsewhere) >= 20
        head = max(seat.newest for seat in crowd.seats)
        crowd.wait_until(lambda: all(seat.newest >= head - 2 for seat in elsewhere), "readers at other nodes are live")
    finally:
        mend()
    crowd.flow(FLOW)
    check_nothing_is_missing(crowd, crowd.finish())


@needs_redis
def test_redis_fails_over_and_loses_what_it_acknowledged(
    channel: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with watched_redis(tmp_path_factory.mktemp("watched")) as redis:
        nodes = Nodes([f"{redis.place}?timeout={TIMEOUT_S}"] * 3)
        try:
            with Crowd(nodes.addresses, channel) as crowd:
                crowd.flow(FLOW)
                # It hears of nothing more: what is acknowledged from here on is lost.
                redis.replica.command("REPLICAOF NO ONE")
                crowd.flow(FLOW // 3)
                redis.kill_master()
                crowd.flow(FLOW)
                log = crowd.finish()
                acknowledged = {said.id for mouth in crowd.mouths for said in mouth.said}
                assert acknowledged - {seen.id for seen in log}, "this was to be about loss"
                check_gaps_say_what_is_missing(crowd, log)
        finally:
            nodes.close()


@needs_nats
def test_leader_of_a_jetstream_cluster_is_killed(channel: str, tmp_path: Path) -> None:
    with nats_cluster(tmp_path) as servers:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        nodes = Nodes([f"nats://{hosts}?replicas=3&timeout={TIMEOUT_S}"] * 3)
        try:
            with Crowd(nodes.addresses, channel) as crowd:
                crowd.flow(FLOW)
                # A leader of 2.9 may take with it what it is about to acknowledge; docs/brokers.md tells of it.
                with crowd.held() if servers[0].version < (2, 10) else nullcontext():
                    servers[leader(servers)].kill()
                crowd.flow(FLOW)
                check_nothing_is_missing(crowd, crowd.finish())
        finally:
            nodes.close()


def leader(servers: list[NatsServer]) -> int:
    """Tell which server leads the stream of the log."""
    (account,) = servers[0].monitor("/jsz?streams=true&accounts=true")["account_details"]
    (name,) = {
        stream["cluster"]["leader"] for stream in account["stream_detail"] if not stream["name"].startswith("KV_")
    }
    return int(name.removeprefix("n"))


def kill_broker(here: Site, crowd: Crowd) -> None:
    here.place.kill()
    crowd.fail()
    here.place.start()


def stop_broker(here: Site, crowd: Crowd) -> None:
    here.place.pause()
    try:
        crowd.fail(2)
    finally:
        here.place.go_on()


def cut_everything(here: Site, crowd: Crowd) -> None:
    for cable in here.cables:
        cable.cut()
        cable.mend()


def kill_node(here: Site, crowd: Crowd) -> None:
    place = random.randrange(3)
    here.nodes.servers[place].kill()
    here.nodes.servers[place].wait()
    here.nodes.start_again(place)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_faults_in_a_row(here: Site, channel: str) -> None:
    """For TELLWIRE_SOAK_S seconds (300 where it is not set), each crowd goes through ten of them."""
    deadline = time.monotonic() + float(os.environ.get("TELLWIRE_SOAK_S", "300"))
    for number in itertools.count():
        if number and time.monotonic() > deadline:
            return
        faults = random.choices([kill_broker, stop_broker, cut_everything, kill_node], k=10)
        print(number, [fault.__name__ for fault in faults])
        with Crowd(here.nodes.addresses, f"{channel}-{number}") as crowd:
            for fault in faults:
                crowd.flow(random.randrange(FLOW))
                fault(here, crowd)
            crowd.flow(FLOW)
            check_nothing_is_missing(crowd, crowd.finish())
