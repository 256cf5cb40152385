"""Requests that come a byte at a time, or not at all: each part of them has its time, and no byte gives it more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from operator import methodcaller

import pytest
from h2.exceptions import ProtocolError

from tests.hardening.bounded import BoundedServer
from tests.hardening.punctual import in_time
from tests.http2 import Http2
from tests.readers import target
from tests.serving import Certificate, Server
from tests.wires import Closed, Http, WebSocket

HEAD = b"GET /v1/messages?channel=slow HTTP/1.1\r\nHost: 127.0.0.1\r\n"
DRIP = b"X-Drip: " + b"x" * 10_000
HURRIED_S = 0.5


@pytest.fixture
def hurried(start_server: Callable[..., Server]) -> Server:
    """A server that waits for half a second for each part of a request, and for very long between two of them."""
    return start_server(limits={"head_s": HURRIED_S, "body_s": HURRIED_S, "idle_s": 600})


def begin(server: Server, data: bytes) -> Http:
    """Connect, and send the beginning of a request."""
    return in_time(HURRIED_S, lambda: Http(server), lambda http: http.send(data))


def ask(server: Server, path: str) -> Http:
    """Connect, and have a request answered."""
    return in_time(HURRIED_S, lambda: Http(server), lambda http: check_answered(http, path))


def request(server: Server, path: str) -> Http:
    """Connect, and send a request."""
    return in_time(HURRIED_S, lambda: Http(server), lambda http: http.send_request("GET", path))


def check_answered(http: Http, path: str) -> None:
    assert http.get(path).status == 200


def drip(http: Http, data: bytes) -> None:
    """Send a byte at a time, as long as the server says nothing."""
    for byte in data:
        try:
            http.send(bytes((byte,)))
        except OSError:
            return
        if not http.is_silent(0.05):
            return
    pytest.fail("the server waited for all of it")


def check_timeout(http: Http, part: str) -> None:
    """Read that a part of the request took too long, and that the server closes."""
    answer = http.read_response()
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert f"the {part} of a request" in answer.json()["detail"]
    assert answer.headers["connection"] == "close"
    assert http.read_to_end() == b""


def test_head_that_drips_ends_in_time(hurried: Server) -> None:
    with begin(hurried, HEAD[:1]) as http:
        drip(http, HEAD[1:] + DRIP)
        check_timeout(http, "head")


def test_head_that_drips_after_a_request_ends_in_time(hurried: Server) -> None:
    with ask(hurried, "/v1/messages?channel=slow") as http:
        check_answered(http, "/v1/messages?channel=slow")
        drip(http, HEAD + DRIP)
        check_timeout(http, "head")


def test_head_that_drips_behind_a_waiting_one_ends_in_time(hurried: Server) -> None:
    with begin(hurried, HEAD + b"\r\n" + HEAD) as http:
        assert http.read_response().status == 200
        drip(http, DRIP)
        check_timeout(http, "head")


@pytest.mark.parametrize("start", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_body_that_drips_ends_in_time(hurried: Server, start: str) -> None:
    size = b"100000\r\n" if "chunked" in start else b""
    with begin(hurried, f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n{start}\r\n\r\n".encode() + size) as http:
        drip(http, b" " * 10_000)
        check_timeout(http, "body")


def test_rest_of_a_body_that_was_refused_is_not_waited_for(hurried: Server) -> None:
    with begin(hurried, b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999999\r\n\r\n") as http:
        assert http.read_response().code == "too_large"
        assert http.read_to_end() == b""


def test_connection_that_says_nothing_ends_without_a_word(hurried: Server) -> None:
    with Http(hurried) as http:
        assert http.read_to_end() == b""


def test_blank_lines_are_no_request(hurried: Server) -> None:
    with Http(hurried) as http:
        try:
            while http.is_silent():
                http.send(b"\r\n")
        except (Closed, OSError):
            return
        assert http.read_to_end() == b""


def test_connections_between_requests_polls_and_streams_have_all_their_time(hurried: Server, channel: str) -> None:
    with (
        ask(hurried, "/healthz") as idle,
        request(hurried, target("/v1/messages", (channel,), {"since": "now", "wait": 60})) as poll,
        request(hurried, target("/v1/events", (channel,), {})) as events,
        in_time(HURRIED_S, lambda: WebSocket(hurried), lambda wire: None) as socket,
    ):
        events.read_until(b"\n\n")
        for _ in range(3):
            with Http(hurried) as clock:  # goes after half a second
                assert clock.read_to_end() == b""
        assert idle.get("/healthz").status == 200
        assert socket.ask(type="ping")["type"] == "pong"
        assert idle.post("/v1/messages", {"channel": channel, "data": "late"}).status == 200
        assert poll.read_response().json()["messages"][0]["data"] == "late"
        events.read_until(b"late")


def test_request_in_pieces_that_is_in_time_is_answered(server: Server, channel: str) -> None:
    body = json.dumps({"channel": channel, "data": 1}).encode()
    request = b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with Http(server) as http:
        for _ in range(3):
            for byte in request:
                http.send(bytes((byte,)))
            assert http.read_response().status == 200


def test_missed_deadlines_are_counted() -> None:
    with BoundedServer(head_s=HURRIED_S, body_s=HURRIED_S) as server:
        body = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
        for number, (sent, bound) in enumerate([(b"", "head_s"), (HEAD, "head_s"), (body, "body_s")]):
            with in_time(HURRIED_S, partial(count_anew, server), methodcaller("send", sent)) as http:
                if number:
                    check_timeout(http, bound.removesuffix("_s"))
                assert http.read_to_end() == b""
            assert server.hits.seen == {bound: 1}


def count_anew(server: BoundedServer) -> Http:
    """Connect to a server that has nobody, and has counted nothing."""
    while server.turnstile.total:
        pass
    server.hits.seen.clear()
    return Http(server)


def test_connection_whose_deadline_passed_is_counted_no_more() -> None:
    with BoundedServer(head_s=HURRIED_S, connections_max=4) as server:
        for _ in range(3):
            wires = [Http(server) for _ in range(4)]
            for wire in wires:
                assert wire.read_to_end() == b""
                wire.close()
        with in_time(HURRIED_S, lambda: Http(server), lambda http: check_answered(http, "/")):
            assert (server.turnstile.total, server.turnstile.unauthenticated) == (1, 0)


# HTTP/2

HURRIED_H2 = {"head_s": HURRIED_S, "body_s": HURRIED_S, "idle_s": HURRIED_S}


@pytest.fixture
def hurried_h2(certificate: Certificate) -> Iterator[Server]:
    server = Server(server=certificate.settings, limits={**HURRIED_H2, "drain_s": 0.1})
    yield server
    server.close()


def test_http2_body_that_does_not_come_is_told(hurried_h2: Server, certificate: Certificate) -> None:
    context = certificate.client_context("h2")
    with in_time(HURRIED_S, lambda: Http2(hurried_h2, context), begin_body) as wire:
        (stream,) = wire.h2.streams
        assert json.loads(wire.finish(stream))["code"] == "request_timeout"
        assert wire.statuses[stream] == 408


def begin_body(wire: Http2) -> None:
    """Send the head of a request, and the first byte of its body."""
    stream = wire.h2.get_next_available_stream_id()
    fields = [(":method", "POST"), (":path", "/v1/messages"), (":scheme", "https"), (":authority", wire.host)]
    wire.h2.send_headers(stream, [*fields, ("content-type", "application/json")])
    wire.h2.send_data(stream, b"{")
    wire._flush()


def test_http2_connection_that_only_pings_ends_in_time(hurried_h2: Server, certificate: Certificate) -> None:
    context = certificate.client_context("h2")
    with in_time(HURRIED_S, lambda: Http2(hurried_h2, context), check_answered_over_http2) as wire:
        try:
            while True:
                wire.h2.ping(b"12345678")
                wire._flush()
                wire.pump()  # its answer, and at last GOAWAY
        except (Closed, OSError, ProtocolError):  # h2 pings no more after a GOAWAY
            return


def check_answered_over_http2(wire: Http2) -> None:
    assert wire.finish(wire.start("GET", "/healthz"))
