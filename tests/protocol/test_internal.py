"""What is said on the server's own channels, as each wire tells it (spec, section 7)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tellwire.errors import InvalidChannel
from tellwire.message import Message
from tellwire.names import Namespaces, check_channel
from tellwire.protocol.codecs import JSON, MSGPACK, Codec
from tellwire.protocol.encodings import (
    OBJECTS,
    PROCESS,
    Encoding,
    event_stream,
    lines,
    payload_encoding,
    websocket_encoding,
)
from tellwire.protocol.internal import CONTROL, INBOX, PRESENCE, event_name, is_internal
from tellwire.protocol.sse import Event, EventParser

codecs = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.name)

BYTES = b'{"$bytes":"AP8="}'
RAW = b"\x00\xff"


def said(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(JSON.message(message))
    return found


def packed(message: Message) -> Any:
    return msgspec.msgpack.decode(MSGPACK.message(message))


def presence(event: str, data: bytes, seq: int = 7) -> Message:
    return Message(PRESENCE + "room:1", seq, f"k.{seq}", 5, data, event=event)


JOIN = presence("join", b'{"client":"c","user":"ada","info":{"name":"Ada"},"state":{"x":[1,2.5,null]}}')
COUNT = presence("count", b'{"clients":2000,"users":1500}')
LEAVE = presence("leave", b'{"client":"c"}')
SIGNAL = Message(
    INBOX + "d", 8, "c:m-1", 6, b'{"channel":"room:1","from_":"c","id":"m-1","data":{"sdp":"v=0"},"user":"ada"}',
    event="offer",
)  # fmt: skip
PLAIN = Message("room:1", 9, "k.9", 7, b"1")


@codecs
@pytest.mark.parametrize("what", ["join", "update", "leave"])
def test_members_come_and_go_by_the_name_of_their_channel(codec: Codec, what: str) -> None:
    message = presence(what, JOIN.data)
    found = said(message) if codec is JSON else packed(message)
    member = {"client": "c", "user": "ada", "info": {"name": "Ada"}, "state": {"x": [1, 2.5, None]}}
    assert found == {"type": what, "channel": "room:1", "member": member, "seq": 7}


@codecs
def test_what_a_member_has_not_is_left_out(codec: Codec) -> None:
    found = said(LEAVE) if codec is JSON else packed(LEAVE)
    assert found == {"type": "leave", "channel": "room:1", "member": {"client": "c"}, "seq": 7}


@codecs
def test_a_state_of_null_is_a_state(codec: Codec) -> None:
    message = presence("update", b'{"client":"c","state":null}')
    found = said(message) if codec is JSON else packed(message)
    assert found["member"] == {"client": "c", "state": None}


@codecs
def test_large_channels_are_counted(codec: Codec) -> None:
    found = said(COUNT) if codec is JSON else packed(COUNT)
    assert found == {"type": "count", "channel": "room:1", "clients": 2000, "users": 1500, "seq": 7}


@codecs
def test_signals_have_their_senders_id_and_channel(codec: Codec) -> None:
    found = said(SIGNAL) if codec is JSON else packed(SIGNAL)
    assert found == {
        "type": "signal", "channel": "room:1", "from": "c", "user": "ada", "event": "offer", "data": {"sdp": "v=0"},
        "id": "m-1", "time": 6, "seq": 8,
    }  # fmt: skip


@codecs
def test_signals_of_nobody_have_no_user(codec: Codec) -> None:
    message = Message(INBOX + "d", 8, "k.8", 6, b'{"channel":"a","from_":"c","id":"","data":null}')
    found = said(message) if codec is JSON else packed(message)
    assert "user" not in found
    assert (found["event"], found["data"], found["id"]) == ("message", None, "")


def test_bytes_are_what_each_language_has_for_them() -> None:
    joined = presence("join", b'{"client":"c","info":{"avatar":%b},"state":[%b]}' % (BYTES, BYTES))
    assert said(joined)["member"] == {
        "client": "c",
        "info": {"avatar": json.loads(BYTES)},
        "state": [json.loads(BYTES)],
    }
    assert packed(joined)["member"] == {"client": "c", "info": {"avatar": RAW}, "state": [RAW]}
    signal = Message(INBOX + "d", 8, "k.8", 6, b'{"channel":"a","from_":"c","id":"","data":%b}' % BYTES)
    assert said(signal)["data"] == json.loads(BYTES)
    assert packed(signal)["data"] == RAW


def test_texts_that_end_lines_elsewhere_stay_on_one_line() -> None:
    text = json.dumps("a\u2028\u2029\x85\r\nb", ensure_ascii=False).encode()
    joined = presence("join", b'{"client":"c","state":%b}' % text)
    assert lines(chunked=False).frame(joined, "k").count(b"\n") == 1
    (event,) = EventParser().feed(event_stream(envelope=False, chunked=False).frame(joined, "k"))
    assert json.loads(event.data)["member"]["state"] == "a\u2028\u2029\x85\r\nb"


@pytest.mark.parametrize("envelope", [False, True])
@pytest.mark.parametrize(
    ("message", "name"),
    [(JOIN, "presence"), (LEAVE, "presence"), (COUNT, "presence"), (SIGNAL, "signal")],
    ids=["join", "leave", "count", "signal"],
)
def test_an_event_source_gets_them_by_two_names_and_with_an_id(message: Message, name: str, envelope: bool) -> None:
    assert event_name(message.channel) == name
    frame = event_stream(envelope=envelope, chunked=False).frame(message, "k")
    (event,) = EventParser().feed(frame)
    assert (event.event, event.id) == (name, f"k.{message.seq}")
    assert json.loads(event.data) == said(message)


def test_a_stream_of_both_kinds_is_read_in_its_order() -> None:
    encoding = event_stream(envelope=False, chunked=False)
    stream = b"".join(encoding.frame(message, "k") for message in (JOIN, SIGNAL, PLAIN))
    *others, last = EventParser().feed(stream)
    assert [(event.event, event.id) for event in others] == [("presence", "k.7"), ("signal", "k.8")]
    assert last == Event("message", "1", "k.9")


def test_lines_and_polls_have_the_push() -> None:
    for message in (JOIN, COUNT, SIGNAL):
        assert json.loads(lines(chunked=False).frame(message, "k")) == said(message)
        assert json.loads(OBJECTS.frame(message, "k")) == said(message)


@codecs
def test_web_sockets_have_the_push_in_their_language(codec: Codec) -> None:
    for message in (JOIN, COUNT, SIGNAL):
        payload = codec.message(message)
        assert payload_encoding(codec).frame(message, "k") == payload
        assert websocket_encoding(codec, 0).frame(message, "k").endswith(payload)


def test_readers_in_this_process_get_the_message_itself() -> None:
    encoding: Encoding = PROCESS
    assert encoding.join([encoding.frame(JOIN, "k"), encoding.frame(PLAIN, "k")]) == (JOIN, PLAIN)


@pytest.mark.parametrize("name", [PRESENCE + "room:1", INBOX + "c", CONTROL, "$", "$presence", "$anything:else"])
def test_nobody_else_can_name_them(name: str) -> None:
    assert is_internal(name)
    with pytest.raises(InvalidChannel):
        check_channel(name)


@pytest.mark.parametrize("name", ["presence:room:1", "a$presence:b", "client:c"])
def test_what_only_resembles_them_is_anybodys(name: str) -> None:
    assert not is_internal(check_channel(name))


def test_each_has_settings_of_its_own() -> None:
    namespaces = Namespaces()
    found = {namespaces.of(name).name for name in (PRESENCE + "room:1", INBOX + "c", CONTROL)}
    assert found == {"$presence", "$client", "$control"}
