"""HTTP/2 frames that cost the sender nothing: they cost the server no more, and no other connection notices."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from operator import methodcaller

import pytest

from tests.hardening.punctual import in_time
from tests.http2 import Http2
from tests.readers import target
from tests.serving import SHARED, Certificate, Server
from tests.wires import Closed

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_HEADERS, END_STREAM = 4, 1
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def secure_server(certificate: Certificate) -> Iterator[Server]:
    """Our own server with TLS."""
    server = Server(**{**SHARED, "server": certificate.settings})
    yield server
    log = server.log
    server.close()
    assert "Traceback" not in log


@pytest.fixture(autouse=True)
def honest_stream(secure_server: Server, certificate: Certificate, channel: str) -> Iterator[None]:
    """A stream on a connection of its own that goes on."""
    with Http2(secure_server, certificate.client_context("h2")) as wire:
        stream = wire.start("GET", target("/v1/stream", (f"{channel}-honest",), {}))
        wire.wait_for(stream, b"\n")
        yield
        body = b'{"channel":"%b-honest","data":"still here"}' % channel.encode()
        assert wire.finish(wire.start("POST", "/v1/messages", body=body))
        wire.wait_for(stream, b"still here")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Write a frame (RFC 9113, section 4.1)."""
    return struct.pack("!I", len(payload))[1:] + bytes((kind, flags)) + struct.pack("!I", stream) + payload


def check_ended(wire: Http2, piece: bytes, times: int) -> None:
    """Send a piece again and again, and see that the server ends the connection."""
    try:
        for _ in range(times):
            wire.send(piece)
        wire.read_to_end()
    except TimeoutError:
        raise
    except OSError:
        return  # it was ended before all of that was sent


def send_and_listen(wire: Http2, piece: bytes) -> None:
    """Send a piece, and read until the server says nothing more or ends the connection."""
    with contextlib.suppress(OSError, Closed):
        wire.send(piece)
        wire.socket.settimeout(1)
        while True:
            wire.read_exactly(1)


def headers(wire: Http2, path: str) -> bytes:
    """Encode the fields of a GET."""
    fields = [(":method", "GET"), (":path", path), (":scheme", "https"), (":authority", wire.host)]
    return wire.h2.encoder.encode(fields)


def test_continuation_that_never_ends_is_ended(secure_server: Server, certificate: Certificate) -> None:
    before = secure_server.rss
    with Http2(secure_server, certificate.client_context("h2")) as wire:
        wire.send(frame(HEADERS, END_STREAM, 1, headers(wire, "/healthz")))
        filler = frame(CONTINUATION, 0, 1, b"\x00\x01x\x7f\x80\x7f" + b"y" * 255) * 50
        check_ended(wire, filler, 10_000)
    assert secure_server.rss - before < 16 * MEGABYTE


def test_streams_that_are_reset_at_once_are_bounded(secure_server: Server, certificate: Certificate) -> None:
    """CVE-2023-44487: each costs the sender two small frames."""
    before = secure_server.rss
    with Http2(secure_server, certificate.client_context("h2")) as wire:
        block = headers(wire, "/v1/messages?channel=a&wait=60")
        frames = [
            frame(HEADERS, END_HEADERS | END_STREAM, stream, block) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
            for stream in range(1, 10_001, 2)
        ]
        send_and_listen(wire, b"".join(frames))
    assert secure_server.rss - before < 24 * MEGABYTE


def test_streams_beyond_the_most_at_once_are_refused(secure_server: Server, certificate: Certificate) -> None:
    before = secure_server.rss
    with Http2(secure_server, certificate.client_context("h2")) as wire:
        block = headers(wire, "/v1/messages?channel=a&wait=60")
        frames = [frame(HEADERS, END_HEADERS | END_STREAM, stream, block) for stream in range(1, 10_001, 2)]
        send_and_listen(wire, b"".join(frames))
        assert secure_server.rss - before < 32 * MEGABYTE


@pytest.mark.parametrize(
    "piece",
    [
        frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff"),
        frame(PING, 0, 0, b"12345678"),
        frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"),
        frame(99, 0, 0, b"x" * 100),
    ],
    ids=["settings", "ping", "window", "unknown"],
)
def test_flood_of_small_frames_is_not_kept(secure_server: Server, certificate: Certificate, piece: bytes) -> None:
    before = secure_server.rss
    with Http2(secure_server, certificate.client_context("h2")) as wire:
        wire.socket.settimeout(1)
        try:
            for _ in range(400):
                wire.send(piece * 500)
        except OSError:
            pass  # cut, or no longer read from
        assert secure_server.rss - before < 16 * MEGABYTE


@pytest.mark.parametrize(
    "piece",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        frame(DATA, 0, 0, b"x"),
        frame(HEADERS, END_HEADERS, 2, b"\x82"),
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
        frame(SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff"),
        frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
        frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2,
        frame(CONTINUATION, 0, 1, b"x"),
        frame(DATA, 0, 1, b"x" * 20_000),
        frame(PING, 0, 0, b"short"),
        frame(PING, 0, 1, b"12345678"),
        frame(GOAWAY, 0, 0, b"\0" * 8),
    ],
)
def test_frame_that_breaks_http2_ends_its_connection(
    secure_server: Server, certificate: Certificate, piece: bytes
) -> None:
    with Http2(secure_server, certificate.client_context("h2")) as wire:
        check_ended(wire, piece, 1)


def test_connection_that_says_nothing_is_cut(certificate: Certificate) -> None:
    server = Server(server=certificate.settings, limits={"head_s": 0.6, "body_s": 0.6, "idle_s": 0.6})
    try:
        context = certificate.client_context("h2")
        for sent in (b"", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"")):
            with in_time(0.6, lambda: Silent(server, context), methodcaller("send", sent)) as wire:
                wire.read_to_end()
    finally:
        server.close()


class Silent(Http2):
    """A connection that has not said its preface."""

    def _flush(self) -> None:
        pass
