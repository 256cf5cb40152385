"""Frames that break RFC 6455, or bend it: each ends its own connection with the code for it."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import pytest

from tests.serving import Server
from tests.wires import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    TEXT,
    Closed,
    Http,
    Refused,
    WebSocket,
    handshake_fields,
    write_frame,
)

PING_COMMAND = b'{"type":"ping"}'


def close_code(wire: WebSocket, *sent: bytes) -> int:
    """Send bytes, also where the server has closed meanwhile; return the code that it closes with."""
    try:
        for piece in sent:
            wire.send(piece)
    except OSError:
        pass  # it has closed already; what it said is still there to read
    return wire.read_close()[0]


@pytest.mark.parametrize(
    "frame",
    [
        write_frame(TEXT, PING_COMMAND, masked=False),
        write_frame(PING, b"", masked=False),
        *(write_frame(TEXT, PING_COMMAND, rsv=rsv) for rsv in range(1, 8)),
        *(write_frame(opcode, b"") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        write_frame(PING, b"x" * 126),
        write_frame(CLOSE, b"\x03\xe8" + b"x" * 124),
        write_frame(PING, b"x", fin=False),
        write_frame(CLOSE, b"\x03\xe8", fin=False),
        write_frame(CONT, b"nothing to continue"),
        write_frame(TEXT, b"", fin=False) + write_frame(TEXT, PING_COMMAND),
        write_frame(TEXT, b"", fin=False) + write_frame(BINARY, PING_COMMAND),
        write_frame(CLOSE, b"\x03"),
        *(write_frame(CLOSE, struct.pack("!H", code)) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xff" * 100,
    ],
)
def test_frame_that_breaks_the_protocol_closes_with_1002(server: Server, frame: bytes) -> None:
    with WebSocket(server) as wire:
        assert close_code(wire, frame) == 1002


@pytest.mark.parametrize(
    "text",
    [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b'{"type":"ping","ref":"\xe2\x82"}'],
)
def test_text_that_is_not_utf8_closes_with_1007(server: Server, text: bytes) -> None:
    with WebSocket(server) as wire:
        assert close_code(wire, write_frame(TEXT, text)) == 1007
    with WebSocket(server) as wire:
        # Seen in the first fragment already, or at the end.
        assert close_code(wire, write_frame(TEXT, text, fin=False) + write_frame(CONT, b"")) == 1007


def test_close_reason_that_is_not_utf8_closes_with_1007(server: Server) -> None:
    with WebSocket(server) as wire:
        assert close_code(wire, write_frame(CLOSE, b"\x03\xe8\xff")) == 1007


@pytest.mark.parametrize("length", [(1 << 20) + 1, 1 << 31, (1 << 63) - 1])
def test_frame_that_is_too_large_closes_with_1009_before_it_came(server: Server, length: int) -> None:
    with WebSocket(server) as wire:
        assert close_code(wire, write_frame(TEXT, b"{", length=length)) == 1009


def test_length_with_the_highest_bit_is_no_length(server: Server) -> None:
    with WebSocket(server) as wire:
        assert close_code(wire, write_frame(TEXT, b"", length=1 << 63)) in (1002, 1009)


def test_message_of_the_largest_size_is_read(server: Server) -> None:
    with WebSocket(server) as wire:
        command = b'{"type":"ping","ref":1' + b" " * ((1 << 20) - 23) + b"}"
        assert len(command) == 1 << 20
        wire.send(write_frame(TEXT, command))
        assert wire.read() == {"type": "pong", "ref": 1}


@pytest.mark.parametrize("size", [100_000, 4000])
def test_message_too_large_in_fragments_closes_with_1009(server: Server, size: int) -> None:
    with WebSocket(server) as wire:
        piece = write_frame(CONT, b" " * size, fin=False)
        assert close_code(wire, write_frame(TEXT, b" ", fin=False), *([piece] * ((1 << 20) // size + 1))) == 1009


def test_message_of_endless_empty_fragments_closes_with_1009(server: Server) -> None:
    with WebSocket(server) as wire:
        pieces = [write_frame(CONT, b"", fin=False) * 10_000] * 14
        assert close_code(wire, write_frame(TEXT, b"", fin=False), *pieces) == 1009


@pytest.mark.parametrize("rsv", [4, 6])
def test_compressed_frame_that_was_not_negotiated_closes_with_1002(server: Server, rsv: int) -> None:
    with WebSocket(server) as wire:
        assert close_code(wire, write_frame(TEXT, b"\xaa\x56\x2a", rsv=rsv)) == 1002


@pytest.mark.parametrize("fragments", [1, 50])
def test_zip_bomb_closes_with_1009_and_is_never_unpacked(server: Server, fragments: int) -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    bomb = deflate.compress(b" " * 200_000_000) + deflate.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 250_000
    before = server.rss
    with WebSocket(server, deflate="permessage-deflate") as wire:
        size = len(bomb) // fragments + 1
        pieces = [bomb[place : place + size] for place in range(0, len(bomb), size)]
        frames = [
            write_frame(CONT if number else TEXT, piece, rsv=0 if number else 4, fin=number == len(pieces) - 1)
            for number, piece in enumerate(pieces)
        ]
        assert close_code(wire, *frames) == 1009
    assert server.rss - before < 30_000_000


@pytest.mark.parametrize("payload", [b"\xff\xff\xff\xff", b"\x00", b"not deflate at all"])
def test_compressed_frame_that_is_garbage_ends_the_connection(server: Server, payload: bytes) -> None:
    with WebSocket(server, deflate="permessage-deflate") as wire:
        assert close_code(wire, write_frame(TEXT, payload, rsv=4)) in (1002, 1007)


def test_flood_of_pings_is_answered_or_cut_but_not_kept(server: Server) -> None:
    """A peer that never reads its pongs is no longer read from, once the buffer between is full."""
    with WebSocket(server, receive_buffer=4096) as wire:
        before = server.rss
        sent = wire.send_while_taken(write_frame(PING, b"x" * 125) * 1000, 100_000_000)
        assert sent < 100_000_000, "the server goes on reading from a peer that reads nothing"
        assert server.rss - before < 16_000_000


def test_bytes_one_by_one_are_read(server: Server) -> None:
    with WebSocket(server) as wire:
        for byte in write_frame(TEXT, b'{"type":"ping","ref":1}'):
            wire.send(bytes((byte,)))
        assert wire.read() == {"type": "pong", "ref": 1}


def test_frames_behind_a_close_are_not_read(server: Server, channel: str) -> None:
    with WebSocket(server) as reader, WebSocket(server) as wire:
        reader.ask(type="subscribe", channel=channel)
        publish = json.dumps({"type": "publish", "channel": channel, "data": "too late"}).encode()
        wire.send(write_frame(CLOSE, b"\x03\xe8") + write_frame(TEXT, publish))
        assert wire.read_close()[0] == 1000
        server.publish(channel, "end")
        assert reader.read()["data"] == "end"


@pytest.mark.parametrize(
    "change",
    [
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": "x" * 5000},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Version": None},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits=99"},
        {"Sec-WebSocket-Extensions": ";;;,,,"},
        {"Sec-WebSocket-Protocol": "\xff\xfe"},
    ],
)
def test_handshake_that_is_broken_is_refused_or_read_leniently(server: Server, change: dict[str, Any]) -> None:
    fields = {**dict(handshake_fields()), **change}
    with Http(server) as http:
        http.send_request("GET", "/v1/ws", headers=[(name, value) for name, value in fields.items() if value])
        try:
            status, _ = http.read_head()
        except Closed:
            return
        assert status in (101, 400, 404, 426, 431)
        if status == 101:
            http.send(write_frame(TEXT, b'{"type":"ping"}'))
            assert b"pong" in http.read_until(b"}")


def test_refused_handshake_says_why(server: Server) -> None:
    with pytest.raises(Refused) as refused:
        WebSocket(server, headers=[("Origin", "null")])
    assert refused.value.response.status == 403
    assert refused.value.response.code == "forbidden_origin"
