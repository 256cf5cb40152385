"""More connections than there may be, of all kinds: who is refused is told, and who has gone is counted no more."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.hardening.bounded import BoundedServer
from tests.http2 import Http2
from tests.readers import target
from tests.serving import Certificate, Server
from tests.wires import Address, Closed, Http, Refused, WebSocket

HALF_OPEN = 10_000


def check_refused(http: Http) -> None:
    """Read that there are too many connections, and that the server closes."""
    answer = http.read_response()
    assert (answer.status, answer.code) == (503, "too_many_connections")
    assert answer.headers["connection"] == "close"
    assert http.read_to_end() == b""


def come_in(server: Address) -> Http:
    """Connect, and be served; tries again while those that have gone may not be gone yet for the server."""
    while True:
        http = Http(server)
        with contextlib.suppress(Closed, OSError):
            if http.get("/healthz").status == 200:
                return http
        http.close()


def test_connections_beyond_the_bound_are_refused(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"connections_max": 4})
    for _ in range(3):
        with come_in(server) as idle, come_in(server) as events, come_in(server) as last:
            idle.get("/healthz")
            events.send_request("GET", target("/v1/events", (channel,), {}))
            events.read_until(b"\n\n")
            last.close()
            with come_in(server), come_in(server):
                with Http(server) as one_too_many:
                    check_refused(one_too_many)
                with Http(server) as asking:
                    with contextlib.suppress(OSError):
                        asking.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    check_refused(asking)
                assert idle.get("/healthz").status == 200


def test_websockets_count_as_long_as_they_are_open(start_server: Callable[..., Server]) -> None:
    server = start_server(limits={"connections_max": 3})
    for _ in range(5):
        come_in(server).close()
        with contextlib.ExitStack() as stack:
            sockets: list[WebSocket] = []
            while len(sockets) < 3:
                with contextlib.suppress(Closed, OSError, Refused):
                    sockets.append(stack.enter_context(WebSocket(server)))
            with Http(server) as one_too_many:
                check_refused(one_too_many)
            for wire in sockets:
                assert wire.ask(type="ping")["type"] == "pong"


def test_one_address_cannot_take_all(start_server: Callable[..., Server]) -> None:
    server = start_server(limits={"connections_per_address": 3})
    with come_in(server), come_in(server), come_in(server):
        with Http(server) as one_too_many:
            check_refused(one_too_many)
        other = socket.create_connection(("127.0.0.1", server.port), source_address=("127.0.0.2", 0))
        with other:
            other.sendall(b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            assert other.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("started", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "half a head"])
def test_the_oldest_half_open_connection_makes_way(start_server: Callable[..., Server], started: bytes) -> None:
    server = start_server(limits={"unauthenticated_max": 10, "head_s": 600})
    with come_in(server) as known, contextlib.ExitStack() as stack:
        wires = []
        for _ in range(30):
            wires.append(stack.enter_context(Http(server)))
            wires[-1].send(started)
            with Http(server) as honest:  # comes in beside them, whenever that is
                assert honest.get("/healthz").status == 200
        for wire in wires[:20]:
            check_refused(wire)
        assert wires[-1].is_silent()
        assert known.get("/healthz").status == 200


def test_thousands_of_half_open_connections_cost_nobody_else_anything(
    start_server: Callable[..., Server], channel: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(HALF_OPEN, hard - 500)
    try:
        server = start_server(limits={"unauthenticated_max": count // 2, "head_s": 600})
        sizes = []
        with WebSocket(server) as reader:
            assert reader.ask(type="subscribe", channel=channel)["type"] == "subscribed"
            for _ in range(2):
                with contextlib.ExitStack() as stack:
                    for number in range(count):
                        wire = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                        wire.sendall(b"GET / HTTP/1.1\r\nX: ")
                        if number % 1000 == 0:
                            server.publish(channel, number)
                            assert reader.read()["data"] == number
                    with Http(server) as honest:
                        assert honest.get("/healthz").status == 200
                come_in(server).close()
                sizes.append(server.rss)
        # What the first wave needed, Python keeps for the second.
        assert sizes[1] - sizes[0] < 16_000_000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_refused_http2_connection_is_sent_away(certificate: Certificate) -> None:
    server = Server(server=certificate.settings, limits={"connections_max": 1, "drain_s": 0.1})
    context = certificate.client_context("h2")
    try:
        with Http2(server, context) as wire:
            assert wire.finish(wire.start("GET", "/healthz"))
            with Http2(server, context) as one_too_many, pytest.raises((Closed, OSError)):
                one_too_many.finish(one_too_many.start("GET", "/healthz"))
            assert wire.finish(wire.start("GET", "/healthz"))
    finally:
        server.close()


# What is counted


@pytest.fixture
def bounded() -> Iterator[BoundedServer]:
    with BoundedServer(connections_max=50, connections_per_address=20, trusted=["127.0.0.1/32"]) as server:
        yield server


def ask_for(http: Http, *clients: str) -> str:
    """Ask through a proxy for a client; return whom the application saw."""
    answer = http.get("/", headers=[("X-Forwarded-For", client) for client in clients])
    return answer.body.decode() if answer.status == 200 else answer.code


def test_a_proxys_connections_count_for_its_clients(bounded: BoundedServer) -> None:
    with Http(bounded) as http:
        assert http.get("/").body == b"127.0.0.1"
        assert bounded.turnstile.of_address("127.0.0.1") == 1
        assert ask_for(http, "203.0.113.1", "198.51.100.7") == "198.51.100.7"
        assert bounded.turnstile.of_address("127.0.0.1") == 0
        assert bounded.turnstile.of_address("198.51.100.7") == 1
        assert ask_for(http, "2001:db8::1") == "2001:db8::1"
        assert bounded.turnstile.of_address("2001:db8::2") == 1
        assert bounded.turnstile.of_address("198.51.100.7") == 0


def test_a_client_behind_a_proxy_has_its_own_bound(bounded: BoundedServer) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            assert ask_for(stack.enter_context(Http(bounded)), "198.51.100.7") == "198.51.100.7"
        with Http(bounded) as http:
            assert ask_for(http, "198.51.100.7") == "too_many_connections"
            assert http.read_to_end() == b""
        with Http(bounded) as http:
            assert ask_for(http, "198.51.100.8") == "198.51.100.8"
        assert bounded.hits.seen == {"connections_per_address": 1}
        assert bounded.turnstile.of_address("198.51.100.7") == 20


@pytest.mark.parametrize(
    "change",
    [{}, {"Sec-WebSocket-Extensions": ";;;"}, {"X-Twice": "1", "x-twice": "2"}],
    ids=["the short way", "refused", "the long way"],
)
def test_every_way_of_a_handshake_is_counted_once(bounded: BoundedServer, change: dict[str, str]) -> None:
    fields = {
        "Upgrade": "websocket", "Connection": "keep-alive, Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "X-Forwarded-For": "198.51.100.7", **change,
    }  # fmt: skip
    for _ in range(30):
        with Http(bounded) as http:
            http.send_request("GET", "/v1/ws", headers=fields.items())
            status, _ = http.read_head()
            if status == 101:
                assert bounded.turnstile.of_address("198.51.100.7") <= 20
                assert bounded.turnstile.unauthenticated == 0
            else:
                http.read_to_end()
    with Http(bounded) as http:
        assert http.get("/").status == 200
