"""Chunked bodies that two servers would read differently, or that never come to their end (RFC 9112, section 7.1)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.readers import target
from tests.serving import Server
from tests.wires import Closed, Http

HEAD = "POST /v1/messages HTTP/{version}\r\nHost: {host}\r\n{fields}\r\n"


def write_head(http: Http, *fields: str, version: str = "1.1") -> bytes:
    return HEAD.format(version=version, host=http.host, fields="".join(f"{each}\r\n" for each in fields)).encode()


def message(channel: str, data: str) -> bytes:
    return json.dumps({"channel": channel, "data": data}).encode()


def published(server: Server, channel: str) -> list[str]:
    with Http(server) as http:
        page = http.get(target("/v1/messages", (channel,), {"since": "earliest"})).json()
        return [each["data"] for each in page["messages"]]


def statuses_of(http: Http, request: bytes) -> list[int]:
    """Send; return the statuses of all answers up to where the server closes."""
    statuses = []
    try:
        http.send(request)
        while True:
            statuses.append(http.read_response().status)
    except (Closed, OSError):
        return statuses


@pytest.mark.parametrize(
    ("size", "end"),
    [
        ("{:x}", "\n"),  # bare LF
        ("{:x}\r", "\r\n"),
        ("-{:x}", "\r\n"),
        ("+{:x}", "\r\n"),
        ("0x{:x}", "\r\n"),
        ("{:x}g", "\r\n"),
        (" {:x}", "\r\n"),
        ("{:x} 5", "\r\n"),
        ("", "\r\n"),
        ("{:x}_0", "\r\n"),
        ("1" + "0" * 16 + "{:02x}", "\r\n"),  # beyond 64 bits
        ("{:x};a=b\n", "\r\n"),
        ("{:x};\0", "\r\n"),
    ],
)
def test_size_that_is_none_ends_the_connection(server: Server, channel: str, size: str, end: str) -> None:
    body = message(channel, "in a chunk")
    with Http(server) as http:
        chunks = (size.format(len(body)) + end).encode() + body + b"\r\n0\r\n\r\n"
        behind = write_head(http, f"Content-Length: {len(body)}") + message(channel, "smuggled..")
        statuses = statuses_of(http, write_head(http, "Transfer-Encoding: chunked") + chunks + behind)
        assert statuses == [400]
    assert published(server, channel) == []


@pytest.mark.parametrize("end", [b"\r\n\n", b"\n\r\n", b"X\r\n", b"\0\r\n", b"POST / HTTP/1.1\r\n\r\n"])
def test_chunk_that_is_longer_than_it_says_ends_the_connection(server: Server, channel: str, end: bytes) -> None:
    body = message(channel, "in a chunk")
    with Http(server) as http:
        chunks = b"%x\r\n" % len(body) + body + end + b"0\r\n\r\n"
        behind = write_head(http, f"Content-Length: {len(body)}") + message(channel, "smuggled..")
        statuses = statuses_of(http, write_head(http, "Transfer-Encoding: chunked") + chunks + behind)
        assert statuses == [400]
    assert published(server, channel) == []


@pytest.mark.parametrize(
    "fields", [["Transfer-Encoding: chunked"], ["Content-Length: 5", "Transfer-Encoding: chunked"]]
)
def test_chunks_in_http_1_0_carry_no_second_request(server: Server, channel: str, fields: list[str]) -> None:
    """HTTP/1.0 knows no chunks, so a proxy of that age would read the body as requests."""
    with Http(server) as http:
        body = message(channel, "smuggled")
        inner = write_head(http, f"Content-Length: {len(body)}") + body
        statuses = statuses_of(
            http, write_head(http, *fields, "Transfer-Encoding: chunked", version="1.0") + b"0\r\n\r\n" + inner
        )
        assert len(statuses) == 1
        assert statuses[0] == 400
    assert published(server, channel) == []


def test_extensions_and_trailers_are_passed_over(server: Server, channel: str) -> None:
    body = message(channel, "fine")
    with Http(server) as http:
        head = write_head(http, "Transfer-Encoding: chunked")
        http.send(head + b'5;a=b;c="d e"\r\n' + body[:5] + b"\r\n%x\r\n" % len(body[5:]) + body[5:] + b"\r\n")
        http.send(b"0\r\nX-Trailer: 1\r\n\r\n")
        assert http.read_response().status == 200
        assert http.get("/healthz").status == 200
    assert published(server, channel) == ["fine"]


@pytest.mark.parametrize(
    "trailer",
    ["Origin: https://evil.example", "Host: evil.example", "Content-Type: application/msgpack", "Idempotency-Key: x"],
)
def test_trailer_is_no_field_of_the_head(server: Server, channel: str, trailer: str) -> None:
    """Whoever stands before the server has not seen it there (RFC 9110, section 6.5.1)."""
    body = message(channel, "fine")
    with Http(server) as http:
        request = write_head(http, "Transfer-Encoding: chunked") + b"%x\r\n" % len(body) + body + b"\r\n"
        for _ in range(2):
            http.send(request + f"0\r\n{trailer}\r\n\r\n".encode())
            answer = http.read_response()
            assert answer.status == 200
            assert answer.json()["duplicate"] is False


@pytest.mark.parametrize("trailer", ["Content-Length: 5", "Transfer-Encoding: identity"])
def test_trailer_that_frames_a_body_ends_the_connection(server: Server, channel: str, trailer: str) -> None:
    body = message(channel, "in a chunk")
    with Http(server) as http:
        chunks = b"%x\r\n" % len(body) + body + f"\r\n0\r\n{trailer}\r\n\r\n".encode()
        behind = write_head(http, f"Content-Length: {len(body)}") + message(channel, "smuggled..")
        assert statuses_of(http, write_head(http, "Transfer-Encoding: chunked") + chunks + behind) == [400]
    assert published(server, channel) == []


@pytest.mark.parametrize("where", ["extension", "trailer", "many trailers", "many chunks"])
def test_body_without_an_end_is_cut_and_not_kept(start_server: Callable[..., Server], where: str) -> None:
    server = start_server(limits={"body_s": 0.5})
    begin, piece = {
        "extension": (b"5;x=", b"y" * 65_536),
        "trailer": (b"0\r\nX: ", b"y" * 65_536),
        "many trailers": (b"0\r\n", b"X: y\r\n" * 10_000),
        "many chunks": (b"", b"1;x=y\r\nz\r\n" * 6_000),
    }[where]
    with Http(server) as first:
        assert first.get("/healthz").status == 200
    before = server.rss
    with Http(server) as http:
        try:
            http.send(write_head(http, "Transfer-Encoding: chunked") + begin)
            for _ in range(100_000):
                http.send(piece)
        except OSError:
            pass
        else:
            pytest.fail("6 GB were taken")
    # What arrives in one turn of the loop is held for that turn: tens of MB where the sender is quick, never all.
    assert server.rss - before < 64_000_000
    with Http(server) as http:
        assert http.get("/healthz").status == 200
