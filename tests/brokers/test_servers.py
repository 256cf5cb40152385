"""Whole servers on one Redis or NATS: whoever is connected to one of them is told what is published to another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import nats
import pytest

from tests.nats_servers import NatsServer, nats_server, needs_nats
from tests.readers import READERS, SocketReader
from tests.redis_servers import RedisServer, needs_redis, redis_server
from tests.serving import Server
from tests.wires import Http, WebSocket


class Store(Protocol):
    """Where the log is."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...


@pytest.fixture(params=[pytest.param("redis", marks=needs_redis), pytest.param("nats", marks=needs_nats)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Start one that has on its disk whatever it acknowledged."""
    if request.param == "nats":
        with nats_server(tmp_path) as server:
            yield server
    else:
        with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as redis:
            yield redis


async def delete_stream(server: NatsServer) -> None:
    client = await nats.connect(server.url)
    await client.jetstream().delete_stream("tellwire-log")
    await client.close()


def lose(store: Store) -> None:
    """Lose the log."""
    if isinstance(store, RedisServer):
        store.command("FLUSHALL")
    else:
        assert isinstance(store, NatsServer)
        asyncio.run(delete_stream(store))


def publish(server: Server, channel: str, data: int) -> None:
    """Publish under an id until it is acknowledged: a server may have to connect with its store again first."""
    with Http(server) as http:
        body = {"channel": channel, "data": data, "id": f"number {data}"}
        while (answer := http.post("/v1/messages", body)).status != 200:
            assert answer.code == "unavailable", answer


@pytest.fixture
def servers(store: Store, start_server: Callable[..., Server]) -> tuple[Server, Server]:
    settings = {"server": {"broker": store.url}, "limits": {"presence_grace_s": 0.2, "node_lease_s": 5.0}}
    return start_server(**settings), start_server(**settings)


def test_readers_of_every_server_are_told_the_same(servers: tuple[Server, Server]) -> None:
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(reader(server, "news")) for server in servers for reader in READERS.values()]
        for number in range(60):
            servers[number % 2].publish("news", number)
            servers[number % 2].publish("elsewhere", number)
        for reader in readers:
            assert reader.read_data(60) == list(range(60))


def test_any_server_knows_any_cursor(servers: tuple[Server, Server]) -> None:
    for name, reader in READERS.items():
        channel = f"news-{name}"
        with reader(servers[0], channel) as first:
            for number in range(10):
                servers[0].publish(channel, number)
            assert first.read_data(10) == list(range(10))
            cursor = first.cursor
        for number in range(10, 20):
            servers[number % 2].publish(channel, number)
        with reader(servers[1], channel, since=cursor) as second:
            servers[0].publish(channel, 20)
            assert second.read_data(11) == list(range(10, 21))


def test_readers_survive_a_store_that_is_started_again(store: Store, servers: tuple[Server, Server]) -> None:
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(reader(server, "news")) for server in servers for reader in READERS.values()]
        for number in range(40):
            if number % 10 == 9:
                store.kill()
                store.start()
            publish(servers[number % 2], "news", number)
        for server in servers:
            publish(server, "elsewhere", 0)  # each has its store again, also for those who ask
        for reader in readers:
            assert reader.read_data(40) == list(range(40))


def test_readers_are_told_of_a_log_that_was_lost(store: Store, servers: tuple[Server, Server]) -> None:
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(reader(server, "news")) for server in servers for reader in READERS.values()]
        servers[0].publish("news", 1)
        for reader in readers:
            assert reader.read_data(1) == [1]
        lose(store)
        publish(servers[1], "news", 2)
        for reader in readers:
            gap = reader.read_gap()
            assert gap["reason"] == "epoch"
            assert reader.read_data(1) == [2]


def test_presence_is_seen_on_every_server_and_ends_once(servers: tuple[Server, Server]) -> None:
    with SocketReader(servers[0], "room", presence="watch") as watcher:
        with WebSocket(servers[1]) as wire:
            client = wire.ask(type="connect", session="s")["client"]
            entered = wire.ask(type="presence", channel="room", enter=True)
            assert (entered["clients"], entered["client"]) == (1, client)
            push = watcher.read()
            assert (push["type"], push["member"]["client"]) == ("join", client)
            servers[1].kill()
        push = watcher.read()
        assert (push["type"], push["member"]["client"]) == ("leave", client)
        found = watcher.wire.ask(type="presence", channel="room")
        assert (found["members"], found["clients"]) == ([], 0)
