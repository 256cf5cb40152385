"""Through nginx, Caddy and HAProxy, configured as the documentation says, every transport is live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jwt
import pytest

from tellwire.client import State, connect
from tests.deploy.proxies import PROXIES, Proxy, free_port
from tests.redis_servers import RedisServer, needs_redis
from tests.serving import Certificate, Server
from tests.wires import Http, Refused, WebSocket

OWN = ("Origin", "https://push.example.org")
FOREIGN = ("Origin", "https://evil.example")
HOST = ("Host", "push.example.org")
KEY = "a secret that is long enough for HS256"
TOKEN = jwt.encode(
    {"sub": "ann", "can": {name: ["*"] for name in ("subscribe", "presence", "admin")}}, KEY, algorithm="HS256"
)
BEARER = ("Authorization", f"Bearer {TOKEN}")
CLAIMED = ("X-Forwarded-For", "203.0.113.9")
"""What a client may write itself, and must not be believed."""


class Site(NamedTuple):
    """A proxy and the server behind it."""

    proxy: Proxy
    server: Server

    def http(self) -> Http:
        return Http(self.proxy, context=self.proxy.context)


@pytest.fixture(scope="module", params=PROXIES)
def site(
    request: pytest.FixtureRequest, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Return a proxy and its server."""
    name: str = request.param
    server = Server(
        server={"origins": [OWN[1]], "trusted_proxies": ["127.0.0.1"]},
        auth={"token_key": KEY, "anonymous_subscribe": ["*"], "anonymous_publish": ["*"]},
        limits={"drain_s": 0.1, "presence_grace_s": 0.1},
    )
    try:
        with Proxy(name, tmp_path_factory.mktemp(name), server.port, certificate) as proxy:
            yield Site(proxy, server)
    finally:
        server.close()


