"""tellwire serve --workers: several nodes on one port, over one log."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import psutil
import pytest

from tellwire.client import connect
from tellwire.client.messages import TransportName
from tellwire.protocol.proto import tellwire_pb2 as pb
from tellwire.testing.harness import on_loop
from tests.grpc.callers import Stream, call, json_data
from tests.ports import free_port
from tests.readers import READERS, SocketReader
from tests.redis_servers import RedisServer, needs_redis, redis_server
from tests.rtc.peers import OFFER, offer
from tests.serving import WATCHDOG_S, Server
from tests.wires import Closed, Http, Refused, WebSocket

pytestmark = needs_redis

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


_prefixes = itertools.count()

LET_IN_LATE = Refused, Closed, ConnectionResetError, BrokenPipeError
"""What becomes of a connection that a server had let in just before it went away."""


@pytest.fixture(scope="module")
def shared(redis: RedisServer) -> Iterator[Server]:
    """Three workers for the tests that leave them as they are."""
    server = Server("workers", server={"workers": 3, "broker": f"{redis.url}?prefix=shared"}, limits={"drain_s": 0.1})
    yield server
    server.close()


@pytest.fixture
def start(redis: RedisServer, start_server: Start) -> Start:
    """Start servers with workers, each with a log of its own."""

    def start(workers: int = 3, *, grpc_port: int | None = None, **limits: Any) -> Server:
        broker = f"{redis.url}?prefix=workers-{next(_prefixes)}"
        limits = {"presence_grace_s": 0.2, "node_lease_s": 60.0, **limits}
        where = {"workers": workers, "broker": broker, "grpc_port": grpc_port}
        return start_server("workers", server=where, limits=limits)

    return start


def nodes(server: Server) -> list[dict[str, Any]]:
    """Ask, over a connection of its own, which nodes there are."""
    with Http(server) as http:
        found: list[dict[str, Any]] = http.get("/v1/admin/nodes?timeout=10").json()["nodes"]
        return found


def holding(server: Server, room: str) -> dict[str, int]:
    """Return the processes of the nodes that hold members of a room, by client."""
    with Http(server) as http:
        pids = {node["node"]: node["pid"] for node in http.get("/v1/admin/nodes?timeout=10").json()["nodes"]}
        members = http.get(f"/v1/admin/presence?channel={room}").json()["members"]
        return {member["client"]: pids[member["node"]] for member in members}


def test_workers_share_the_port_and_the_log(shared: Server) -> None:
    server = shared
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(reader(server, "news")) for _ in range(3) for reader in READERS.values()]
        for number in range(30):
            server.publish("news", number)
        for reader in readers:
            assert reader.read_data(30) == list(range(30))
        for _ in range(60):
            stack.enter_context(WebSocket(server))
        found = nodes(server)
        assert len({node["pid"] for node in found}) == len({node["name"] for node in found}) == 3
        assert {node["server"] for node in found} == {re.sub(r"\.\d$", "", found[0]["name"])}
        counts = [sum(node["connections"].values()) for node in found]
        assert sum(counts) >= 60
        assert min(counts) > 5, "connections are spread"


def test_any_worker_knows_any_cursor(shared: Server) -> None:
    for number in range(10):
        shared.publish("past", number)
    for name, reader in READERS.items():
        for _ in range(3):  # whichever worker it comes to
            with reader(shared, "past", since="earliest", **({"limit": 5} if "poll" in name else {})) as first:
                assert first.read_data(5) == list(range(5)), name
                cursor = first.cursor
            with reader(shared, "past", since=cursor) as second:
                assert second.read_data(5) == list(range(5, 10)), name


@on_loop
async def test_readers_lose_nothing_when_a_worker_is_killed(start: Start) -> None:
    server = await asyncio.to_thread(start)
    url = f"http://127.0.0.1:{server.port}"
    wires: list[list[TransportName]] = [["websocket"], ["sse"], ["longpoll"], ["poll"]]
    async with contextlib.AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(connect(url))
        subscriptions = []
        for number in range(12):
            client = await stack.enter_async_context(connect(url, transports=wires[number % len(wires)]))
            subscriptions.append(client.subscribe("news", since="earliest"))
        for subscription in subscriptions:
            await subscription.ready()
        victims = [node["pid"] for node in await asyncio.to_thread(nodes, server)]
        for number in range(90):
            if number % 30 == 10:  # each of the first ones once
                psutil.Process(victims[number // 30]).kill()
            await publisher.publish("news", number)
        async with asyncio.timeout(WATCHDOG_S):
            for subscription in subscriptions:
                got = [(await anext(subscription)).data for _ in range(90)]
                assert got == list(range(90))
    assert server.stop() == 0
    assert server.log.count("was ended by SIGKILL; another is started now") == 3


def grpc_counts(server: Server) -> dict[int, int]:
    """Return how many streams of gRPC each worker has, by its process."""
    return {node["pid"]: node["connections"].get("grpc", 0) for node in nodes(server)}


def test_workers_share_the_port_of_grpc(start: Start) -> None:
    server = start(2, grpc_port=free_port())
    with contextlib.ExitStack() as stack:
        streams: list[Stream] = []
        while not all((counts := grpc_counts(server)).values()):  # the kernel chooses where a connection goes
            assert len(streams) < 100, counts
            streams.append(stack.enter_context(call(server)).subscribe("news"))
            streams[-1].read_kind("connected")
        assert len(counts) == 2
        with call(server) as calls:
            calls.publish("news", 1)
        for stream in streams:
            assert stream.read_data(1) == [1]
        victim = min(counts)
        psutil.Process(victim).kill()
        # Whoever comes now comes to the other one, or to the next.
        with call(server) as calls:
            request = pb.PublishRequest(channel="news", data=json_data(2))
            assert calls.stub.Publish(request, wait_for_ready=True, timeout=WATCHDOG_S).position
        ends = []
        for stream in streams:
            try:
                assert stream.read_data(1) == [2]
            except grpc.RpcError as exc:
                ends.append(exc.code())
        assert ends == [grpc.StatusCode.UNAVAILABLE] * counts[victim]


def test_members_of_a_killed_worker_leave_once(start: Start) -> None:
    # The others must not be taken for dead as well, when they stand still for a moment.
    server = start(presence_grace_s=2.0, node_lease_s=5.0)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(WebSocket(server)) for _ in range(20)]
        clients = [wire.ask(type="connect", session=f"s{number}")["client"] for number, wire in enumerate(wires)]
        for wire in wires:
            wire.ask(type="presence", channel="room", enter=True)
        pids = holding(server, "room")
        victim = Counter(pids.values()).most_common(1)[0][0]
        gone = {client for client, pid in pids.items() if pid == victim}
        assert 0 < len(gone) < 20
        watcher = next(wire for wire, client in zip(wires, clients, strict=True) if client not in gone)
        watcher.ask(type="presence", channel="room", watch=True)
        psutil.Process(victim).kill()
        left = [watcher.read() for _ in gone]
        assert {push["type"] for push in left} == {"leave"}
        assert {push["member"]["client"] for push in left} == gone
        # Somebody who comes and goes takes longer than every other node's next sweep: nothing is told again.
        with WebSocket(server) as passing:
            client = passing.ask(type="connect", session="passing")["client"]
            passing.ask(type="presence", channel="room", enter=True)
        told = [watcher.read() for _ in range(2)]
        assert [(push["type"], push["member"]["client"]) for push in told] == [("join", client), ("leave", client)]


def test_sigterm_drains_every_worker(start: Start) -> None:
    server = start(2)
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(SocketReader(server, "news")) for _ in range(30)]
        pids = [node["pid"] for node in nodes(server)]
        server.terminate()
        for reader in readers:
            closing = reader.read()
            assert (closing["type"], closing["code"], closing["reconnect_in_ms"]) == ("closing", 1012, 0)
            with pytest.raises(Closed):
                reader.read()
    assert server.wait() == 0
    assert not any(map(psutil.pid_exists, pids))
    assert server.log == ""


def test_workers_end_with_their_supervisor(start: Start) -> None:
    server = start(2)
    workers = psutil.Process(server.pid).children()
    assert len(workers) == 2
    with SocketReader(server, "news") as reader:
        server.kill()
        assert reader.read()["code"] == 1012, "they drain, as if they had been told"
    _, alive = psutil.wait_procs(workers, WATCHDOG_S)
    assert not alive


def test_one_worker_is_replaced_when_it_is_drained(start: Start) -> None:
    server = start(2, drain_s=0.5)
    before = nodes(server)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(SocketReader(server, "news")) for _ in range(16)]
        with Http(server) as http:
            answer = http.post("/v1/admin/drain?timeout=10", {"node": before[0]["name"]}).json()
        assert [each["node"] for each in answer["draining"]] == [before[0]["node"]]
        leaving = answer["draining"][0]["connections"]
        is_there = True
        while is_there:
            # No connection is refused; one that was let in just before, and asks then, is told of it, or closed.
            with contextlib.suppress(*LET_IN_LATE), WebSocket(server) as wire:
                assert wire.ask(type="ping")["type"] == "pong"
            with contextlib.suppress(*LET_IN_LATE):
                is_there = before[0]["node"] in {node["node"] for node in nodes(server)}
        server.publish("news", "still here")
        told = [wire.read() for wire in wires]
        assert [push["type"] for push in told].count("message") >= len(wires) - leaving
        assert all(push["type"] == "message" or push["code"] == 1012 for push in told)
    while len(after := nodes(server)) < 2:
        pass  # the next one is on its way
    assert [node["name"] for node in after] == [node["name"] for node in before]
    assert {node["node"] for node in after} & {node["node"] for node in before} == {before[1]["node"]}
    assert server.stop() == 0
    assert server.log == ""


def test_drain_without_a_name_ends_all_workers(start: Start) -> None:
    server = start(2)
    with Http(server) as http:
        answer = http.post("/v1/admin/drain?timeout=10", {}).json()
    assert len(answer["draining"]) == 2
    assert server.wait() == 0


def test_every_scrape_has_every_worker(shared: Server) -> None:
    before = 0.0
    for number in range(8):
        with Http(shared) as wire:  # to any worker
            wire.post("/v1/messages", {"channel": "scraped", "data": number})
        totals: dict[str, str] = {}
        while sorted(totals) != ["1", "2", "3"]:  # one that stands still for a second is left out
            with Http(shared) as http:
                text = http.get("/metrics").body.decode()
            found = re.findall(r'^tellwire_messages_published_total\{worker="(\d)"\} ([\d.]+)$', text, re.MULTILINE)
            totals = dict(found)
        published = sum(map(float, totals.values()))
        assert number == 0 or published == before + 1
        before = published
        assert len(re.findall(r"^process_cpu_seconds_total\{", text, re.MULTILINE)) == 3
        assert text.count("# TYPE tellwire_messages_published_total counter") == 1
        assert "tellwire_connections_opened_total" in text
        assert not re.search(r"^tellwire_(?![^{]*\{.*worker=)", text, re.MULTILINE), "every series says whose it is"


def test_scrape_goes_without_a_worker_that_stands_still(start: Start) -> None:
    server = start(2)
    stopped, other = (psutil.Process(node["pid"]) for node in nodes(server))
    name = next(node["name"] for node in nodes(server) if node["pid"] == other.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(100):  # a connection to the one that goes on
            http = stack.enter_context(Http(server))
            if http.get("/v1/admin/stats").json()["name"] == name:
                break
        stopped.suspend()
        try:
            text = http.get("/metrics").body.decode()
        finally:
            stopped.resume()
    assert re.findall(r'^tellwire_ready\{worker="(\d)"\}', text, re.MULTILINE) == [name[-1]]


@on_loop
async def test_data_channels_are_held_by_workers_and_fed_by_the_broker(redis: RedisServer, start_server: Start) -> None:
    broker = f"{redis.url}?prefix=workers-{next(_prefixes)}"
    # The first worker takes this UDP port, the second the one behind it.
    rtc = {"rtc": True, "rtc_port": free_port(2)}
    server = start_server("workers", server={"workers": 2, "broker": broker}, rtc=rtc)
    url = f"http://127.0.0.1:{server.port}"
    async with contextlib.AsyncExitStack() as stack:
        wires: tuple[TransportName, ...] = ("webrtc", "webrtc", "webrtc", "webrtc", "websocket")
        clients = [await stack.enter_async_context(connect(url, transports=(wire,))) for wire in wires]
        readings = [client.subscribe("news", since="earliest") for client in clients]
        for number in range(50):
            await clients[number % len(clients)].publish("news", number)
        for reading in readings:
            assert [(await anext(reading)).data for _ in range(50)] == list(range(50))
        assert tuple(client.state.transport for client in clients) == wires
        await asyncio.to_thread(end_at_another_worker, server)


def end_at_another_worker(server: Server) -> None:
    """Offer a data channel to one worker, and have another one end it."""
    with contextlib.ExitStack() as stack:
        offered = stack.enter_context(Http(server))
        location = offer(offered, OFFER).headers["location"]
        holder = offered.get("/v1/admin/stats").json()["node"]
        others = (stack.enter_context(Http(server)) for _ in range(100))  # the kernel chooses whose they are
        other = next(http for http in others if http.get("/v1/admin/stats").json()["node"] != holder)
        answers = [other.request("DELETE", location).status]
        while answers[-1] == 503:  # the holder has not answered in time, and may have done it nevertheless
            answers.append(other.request("DELETE", location).status)
        assert answers[-1] == 200 or (len(answers) > 1 and answers[-1] == 404)
        assert offered.request("DELETE", location).status == 404
