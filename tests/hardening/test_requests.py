"""Requests that are too large, too slow, or two things at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import methodcaller

import pytest

from tests.hardening.punctual import in_time
from tests.readers import target
from tests.serving import Server
from tests.wires import Closed, Http

BODY_MAX = 2 * 1024 * 1024
SLOW_S = 0.6
"""What a server waits for each part of a request that does not come."""


def is_cut(http: Http, *pieces: bytes) -> bool:
    """Send; tell whether the server closed the connection before it was all sent."""
    try:
        for piece in pieces:
            http.send(piece)
    except OSError:
        return True
    return False


def send_all(http: Http, *pieces: bytes) -> None:
    """Send, also where the server has closed meanwhile; what it said is still there to read."""
    is_cut(http, *pieces)


def head(http: Http, *lines: str, start: str = "POST /v1/messages HTTP/1.1") -> bytes:
    """Write the head of a request."""
    return "".join(f"{line}\r\n" for line in (start, f"Host: {http.host}", *lines, "")).encode("latin-1")


def test_thousands_of_parameters_are_refused(server: Server) -> None:
    with Http(server) as http:
        assert http.get("/v1/messages?" + "&" * 10_000).status == 400
        assert http.get("/v1/messages?channel=a" + "&x=1" * 3000).status == 200
        assert http.get("/v1/messages?channel=a" + "&x=1" * 5000).code == "bad_request"


def test_thousands_of_channels_are_refused(server: Server) -> None:
    with Http(server) as http:
        many = "&".join(f"channel=c{number}" for number in range(1001))
        for path in ("/v1/messages", "/v1/events", "/v1/stream"):
            assert http.get(f"{path}?{many}").code == "too_many_channels"
        assert http.get(f"/v1/messages?wait=1&{many}").code == "too_many_channels"
        assert http.get("/v1/messages?" + "&".join(["channel=same"] * 2000)).status == 200


@pytest.mark.parametrize("query", ["channel=%ff", "channel=a&since=%ff", "channel=%", "channel=a%zz"])
def test_query_that_cannot_be_decoded_is_refused(server: Server, query: str) -> None:
    with Http(server) as http:
        assert http.get(f"/v1/messages?{query}").status == 400


@pytest.mark.parametrize("where", ["target", "value", "name", "many"])
def test_head_that_is_too_large_is_refused(server: Server, where: str) -> None:
    with Http(server) as http:
        filler = "x" * 70_000
        if where == "target":
            send_all(http, head(http, start=f"GET /v1/messages?channel=a&x={filler} HTTP/1.1"))
        elif where == "value":
            send_all(http, head(http, f"X: {filler}", start="GET /healthz HTTP/1.1"))
        elif where == "name":
            send_all(http, head(http, f"{filler}: x", start="GET /healthz HTTP/1.1"))
        else:
            send_all(http, head(http, *(f"X{number}: y" for number in range(20_000)), start="GET /healthz HTTP/1.1"))
        answer = http.read_response()
        assert (answer.status, answer.code) == (413, "too_large")
        assert http.read_to_end() == b""


@pytest.mark.parametrize("where", ["target", "value", "many"])
def test_head_that_never_ends_is_cut(server: Server, where: str) -> None:
    before = server.rss
    with Http(server) as http:
        start = {
            "target": b"GET /",
            "value": b"GET / HTTP/1.1\r\nX: ",
            "many": b"GET / HTTP/1.1\r\n",
        }[where]
        piece = b"X: y\r\n" * 10_000 if where == "many" else b"x" * 60_000
        assert is_cut(http, start, *([piece] * 2000))
    assert server.rss - before < 16_000_000


@pytest.mark.parametrize(
    "start", [b"", b"G", b"\r\n", b"GET / HTTP/1.1\r\nX: y\r\n", b"POST /v1/messages HTTP/1.1\r\n"]
)
def test_head_that_does_not_come_is_cut(start_server: Callable[..., Server], start: bytes) -> None:
    slow = start_server(limits={"head_s": SLOW_S, "body_s": SLOW_S, "idle_s": SLOW_S})

    def send_after_a_request(http: Http) -> None:
        assert http.get("/healthz").status == 200
        http.send(start)

    for send in (methodcaller("send", start), send_after_a_request):
        with in_time(SLOW_S, lambda: Http(slow), send) as http:
            check_cut(http, asked=bool(start.strip()))


def check_cut(http: Http, *, asked: bool) -> None:
    """Read to the end: a request that began is told why it was not waited for, a silent connection just goes."""
    if asked:
        answer = http.read_response()
        assert (answer.status, answer.code) == (408, "request_timeout")
    assert http.read_to_end() == b""


def test_body_that_does_not_come_is_cut(start_server: Callable[..., Server], channel: str) -> None:
    slow = start_server(limits={"head_s": SLOW_S, "body_s": SLOW_S, "idle_s": SLOW_S})
    poll = methodcaller("send_request", "GET", target("/v1/messages", (channel,), {"wait": 1}))
    for fields in ("Content-Length: 100", "Transfer-Encoding: chunked"):
        begin = methodcaller("send", f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n\r\n5\r\n".encode())
        with in_time(SLOW_S, lambda: Http(slow), begin) as http, in_time(SLOW_S, lambda: Http(slow), poll) as other:
            check_cut(http, asked=True)
            # A poll that waits for longer than a request may take is no slow request.
            assert other.read_response().status == 200


def test_body_beyond_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    with Http(server) as http:
        http.send(head(http, f"Content-Length: {BODY_MAX + 1}"))
        answer = http.read_response()
        assert (answer.status, answer.code) == (413, "too_large")


def test_body_without_a_length_beyond_the_limit_is_refused(server: Server) -> None:
    with Http(server) as http:
        http.send(head(http, "Transfer-Encoding: chunked"))
        piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        send_all(http, *([piece] * 33))
        answer = http.read_response()
        assert (answer.status, answer.code) == (413, "too_large")


def test_body_that_never_ends_is_not_kept(start_server: Callable[..., Server]) -> None:
    server = start_server(limits={"body_s": 0.5})
    before = server.rss
    with Http(server) as http:
        piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        assert is_cut(http, head(http, "Transfer-Encoding: chunked"), *([piece] * 1_000_000))
    assert server.rss - before < 16_000_000


def test_body_of_the_largest_size_is_read(server: Server, channel: str) -> None:
    with Http(server) as http:
        body = json.dumps({"channel": channel, "data": 1}).encode()
        assert http.request("POST", "/v1/messages", body=body + b" " * (BODY_MAX - len(body))).status == 200


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_head_that_comes_in_two_pieces_with_a_large_body_is_read(server: Server, channel: str, cut: int) -> None:
    with Http(server) as http:
        body = json.dumps({"channel": channel, "data": 1}).encode().ljust(BODY_MAX)
        request = head(http, f"Content-Length: {len(body)}") + body
        http.send(request[:cut])
        assert http.is_silent()
        http.send(request[cut:])
        assert http.read_response().status == 200


def test_list_that_is_too_long_is_refused(server: Server, channel: str) -> None:
    with Http(server) as http:
        item = b'{"channel":"%b","data":1}' % channel.encode()
        answer = http.request("POST", "/v1/messages", body=b"[" + b",".join([item] * 10_001) + b"]")
        assert (answer.status, answer.code) == (413, "too_large")


SMUGGLED = b'{"channel":"CHANNEL","data":"smuggled"}'


@pytest.mark.parametrize(
    "form",
    [
        ["Content-Length: 4", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 4"],
        ["Content-Length: 4", "Content-Length: 5"],
        ["Content-Length: 4, 5"],
        ["Content-Length: +4"],
        ["Content-Length: -4"],
        ["Content-Length: 0x4"],
        ["Content-Length: 4 4"],
        ["Content-Length: 99999999999999999999999"],
        ["Content-Length : 4"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding : chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["X: y\r\n Transfer-Encoding: chunked"],
        ["X: y\n", "Content-Length: 4"],
        ["X: y\rContent-Length: 4"],
        ["X\0: y"],
        ["X: y\0"],
        ["no colon"],
        [": no name"],
    ],
    ids=str,
)
def test_request_that_two_servers_would_read_differently_carries_no_second_one(
    server: Server, channel: str, form: list[str]
) -> None:
    """Whatever the answer is, what stands in the body is never taken for a request (RFC 9112, section 11.2)."""
    inner = SMUGGLED.replace(b"CHANNEL", channel.encode())
    with Http(server) as http:
        second = head(http, f"Content-Length: {len(inner)}") + inner
        send_all(http, head(http, *form) + b"0\r\n\r\n" + second)
        try:
            statuses = [http.read_response().status]
            while True:
                statuses.append(http.read_response().status)
        except Closed:
            pass
    assert statuses[0] in (400, 413), statuses
    page = Http(server)
    assert page.get(target("/v1/messages", (channel,), {"since": "earliest"})).json()["messages"] == []
    page.close()


@pytest.mark.parametrize(
    "line",
    [
        "GET", "GET /nothing", "GET / HTTP/9.9", "GET / HTTP/1", "get /healthz HTTP/1.1", "G\0T / HTTP/1.1",
        "GET  / HTTP/1.1x", "PRI * HTTP/2.0", "\x16\x03\x01\x02\x00\x01", "GET /\xff HTTP/1.1",
        "CONNECT a:1 HTTP/1.1", "GET http://[ HTTP/1.1",
    ],
)  # fmt: skip
def test_line_that_is_no_request_is_refused(server: Server, line: str) -> None:
    with Http(server) as http:
        http.send(head(http, start=line))
        answer = http.read_response()
        assert answer.status in (400, 404)
        assert answer.code in ("bad_request", "not_found")


@pytest.mark.parametrize(
    "path",
    ["/../etc/passwd", "/console/../config.py", "/console/%2e%2e/config.py", "/%00", "//", "/v1", "/v1/messages/"],
)
def test_path_that_leads_nowhere_is_refused(server: Server, path: str) -> None:
    with Http(server) as http:
        answer = http.get(path)
        assert answer.status in (307, 404)
        assert b"import" not in answer.body


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/events", "/v1/stream"])
def test_method_that_a_path_does_not_take_is_refused(server: Server, method: str, path: str) -> None:
    with Http(server) as http:
        answer = http.request(method, path)
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert "GET" in answer.headers["allow"]


def test_requests_behind_a_stream_are_never_answered_into_it(server: Server, channel: str) -> None:
    with Http(server) as http:
        request = head(http, start=f"GET {target('/v1/stream', (channel,), {})} HTTP/1.1")
        http.send(request + head(http, start="GET /healthz HTTP/1.1"))
        assert http.read_head()[0] == 200
        assert b'"connected"' in http.read_piece()
        send_all(http, *([head(http, start="GET /healthz HTTP/1.1")] * 5000))
        server.publish(channel, "only this")
        piece = http.read_piece()
        assert json.loads(piece)["data"] == "only this"
        assert http.is_silent()


def test_garbage_behind_a_request_does_not_take_its_answer(server: Server, channel: str) -> None:
    body = json.dumps({"channel": channel, "data": 1}).encode()
    with Http(server) as http:
        http.send(head(http, f"Content-Length: {len(body)}") + body + b"\0\0garbage\r\n\r\n")
        answer = http.read_response()
        assert answer.status == 200
        assert answer.json()["position"]
        assert http.read_to_end() == b""


def test_flood_of_pipelined_requests_is_answered_in_order(server: Server, channel: str) -> None:
    with Http(server) as http:
        bodies = [json.dumps({"channel": channel, "data": number}).encode() for number in range(500)]
        http.send(b"".join(head(http, f"Content-Length: {len(body)}") + body for body in bodies))
        seqs = [int(http.read_response().json()["position"].split(".")[1]) for _ in bodies]
        assert seqs == sorted(set(seqs))