def test_websocket_is_upgraded_and_goes_both_ways(site: Site, channel: str) -> None:
    with WebSocket(site.proxy, context=site.proxy.context, headers=[HOST, OWN]) as socket:
        socket.ask(type="subscribe", channel=channel)
        assert socket.ask(type="publish", channel=channel, data=1)["type"] == "published"
        site.server.publish(channel, 2)
        assert [socket.read()["data"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("path", ["/v1/events", "/v1/stream"])
def test_streams_are_not_held_back(site: Site, channel: str, path: str) -> None:
    with site.http() as http:
        http.send_request("GET", f"{path}?channel={channel}", headers=[HOST, OWN])
        status, _ = http.read_head()
        assert status == 200
        assert http.read_piece()  # it has begun, and nothing was published yet
        for number in range(3):  # each comes while nothing follows
            site.server.publish(channel, f"message {number}")
            seen = b""
            while f"message {number}".encode() not in seen:
                piece = http.read_piece()
                assert piece, site.proxy.log
                seen += piece


def test_poll_that_waits_is_held_until_there_is_news(site: Site, channel: str) -> None:
    cursor = site.server.publish(channel, 1)
    with site.http() as http:
        http.send_request("GET", f"/v1/messages?channel={channel}&since={cursor}&wait=25", headers=[HOST, OWN])
        assert http.is_silent()
        site.server.publish(channel, 2)
        page = http.read_response().json()
        assert [message["data"] for message in page["messages"]] == [2]
        assert http.get(f"/v1/messages?channel={channel}", headers=[HOST]).status == 200  # on the same connection


def test_pages_of_other_origins_stay_out(site: Site, channel: str) -> None:
    with site.http() as http:
        assert http.post("/v1/messages", {"channel": channel, "data": 1}, headers=[HOST, OWN]).status == 200
        refused = http.post("/v1/messages", {"channel": channel, "data": 1}, headers=[HOST, FOREIGN])
        assert refused.code == "forbidden_origin"
    with pytest.raises(Refused):
        WebSocket(site.proxy, context=site.proxy.context, headers=[HOST, FOREIGN])


def test_address_is_that_of_the_client_not_what_it_claims(site: Site, channel: str) -> None:
    context = site.proxy.context
    with site.http() as http, WebSocket(site.proxy, context=context, headers=[HOST, CLAIMED, BEARER]) as socket:
        socket.ask(type="subscribe", channel=channel)
        found = http.get(f"/v1/admin/connections?channel={channel}", headers=[HOST, BEARER]).json()["connections"]
        assert [connection["address"] for connection in found] == ["127.0.0.1"]


def test_server_hears_of_clients_that_go(site: Site, channel: str) -> None:
    with WebSocket(site.proxy, context=site.proxy.context, headers=[HOST, BEARER]) as watcher:
        watcher.ask(type="presence", channel=channel, watch=True)
        with site.http() as http:
            target = f"/v1/events?channel={channel}&presence=enter&session=a-secret-of-mine"
            http.send_request("GET", target, headers=[HOST, BEARER])
            assert http.read_head()[0] == 200
            assert watcher.read()["type"] == "join"
        assert watcher.read()["type"] == "leave"


def test_large_bodies_pass(site: Site, channel: str) -> None:
    with site.http() as http:
        messages = [{"channel": channel, "data": "x" * 60_000} for _ in range(30)]
        assert http.post("/v1/messages", messages, headers=[HOST]).status == 200


@pytest.mark.parametrize("name", PROXIES)
def test_clients_go_on_over_a_restart_of_the_server(
    name: str, start_server: Callable[..., Server], certificate: Certificate, tmp_path: Path
) -> None:
    broker = f"sqlite:///{tmp_path / 'log.db'}"
    settings = {"server": {"port": free_port(), "broker": broker, "open": True}, "limits": {"drain_s": 0.1}}
    server = start_server(**settings)
    states: asyncio.Queue[State] = asyncio.Queue()

    async def read_and_publish() -> list[int]:
        url = f"https://localhost:{proxy.port}"
        async with connect(url, tls=proxy.context, on_state=states.put_nowait) as client:
            reading = client.subscribe("a", since="earliest")
            await client.publish("a", 1)
            assert (await anext(reading)).data == 1
            assert await asyncio.to_thread(server.stop) == 0
            while (await states.get()).name != "disconnected":
                pass
            away = asyncio.create_task(client.publish("a", 2))
            await asyncio.to_thread(start_server, **settings)
            await away
            await client.publish("a", 3)
            return [(await anext(reading)).data for _ in range(2)]

    with Proxy(name, tmp_path, server.port, certificate) as proxy:
        assert asyncio.run(read_and_publish()) == [2, 3]


@needs_redis
def test_clients_lose_nothing_when_one_server_after_the_other_is_restarted(
    start_server: Callable[..., Server], certificate: Certificate, tmp_path: Path
) -> None:
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    ports = [free_port(), free_port()]

    def start(port: int) -> Server:
        return start_server(server={"port": port, "broker": redis.url, "open": True}, limits={"drain_s": 0.1})

    async def read_and_publish() -> list[int]:
        url = f"https://localhost:{proxy.port}"
        async with connect(url, tls=proxy.context) as reader, connect(url, tls=proxy.context) as publisher:
            reading = reader.subscribe("a", since="earliest")
            await publisher.publish("a", 0)
            read = [(await anext(reading)).data]
            for place, port in enumerate(ports):
                assert await asyncio.to_thread(servers[place].stop) == 0
                await publisher.publish("a", len(read))  # by way of the other one
                read.append((await anext(reading)).data)
                servers[place] = await asyncio.to_thread(start, port)
                await publisher.publish("a", len(read))
                read.append((await anext(reading)).data)
            return read

    try:
        servers = [start(port) for port in ports]
        with Proxy("nginx", tmp_path, ports[0], certificate, second=ports[1]) as proxy:
            assert asyncio.run(read_and_publish()) == [0, 1, 2, 3, 4]
        for server in servers:
            assert server.stop() == 0
    finally:
        redis.kill()
