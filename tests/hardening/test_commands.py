"""Commands and publishes that make no sense, in both languages and over each door."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest

from tests.serving import Server
from tests.wires import BINARY, TEXT, Http, WebSocket, write_frame

DEEP = 100_000

NOT_JSON = [
    b"", b"{", b"nul", b"{]", b'{"type":"ping"}x', b'{"type":"ping"} {"type":"ping"}', b"\xef\xbb\xbf{}", b"\0",
    b'{"type":"ping","ref":"\n"}', b'{"type":"ping","ref":NaN}', b"{'type':'ping'}", b'{"type":"ping",}',
    b"[" * DEEP, b'{"a":' * DEEP, b'{"type":"publish","channel":"a","data":"\\ud800"}', b'"' + b"x" * 100_000,
]  # fmt: skip

NOT_MSGPACK = [
    b"", b"\xc1", b"\x81", b"\x81\xa4type", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xffx",
    b"\xc6\xff\xff\xff\xff", b"\x91" * DEEP, b"\x81\xa1a" * DEEP, msgspec.msgpack.encode({"type": "ping"}) + b"\x01",
    b"\x81\xa4type\xa4pi\xffg",
]  # fmt: skip

ABSURD_NAMES = [
    "", " ", "a b", "..", "a..b", "a/../b", "-a", ".a", ":a", "/a", "ä", "a\0", "a\n", "a\r\nSet-Cookie: x", "a" * 256,
    "a" * 100_000, "%61", "a?b", "a&b", "a*", "*", "<script>", "a\u202eb", "💥", "a,b", "a\\b", "a'b",
    'a"b', "a;b", "a|b",
]  # fmt: skip

FOREIGN_CURSORS = [
    "", ".", "a", "a.", ".1", "a.b", "a.-1", "a.01", "a.1.2", "a.1,", ",", "a.9223372036854775808", "a." + "9" * 5000,
    "a" * 33 + ".1", "-1", "1e5", "9223372036854775808", "1" * 600, "\0", "a.1\n", "NOW", "a.１", "latest", " a.1",
]  # fmt: skip


@pytest.mark.parametrize("payload", NOT_JSON, ids=range(len(NOT_JSON)))
def test_malformed_json_closes_with_1007(server: Server, payload: bytes) -> None:
    with WebSocket(server) as wire:
        wire.send(write_frame(TEXT, payload))
        code, reason = wire.read_close()
        assert code == 1007
        assert len(reason) < 124


@pytest.mark.parametrize("payload", NOT_MSGPACK, ids=range(len(NOT_MSGPACK)))
def test_malformed_messagepack_closes_with_1007(server: Server, payload: bytes) -> None:
    with WebSocket(server, packed=True) as wire:
        wire.send(write_frame(BINARY, payload))
        assert wire.read_close()[0] == 1007


@pytest.mark.parametrize("payload", NOT_JSON, ids=range(len(NOT_JSON)))
def test_malformed_json_body_is_refused(server: Server, payload: bytes) -> None:
    with Http(server) as http:
        answer = http.request("POST", "/v1/messages", body=payload)
        # A field that is missing may be seen before what is wrong behind it.
        assert (answer.status, answer.code) in ((400, "malformed"), (400, "bad_request"))
        assert http.get("/healthz").status == 200


@pytest.mark.parametrize("payload", NOT_MSGPACK, ids=range(len(NOT_MSGPACK)))
def test_malformed_messagepack_body_is_refused(server: Server, payload: bytes) -> None:
    headers = [("Content-Type", "application/msgpack")]
    with Http(server) as http:
        answer = http.request("POST", "/v1/messages", headers=headers, body=payload)
        assert (answer.status, answer.code) in ((400, "malformed"), (400, "bad_request"))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ([], "bad_request"),
        (1, "bad_request"),
        (None, "bad_request"),
        ("ping", "bad_request"),
        ({}, "bad_request"),
        ({"type": None}, "unknown_command"),
        ({"type": 5}, "unknown_command"),
        ({"type": ["ping"]}, "unknown_command"),
        ({"type": {"a": 1}}, "unknown_command"),
        ({"type": ""}, "unknown_command"),
        ({"type": "PING"}, "unknown_command"),
        ({"type": "subscribed"}, "unknown_command"),
        ({"type": "x" * 100_000}, "unknown_command"),
        ({"type": "__class__"}, "unknown_command"),
        ({"type": "ping", "ref": 1.5}, "bad_request"),
        ({"type": "ping", "ref": [1]}, "bad_request"),
        ({"type": "connect", "session": 5}, "bad_request"),
        ({"type": "connect", "session": "s" * 65}, "bad_request"),
        ({"type": "connect", "session": "a\nb"}, "bad_request"),
        ({"type": "subscribe"}, "bad_request"),
        ({"type": "subscribe", "channel": ["a"]}, "bad_request"),
        ({"type": "subscribe", "channel": 1}, "bad_request"),
        ({"type": "subscribe", "channel": "a", "since": -1}, "invalid_cursor"),
        ({"type": "subscribe", "channel": "a", "since": 2**63}, "invalid_cursor"),
        ({"type": "subscribe", "channel": "a", "since": 1.5}, "bad_request"),
        ({"type": "subscribe", "channel": "a", "since": True}, "bad_request"),
        ({"type": "subscribe", "channel": "a", "since": {}}, "bad_request"),
        ({"type": "subscribe", "channel": "a", "last": -1}, "bad_request"),
        ({"type": "subscribe", "channel": "a", "last": 10_001}, "bad_request"),
        ({"type": "subscribe", "channel": "a", "last": 2**62}, "bad_request"),
        ({"type": "subscribe", "channel": "a", "last": "5"}, "bad_request"),
        ({"type": "subscribe", "channel": "a", "policy": "none"}, "bad_request"),
        ({"type": "subscribe", "channel": "a", "on_gap": "middle"}, "bad_request"),
        ({"type": "unsubscribe", "channel": "a"}, "bad_request"),
        ({"type": "publish", "channel": "a"}, "bad_request"),
        ({"type": "publish", "channel": "a", "data": 1, "id": 5}, "bad_request"),
        ({"type": "publish", "channel": "a", "data": 1, "id": "x" * 129}, "bad_request"),
        ({"type": "publish", "channel": "a", "data": 1, "key": "\0"}, "bad_request"),
        ({"type": "publish", "channel": "a", "data": 1, "event": "a\r\nid: 1"}, "bad_request"),
        ({"type": "publish", "channel": "a", "data": 1, "event": "closing"}, "bad_request"),
        ({"type": "publish", "channel": "a", "data": 1, "echo": "no"}, "bad_request"),
        ({"type": "publish", "channel": "a", "data": 1, "expect": 5}, "bad_request"),
        ({"type": "publish", "channel": "a", "data": "x" * 100_000}, "too_large"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_command_that_makes_no_sense_is_an_error_and_the_connection_goes_on(
    server: Server, packed: bool, command: Any, code: str
) -> None:
    with WebSocket(server, packed=packed) as wire:
        if packed:
            wire.send(write_frame(BINARY, msgspec.msgpack.encode(command)))
        else:
            wire.send(write_frame(TEXT, json.dumps(command).encode()))
        error = wire.read()
        assert (error["type"], error["code"]) == ("error", code), error
        assert 0 < len(error["message"]) < 1000
        assert wire.ask(type="ping")["type"] == "pong"


@pytest.mark.parametrize("name", ABSURD_NAMES, ids=range(len(ABSURD_NAMES)))
def test_absurd_channel_name_is_refused_everywhere(server: Server, name: str) -> None:
    with WebSocket(server) as wire, WebSocket(server, packed=True) as packed, Http(server) as http:
        for each in (wire, packed):
            for command in ("subscribe", "unsubscribe", "publish"):
                assert each.ask(type=command, channel=name, data=1)["code"] == "invalid_channel"
        assert http.post("/v1/messages", {"channel": name, "data": 1}).code == "invalid_channel"
        if len(name) < 1000:
            escaped = "".join(f"%{byte:02x}" for byte in name.encode())
            for path in ("/v1/messages", "/v1/events", "/v1/stream"):
                assert http.get(f"{path}?channel={escaped}").code == "invalid_channel"


@pytest.mark.parametrize("cursor", FOREIGN_CURSORS, ids=range(len(FOREIGN_CURSORS)))
def test_cursor_that_is_none_is_refused_everywhere(server: Server, channel: str, cursor: str) -> None:
    with WebSocket(server) as wire, Http(server) as http:
        assert wire.ask(type="subscribe", channel=channel, since=cursor)["code"] == "invalid_cursor"
        assert wire.ask(type="publish", channel=channel, data=1, expect=cursor)["code"] == "invalid_cursor"
        if cursor:  # an empty parameter is none
            escaped = "".join(f"%{byte:02x}" for byte in cursor.encode())
            for path in ("/v1/messages", "/v1/events", "/v1/stream"):
                answer = http.get(f"{path}?channel={channel}&since={escaped}")
                assert answer.status == 400
                assert answer.code in ("invalid_cursor", "bad_request")
            assert http.get(f"/v1/messages?channel={channel}&before={escaped}").status == 400


@pytest.mark.parametrize(
    "data",
    [
        {1: 2},
        {b"a": 1},
        float("nan"),
        float("inf"),
        [[float("-inf")]],
        msgspec.msgpack.Ext(5, b"x"),
        {"deep": [msgspec.msgpack.Ext(-1, struct.pack("!I", 1))]},
    ],
)
def test_data_that_json_has_not_is_refused(server: Server, channel: str, data: Any) -> None:
    body = msgspec.msgpack.encode({"channel": channel, "data": data})
    with WebSocket(server, packed=True) as wire, Http(server) as http:
        wire.send(write_frame(BINARY, msgspec.msgpack.encode({"type": "publish", "channel": channel, "data": data})))
        assert wire.read()["code"] == "invalid_data"
        answer = http.request("POST", "/v1/messages", headers=[("Content-Type", "application/msgpack")], body=body)
        assert (answer.status, answer.code) == (400, "invalid_data")


@pytest.mark.parametrize("depth", [101, 500, 900, 5000])
def test_data_that_is_nested_too_deep_is_refused(server: Server, channel: str, depth: int) -> None:
    data = b"[" * depth + b"]" * depth
    with Http(server) as http:
        body = b'{"channel":"%b","data":%b}' % (channel.encode(), data)
        answer = http.request("POST", "/v1/messages", body=body)
        assert answer.status == 400
        assert answer.code in ("invalid_data", "malformed")


def test_numbers_and_texts_at_their_bounds_reach_both_languages(server: Server, channel: str) -> None:
    texts = [b"1e400", b"-1e400", b"9" * 400, b"-0", b"1E-999", b'"\\u0000"', b'{"":{"":[]}}', b'{"a":1,"a":2}']
    with WebSocket(server) as wire, WebSocket(server, packed=True) as packed:
        wire.ask(type="subscribe", channel=channel)
        packed.ask(type="subscribe", channel=channel)
        taken = 0
        for text in texts:
            wire.send(
                write_frame(TEXT, b'{"type":"publish","ref":1,"channel":"%b","data":%b}' % (channel.encode(), text))
            )
            answer = wire.read()
            while answer["type"] == "message":
                answer = wire.read()
            taken += answer["type"] == "published"
            assert answer["type"] == "published" or answer["code"] == "invalid_data"
        assert taken >= 5
        assert [packed.read()["type"] for _ in range(taken)] == ["message"] * taken
        assert packed.ask(type="ping")["type"] == "pong"
