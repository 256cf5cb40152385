"""Through nginx, Caddy and HAProxy, configured as under deploy/, every transport is live, before one server or two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import jwt
import pytest

from tellwire.client import State, connect
from tellwire.client.messages import ORDER
from tests.client.test_network import QUICK
from tests.deploy.proxies import PROXIES, Proxy
from tests.http2 import Http2
from tests.ports import free_port
from tests.readers import LineReader
from tests.redis_servers import needs_redis, redis_server
from tests.serving import WATCHDOG_S, Certificate, Server
from tests.wires import Closed, Http, Refused, Response, WebSocket

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
        with Proxy(name, tmp_path_factory.mktemp(name), [server.port], certificate) as proxy:
            yield Site(proxy, server)
    finally:
        server.close()


def test_websocket_is_upgraded_and_goes_both_ways(site: Site, channel: str) -> None:
    with WebSocket(site.proxy, context=site.proxy.context, headers=[HOST, OWN]) as socket:
        socket.ask(type="subscribe", channel=channel)
        assert socket.ask(type="publish", channel=channel, data=1)["type"] == "published"
        site.server.publish(channel, 2)
        assert [socket.read()["data"] for _ in range(2)] == [1, 2]


def test_http2_carries_streams_and_polls_side_by_side(site: Site, certificate: Certificate, channel: str) -> None:
    with Http2(site.proxy, certificate.client_context("h2")) as http:
        http.host = HOST[1]
        streams = [http.start("GET", f"/v1/{path}?channel={channel}") for path in ("events", "stream") * 5]
        for stream in streams:
            http.wait_for(stream, b"\n\n" if stream % 4 == 1 else b"\n")  # it has begun
        cursor = site.server.publish(channel, "first")
        poll = http.start("GET", f"/v1/messages?channel={channel}&since={cursor}&wait=25")
        for stream in streams:
            http.wait_for(stream, b"first")
        publish = http.start("POST", "/v1/messages", body=b'{"channel":"%s","data":"second"}' % channel.encode())
        http.finish(publish)
        assert http.statuses[publish] == 200
        assert b"second" in http.finish(poll)
        for stream in streams:
            http.wait_for(stream, b"second")
            assert http.statuses[stream] == 200


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

    with Proxy(name, tmp_path, [server.port], certificate) as proxy:
        assert asyncio.run(read_and_publish()) == [2, 3]


class Several:
    """A proxy with two servers on one Redis."""

    def __init__(self, proxy: Proxy, servers: list[Server], broker: str) -> None:
        self.proxy = proxy
        self.servers = servers
        self._broker = broker

    @staticmethod
    def start(port: int, broker: str) -> Server:
        return Server(server={"port": port, "broker": broker, "open": True}, limits={"drain_s": 0.1})

    def start_again(self, place: int) -> None:
        """Start a server that has ended, where it was."""
        former = self.servers[place]
        self.servers[place] = self.start(former.port, self._broker)
        former.close()

    def readers_of(self, channel: str) -> list[int]:
        """Return how many readers of a channel each server has."""
        found = []
        for server in self.servers:
            with Http(server) as http:
                found.append(len(http.get(f"/v1/admin/connections?channel={channel}").json()["connections"]))
        return found


@pytest.fixture(scope="module", params=PROXIES)
def several(
    request: pytest.FixtureRequest, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Several]:
    """Return a proxy with two servers on one Redis; a test leaves them running."""
    folder = tmp_path_factory.mktemp("several")
    with redis_server(folder / "redis") as redis:
        servers = [Several.start(free_port(), redis.url) for _ in range(2)]
        with Proxy(request.param, folder, [server.port for server in servers], certificate) as proxy:
            yield Several(proxy, servers, redis.url)
        for server in servers:
            server.close()


@needs_redis
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_clients_lose_nothing_when_one_server_after_the_other_goes(several: Several, channel: str, end: str) -> None:
    proxy, servers = several.proxy, several.servers

    async def read_and_publish() -> None:
        url = f"https://localhost:{proxy.port}"
        async with AsyncExitStack() as stack:
            publisher = await stack.enter_async_context(connect(url, tls=proxy.context))
            readings = []
            for transport in ORDER:
                client = connect(url, tls=proxy.context, transports=[transport], settings=QUICK)
                readings.append((await stack.enter_async_context(client)).subscribe(channel, since="earliest"))
            told = 0

            async def say_and_hear() -> None:
                nonlocal told
                await publisher.publish(channel, told)
                for reading in readings:
                    assert (await anext(reading)).data == told
                told += 1

            await say_and_hear()
            for place, server in enumerate(servers):
                if end == "stop":
                    assert await asyncio.to_thread(server.stop) == 0
                else:
                    server.kill()
                    server.wait()
                for _ in range(3):
                    await say_and_hear()  # by way of the other one
                await asyncio.to_thread(several.start_again, place)
                await say_and_hear()

    asyncio.run(read_and_publish())


@needs_redis
def test_any_server_answers_any_cursor_without_sticky_sessions(several: Several, channel: str) -> None:
    proxy, servers = several.proxy, several.servers
    context = proxy.context
    cursor = servers[0].publish(channel, 0)
    with LineReader(servers[0], channel) as first, LineReader(servers[1], channel) as second:
        for number in range(1, 9):
            # Each over a connection of its own: both servers get some of them.
            with Http(proxy, context=context) as http:
                answer = http.post("/v1/messages", {"channel": channel, "data": number}, headers=[HOST])
                assert answer.status == 200, answer
            with Http(proxy, context=context) as http:
                page = http.get(f"/v1/messages?channel={channel}&since={cursor}&wait=20", headers=[HOST]).json()
                assert [message["data"] for message in page["messages"]] == [number]
                cursor = page["cursor"]
        assert first.read_data(8) == second.read_data(8) == list(range(1, 9))
    # One that was away is asked for its health once in a second; until it is known again the other one gets all.
    deadline = time.monotonic() + WATCHDOG_S
    with ExitStack() as stack:
        while min(several.readers_of(channel)) < 2:
            assert time.monotonic() < deadline, proxy.log
            socket = stack.enter_context(WebSocket(proxy, context=context, headers=[HOST]))
            assert socket.ask(type="subscribe", channel=channel)["type"] == "subscribed"


def get(proxy: Proxy, kept: Http, path: str) -> Response:
    """Ask over a connection that was kept; over a new one where that was closed meanwhile (RFC 9112, section 9.3.1).

    HAProxy closes it without a word where its own to the server ends in that moment.
    """
    try:
        return kept.get(path, headers=[HOST])
    except OSError:
        pass
    except Closed as exc:
        if exc.args[0]:
            raise  # half an answer
    with Http(proxy, context=proxy.context) as fresh:
        return fresh.get(path, headers=[HOST])


@needs_redis
def test_server_that_drains_gets_no_new_readers(several: Several, channel: str) -> None:
    proxy, servers = several.proxy, several.servers
    with ExitStack() as stack:
        # What the proxy holds open to the server is used again, for as long as the server lets it.
        https = [stack.enter_context(Http(proxy, context=proxy.context)) for _ in range(4)]
        for http in https:
            assert http.get("/readyz", headers=[HOST]).status == 200
        with Http(servers[0]) as direct:
            assert direct.get("/readyz").status == 200
            servers[0].terminate()
            with suppress(Closed, OSError):  # or it has ended already
                while direct.get("/readyz").status == 200:
                    pass
        for http in https * 3:
            page = get(proxy, http, f"/v1/messages?channel={channel}&since=earliest&wait=0")
            assert page.status == 200, page
            with WebSocket(proxy, context=proxy.context, headers=[HOST]) as socket:
                assert socket.ask(type="subscribe", channel=channel)["type"] == "subscribed"
        assert servers[0].wait() == 0
    several.start_again(0)
