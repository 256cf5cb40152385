"""How messages look on each wire; WebSocket frames are read back by two foreign parsers (spec, section 8)."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.protocol import OPEN
from websockets.uri import parse_uri
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping, TextMessage
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate

from tellwire.message import Gap, Message
from tellwire.protocol.codecs import JSON, MSGPACK, Codec
from tellwire.protocol.encodings import (
    BINARY,
    DEFLATE_MIN_BYTES,
    OBJECTS,
    PING_FRAME,
    TEXT,
    data_frame,
    event_stream,
    lines,
    payload_encoding,
    websocket_encoding,
    websocket_frame,
)
from tellwire.protocol.pushes import GapPush, Heartbeat, Pong
from tellwire.protocol.sse import Event, EventParser

MESSAGE = Message("news", 7, "id-7", 5, b'{"text":"hi"}')
GAP = GapPush.of(Gap("old.1", "k.9", "epoch", ("news",)))

payloads = st.binary(max_size=300) | st.binary(min_size=1, max_size=8).map(lambda piece: piece * 20_000)


def read_by_websockets(stream: bytes, window_bits: int) -> list[tuple[int, bytes]]:
    parser = ClientProtocol(parse_uri("ws://localhost/"), state=OPEN, max_size=None)
    if window_bits:
        parser.extensions = [PerMessageDeflate(True, True, window_bits, 15)]
    parser.receive_data(stream)
    frames = [event for event in parser.events_received() if isinstance(event, Frame)]
    assert parser.parser_exc is None, parser.parser_exc
    return [(int(frame.opcode), bytes(frame.data)) for frame in frames]


def read_by_wsproto(stream: bytes, window_bits: int) -> list[tuple[int, bytes]]:
    extensions = []
    if window_bits:
        deflate = WsprotoDeflate()
        deflate.finalize(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            f"server_max_window_bits={window_bits}"
        )
        extensions.append(deflate)
    connection = Connection(ConnectionType.CLIENT, extensions)  # type: ignore[arg-type]  # list is invariant
    connection.receive_data(stream)
    messages: list[tuple[int, bytes]] = []
    parts: list[bytes] = []
    for event in connection.events():
        if isinstance(event, Ping):
            messages.append((0x9, bytes(event.payload)))
            continue
        assert isinstance(event, TextMessage | BytesMessage), event
        parts.append(event.data.encode() if isinstance(event, TextMessage) else bytes(event.data))
        if event.message_finished:
            messages.append((TEXT if isinstance(event, TextMessage) else BINARY, b"".join(parts)))
            parts = []
    return messages


readers = pytest.mark.parametrize("read", [read_by_websockets, read_by_wsproto])


@readers
@pytest.mark.parametrize("window_bits", [0, 9, 12, 15])
@given(st.lists(payloads, min_size=1, max_size=4))
def test_frames_are_read_back_by_foreign_parsers(read, window_bits: int, pieces: list[bytes]) -> None:  # type: ignore[no-untyped-def]  # a choice of functions
    stream = b"".join(data_frame(BINARY, piece, window_bits) for piece in pieces)
    assert read(stream, window_bits) == [(BINARY, piece) for piece in pieces]


@readers
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 1_048_576])
def test_every_form_of_the_length_is_read_back(read, size: int) -> None:  # type: ignore[no-untyped-def]  # a choice of functions
    assert read(websocket_frame(TEXT, b"x" * size), 0) == [(TEXT, b"x" * size)]


def test_compression_is_left_out_where_it_saves_nothing() -> None:
    small = b"x" * (DEFLATE_MIN_BYTES - 1)
    assert data_frame(TEXT, small, 12) == websocket_frame(TEXT, small)
    noise = Random(1).randbytes(600)
    assert data_frame(BINARY, noise, 12) == websocket_frame(BINARY, noise)
    assert len(data_frame(TEXT, b"x" * DEFLATE_MIN_BYTES, 12)) < 30


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.name)
@pytest.mark.parametrize("window_bits", [0, 12])
def test_a_websocket_batch_is_its_frames_in_order(codec: Codec, window_bits: int) -> None:
    encoding = websocket_encoding(codec, window_bits)
    frames = [encoding.frame(MESSAGE, "k"), encoding.frame(Message("b", 8, "i", 5, b'"%b"' % (b"y" * 2000)), "k")]
    batch = encoding.join(frames)
    assert batch == b"".join(frames)
    opcode = BINARY if codec.binary else TEXT
    expected = [
        (opcode, codec.message(MESSAGE)),
        (opcode, codec.message(Message("b", 8, "i", 5, b'"%b"' % (b"y" * 2000)))),
    ]
    assert read_by_websockets(batch, window_bits) == expected


def test_a_websocket_heartbeat_is_a_ping_and_a_push() -> None:
    encoding = websocket_encoding(JSON, 0)
    beat = encoding.beat("k.7")
    assert beat.startswith(PING_FRAME)
    assert read_by_websockets(beat, 0) == [(0x9, b""), (TEXT, JSON.encode(Heartbeat("k.7")))]


def test_encodings_are_one_object_for_each_kind() -> None:
    assert websocket_encoding(JSON, 12) is websocket_encoding(JSON, 12)
    assert event_stream(envelope=False, chunked=True) is event_stream(envelope=False, chunked=True)
    assert lines(chunked=True) is lines(chunked=True)
    assert payload_encoding(JSON) is payload_encoding(JSON)
    # Chunked or not, a frame is the same and may be shared.
    assert lines(chunked=True).key == lines(chunked=False).key


def read_events(batch: bytes) -> list[Event]:
    return EventParser().feed(batch)


def test_sse_carries_what_was_published_and_the_cursor() -> None:
    encoding = event_stream(envelope=False, chunked=False)
    assert encoding.frame(MESSAGE, "k") == b'id: k.7\ndata: {"text":"hi"}\n\n'
    named = Message("news", 8, "i", 5, b'"a"', event="greeting")
    assert read_events(encoding.frame(named, "k")) == [Event("greeting", '"a"', "k.8")]


def test_sse_gives_ephemeral_messages_no_id() -> None:
    frame = event_stream(envelope=False, chunked=False).frame(Message("news", 0, "", 5, b"1"), "k")
    assert frame == b"data: 1\n\n"


def test_sse_envelopes_are_the_message_push() -> None:
    (event,) = read_events(event_stream(envelope=True, chunked=False).frame(MESSAGE, "k"))
    assert event.data.encode() == JSON.message(MESSAGE)
    assert event.id == "k.7"


def test_sse_envelopes_reach_readers_that_do_not_know_the_event_name() -> None:
    message = Message("news", 7, "id-7", 5, b"1", event="order")
    (event,) = read_events(event_stream(envelope=True, chunked=False).frame(message, "k"))
    assert (event.event, json.loads(event.data)["event"]) == ("message", "order")


def test_sse_gap_of_another_epoch_moves_the_readers_id() -> None:
    encoding = event_stream(envelope=False, chunked=False)
    (event,) = read_events(encoding.push(GAP))
    assert (event.event, event.id) == ("gap", "k.9")
    assert json.loads(event.data)["reason"] == "epoch"
    parser = EventParser("k.1")
    (slow,) = parser.feed(encoding.push(GapPush("k.1", "k.9", "slow", ("news",))))
    assert slow.id == "k.1"


def test_sse_heartbeat_is_a_comment() -> None:
    assert read_events(event_stream(envelope=False, chunked=False).beat("k.7")) == []


def test_ndjson_is_one_push_a_line() -> None:
    encoding = lines(chunked=False)
    body = encoding.join([encoding.frame(MESSAGE, "k")]) + encoding.push(GAP) + encoding.beat("k.9")
    assert body == JSON.message(MESSAGE) + b"\n" + JSON.encode(GAP) + b"\n\n"


@pytest.mark.parametrize("encoding", [event_stream(envelope=False, chunked=True), lines(chunked=True)])
def test_chunked_batches_say_their_size(encoding) -> None:  # type: ignore[no-untyped-def]  # either of two
    frames = [encoding.frame(MESSAGE, "k")] * 3
    size, _, rest = encoding.join(frames).partition(b"\r\n")
    assert int(size, 16) == len(rest) - 2
    assert rest == b"".join(frames) + b"\r\n"


def test_polls_get_message_objects_and_gaps_and_nothing_else() -> None:
    assert OBJECTS.join([OBJECTS.frame(MESSAGE, "k")]) == (JSON.message(MESSAGE),)
    assert OBJECTS.push(GAP) is GAP
    assert OBJECTS.push(Pong()) == ()


def test_payloads_for_other_servers_are_what_the_frames_would_hold() -> None:
    encoding = payload_encoding(MSGPACK)
    assert encoding.join([encoding.frame(MESSAGE, "k")]) == (MSGPACK.message(MESSAGE),)
    assert encoding.push(GAP) == (MSGPACK.encode(GAP),)
