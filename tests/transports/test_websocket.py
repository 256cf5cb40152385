"""The WebSocket door: handshake, languages, frames, heartbeats, closing."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.readers import SocketReader
from tests.serving import PATIENT_S, Server
from tests.wires import BINARY, CLOSE, CONT, PING, PONG, TEXT, Http, WebSocket, handshake_fields, write_frame

DEFLATE = "permessage-deflate; server_no_context_takeover"


def test_handshake_answers_the_key_and_takes_a_subprotocol(server: Server) -> None:
    with WebSocket(server) as wire:
        accept = hashlib.sha1(b"dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        assert wire.headers["sec-websocket-accept"] == base64.b64encode(accept).decode()
        assert wire.headers["sec-websocket-protocol"] == "tellwire.v1.json"
        assert "sec-websocket-extensions" not in wire.headers


@pytest.mark.parametrize("offered", [None, "chat, superchat"])
def test_handshake_without_a_known_subprotocol_means_json(any_server: Server, offered: str | None) -> None:
    fields = [field for field in handshake_fields() if field[0] != "Sec-WebSocket-Protocol"]
    if offered is not None:
        fields.append(("Sec-WebSocket-Protocol", offered))
    with Http(any_server) as http:
        http.send_request("GET", "/v1/ws", headers=fields)
        status, headers = http.read_head()
        assert status == 101
        assert "sec-websocket-protocol" not in headers
        http.send(write_frame(TEXT, b'{"type":"ping","ref":1}'))
        assert b'{"type":"pong","ref":1}' in http.read_until(b"}") + b"}"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("tellwire.v1.msgpack, tellwire.v1.json", "tellwire.v1.msgpack"),
        ("tellwire.v1.json, tellwire.v1.msgpack", "tellwire.v1.json"),
        ("tellwire.v9.json, tellwire.token.abc, tellwire.v1.msgpack", "tellwire.v1.msgpack"),
    ],
)
def test_handshake_takes_what_the_client_names_first(any_server: Server, offered: str, chosen: str) -> None:
    fields = [field for field in handshake_fields() if field[0] != "Sec-WebSocket-Protocol"]
    with Http(any_server) as http:
        http.send_request("GET", "/v1/ws", headers=[*fields, ("Sec-WebSocket-Protocol", offered)])
        assert http.read_head()[1]["sec-websocket-protocol"] == chosen


def test_plain_request_to_the_websocket_path_is_told_to_upgrade(server: Server) -> None:
    with Http(server) as http:
        answer = http.get("/v1/ws")
        assert (answer.status, answer.code) == (426, "upgrade_required")
        # RFC 9110, section 15.5.22: "The server MUST send an Upgrade header field in a 426 response."
        assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("packed", [False, True])
def test_connect_says_who_and_where(any_server: Server, channel: str, packed: bool) -> None:
    position = any_server.publish(channel, 1)
    with WebSocket(any_server, packed=packed) as wire:
        connected = wire.ask(type="connect", session="mine")
        assert connected["session"] == "mine"
        assert connected["heartbeat_ms"] == 25_000
        assert connected["epoch"] == position.split(".")[0]
        epoch, seq = connected["cursor"].split(".")
        assert epoch == connected["epoch"]
        assert int(seq) >= int(position.split(".")[1])
        assert connected["client"]


def test_connect_makes_a_session_where_none_is_named(server: Server) -> None:
    with WebSocket(server) as first, WebSocket(server) as second:
        sessions = {wire.ask(type="connect")["session"] for wire in (first, second)}
        assert len(sessions) == 2
        assert all(len(session) >= 16 for session in sessions)


def test_connect_comes_first_or_not_at_all(any_server: Server) -> None:
    with WebSocket(any_server) as wire:
        assert wire.ask(type="connect")["type"] == "connected"
        assert wire.ask(type="connect")["code"] == "bad_request"
        assert wire.ask(type="ping")["type"] == "pong"
    with WebSocket(any_server) as wire:
        assert wire.ask(type="ping")["type"] == "pong"
        assert wire.ask(type="connect")["code"] == "bad_request"


@pytest.mark.parametrize("packed", [False, True])
def test_subscribe_and_unsubscribe(any_server: Server, channel: str, packed: bool) -> None:
    with WebSocket(any_server, packed=packed) as wire:
        subscribed = wire.ask(type="subscribe", channel=channel)
        assert subscribed["channel"] == channel
        assert subscribed["gap"] is None
        assert wire.ask(type="subscribe", channel=channel)["code"] == "bad_request"
        any_server.publish(channel, 1)
        assert wire.read()["data"] == 1
        assert wire.ask(type="unsubscribe", channel=channel)["type"] == "unsubscribed"
        assert wire.ask(type="unsubscribe", channel=channel)["code"] == "bad_request"
        position = any_server.publish(channel, 2)
        assert wire.ask(type="ping")["type"] == "pong"
        assert not wire.waiting
        assert wire.ask(type="subscribe", channel=channel, since=position)["cursor"] == position
        any_server.publish(channel, 3)
        assert wire.read()["data"] == 3


def test_channel_that_is_added_later_catches_up_by_itself(any_server: Server, channel: str) -> None:
    other = channel + "-old"
    any_server.publish_all([{"channel": other, "data": number} for number in range(50)])
    with WebSocket(any_server) as wire:
        wire.ask(type="subscribe", channel=channel)
        any_server.publish(channel, "live")
        wire.ask(type="subscribe", channel=other, since="earliest")
        any_server.publish(other, "both")
        any_server.publish(channel, "both")
        pushes = [wire.read() for _ in range(53)]
    assert [push["data"] for push in pushes if push["channel"] == other] == [*range(50), "both"]
    assert [push["data"] for push in pushes if push["channel"] == channel] == ["live", "both"]
    assert [push["channel"] for push in pushes[-2:]] == [other, channel]


def test_since_and_last_exclude_each_other(any_server: Server, channel: str) -> None:
    with WebSocket(any_server) as wire:
        assert wire.ask(type="subscribe", channel=channel, since="now", last=1)["code"] == "bad_request"


def test_subscribe_answer_carries_the_gap(any_server: Server, channel: str) -> None:
    name = f"short:{channel}"
    positions = any_server.publish_all([{"channel": name, "data": number} for number in range(9)])
    with WebSocket(any_server) as wire:
        gap = wire.ask(type="subscribe", channel=name, since=positions[0])["gap"]
    assert gap == {"from": positions[0], "to": positions[3], "reason": "trimmed", "channels": [name]}


def test_publish_is_answered_with_its_place(any_server: Server, channel: str) -> None:
    with SocketReader(any_server, channel) as reader, WebSocket(any_server) as wire:
        first = wire.ask(type="publish", channel=channel, data={"a": 1}, id="x")
        assert first["duplicate"] is False
        again = wire.ask(type="publish", channel=channel, data={"a": 2}, id="x")
        assert (again["position"], again["duplicate"]) == (first["position"], True)
        fleeting = wire.ask(type="publish", channel=channel, data=0, ephemeral=True)
        assert (fleeting["position"], fleeting["duplicate"]) == (None, False)
        messages = reader.read_messages(2)
        assert [message["data"] for message in messages] == [{"a": 1}, 0]
        assert messages[0]["id"] == "x"


def test_publish_that_expects_another_head_is_a_conflict(any_server: Server, channel: str) -> None:
    with WebSocket(any_server) as wire:
        first = wire.ask(type="publish", channel=channel, data=1)["position"]
        second = wire.ask(type="publish", channel=channel, data=2, expect=first)["position"]
        conflict = wire.ask(type="publish", channel=channel, data=3, expect=first)
        assert (conflict["code"], conflict["head"]) == ("conflict", second)


def test_echo_false_leaves_out_the_connection_itself(any_server: Server, channel: str) -> None:
    with WebSocket(any_server) as wire, SocketReader(any_server, channel) as other:
        wire.ask(type="subscribe", channel=channel)
        wire.ask(type="publish", channel=channel, data="mine", echo=False)
        wire.ask(type="publish", channel=channel, data="all")
        assert wire.read()["data"] == "all"
        assert other.read_data(2) == ["mine", "all"]


def test_bytes_go_through_as_they_are(any_server: Server, channel: str) -> None:
    blob = bytes(range(256))
    in_json = {"$bytes": base64.b64encode(blob).decode()}
    with WebSocket(any_server, packed=True) as packed, WebSocket(any_server) as plain:
        packed.ask(type="subscribe", channel=channel)
        plain.ask(type="subscribe", channel=channel)
        packed.ask(type="publish", channel=channel, data={"b": blob, "l": [blob]})
        plain.ask(type="publish", channel=channel, data={"b": in_json, "l": [in_json]})
        for _ in range(2):
            assert packed.read()["data"] == {"b": blob, "l": [blob]}
            assert plain.read()["data"] == {"b": in_json, "l": [in_json]}


@pytest.mark.parametrize(("packed", "opcode"), [(False, BINARY), (True, TEXT)])
def test_frame_of_the_other_kind_closes_with_1003(any_server: Server, packed: bool, opcode: int) -> None:
    with WebSocket(any_server, packed=packed) as wire:
        wire.send(write_frame(opcode, b'{"type":"ping"}'))
        code, reason = wire.read_close()
        assert code == 1003
        assert "frame" in reason


def test_ping_frame_is_answered_with_its_payload(server: Server) -> None:
    with WebSocket(server) as wire:
        wire.send(write_frame(PING, b"hello") + write_frame(PING, b""))
        assert [(frame.opcode, frame.payload) for frame in (wire.read_frame(), wire.read_frame())] == [
            (PONG, b"hello"),
            (PONG, b""),
        ]


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_close_is_answered_with_the_same_code(any_server: Server, code: int) -> None:
    with WebSocket(any_server) as wire:
        wire.send(write_frame(CLOSE, struct.pack("!H", code) + b"bye"))
        frame = wire.read_frame()
        assert frame.opcode == CLOSE
        assert struct.unpack("!H", frame.payload[:2]) == (code,)
        assert wire.read_to_end() == b""


def test_fragments_with_a_ping_between_make_one_command(any_server: Server) -> None:
    with WebSocket(any_server) as wire:
        command = json.dumps({"type": "ping", "ref": "über"}, ensure_ascii=False).encode()
        half = command.index(b"\xc3") + 1  # in the middle of a character
        wire.send(write_frame(TEXT, command[:half], fin=False) + write_frame(PING, b""))
        wire.send(write_frame(CONT, b"", fin=False) + write_frame(CONT, command[half:]))
        assert wire.read_frame().opcode == PONG
        assert wire.read() == {"type": "pong", "ref": "über"}


def test_deflate_is_used_where_it_makes_smaller(server: Server, channel: str) -> None:
    with WebSocket(server, deflate=DEFLATE) as wire:
        assert "permessage-deflate" in wire.headers["sec-websocket-extensions"]
        assert "server_no_context_takeover" in wire.headers["sec-websocket-extensions"]
        wire.ask(type="subscribe", channel=channel)
        server.publish_all([{"channel": channel, "data": "x" * 5000}, {"channel": channel, "data": "short"}])
        large = wire.read_frame()
        assert large.rsv == 4
        assert len(large.payload) < 500
        push = json.loads(zlib.decompressobj(wbits=-15).decompress(large.payload + b"\0\0\xff\xff"))
        assert push["data"] == "x" * 5000
        small = wire.read_frame()
        assert small.rsv == 0
        assert json.loads(small.payload)["data"] == "short"


@pytest.mark.parametrize(
    "offer",
    [
        *(f"permessage-deflate; server_max_window_bits={bits}" for bits in range(8, 16)),
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=8",
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits=7, permessage-deflate",
        "permessage-deflate; unknown=1",
        "x-webkit-deflate-frame",
    ],
)
def test_every_offer_of_compression_is_answered_so_that_messages_arrive(
    server: Server, channel: str, offer: str
) -> None:
    with WebSocket(server, deflate=offer) as wire:
        agreed = wire.headers.get("sec-websocket-extensions", "")
        wire.ask(type="subscribe", channel=channel)
        text = "".join(str(number) for number in range(3000))
        server.publish_all([{"channel": channel, "data": text}] * 2)
        for _ in range(2):
            frame = wire.read_frame()
            assert frame.rsv == (4 if agreed else 0)
            bits = int(agreed.partition("server_max_window_bits=")[2].partition(";")[0] or 15)
            payload = frame.payload
            if agreed:
                # A peer may have no more memory than the window that it asked for.
                payload = zlib.decompressobj(wbits=-bits).decompress(payload + b"\0\0\xff\xff")
            assert json.loads(payload)["data"] == text


def test_compression_can_be_turned_off(start_server: Callable[..., Server]) -> None:
    server = start_server(limits={"deflate": False})
    with WebSocket(server, deflate=DEFLATE) as wire:
        assert "sec-websocket-extensions" not in wire.headers
        assert wire.ask(type="ping")["type"] == "pong"


def test_deflated_command_is_read(server: Server) -> None:
    with WebSocket(server, deflate=DEFLATE) as wire:
        deflate = zlib.compressobj(wbits=-15)
        packed = deflate.compress(b'{"type":"ping","ref":7}') + deflate.flush(zlib.Z_SYNC_FLUSH)
        wire.send(write_frame(TEXT, packed[:-4], rsv=4))
        assert wire.read() == {"type": "pong", "ref": 7}


def test_quiet_connection_gets_heartbeats_with_its_cursor(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"heartbeat_s": 1.0})
    with WebSocket(server) as wire:
        assert wire.ask(type="connect")["heartbeat_ms"] == 1000
        wire.ask(type="subscribe", channel=channel)
        position = server.publish(channel, 1)
        opcodes = set()
        while True:
            frame = wire.read_frame()
            opcodes.add(frame.opcode)
            if frame.opcode == PING:
                wire.send(write_frame(PONG, frame.payload))
            elif json.loads(frame.payload) == {"type": "heartbeat", "cursor": position}:
                break
        assert opcodes == {PING, TEXT}


def test_peer_that_answers_no_ping_is_cut(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"heartbeat_s": 1.0})
    with WebSocket(server) as living, WebSocket(server) as dead, ThreadPoolExecutor(1) as pool:
        living.ask(type="subscribe", channel=channel)
        message = pool.submit(living.read)  # which answers the pings that come before it
        dead.answers = False
        assert dead.read_close()[0] == 4000
        server.publish(channel, "still here")
        assert message.result()["data"] == "still here"


def test_policy_disconnect_closes_a_reader_that_lags(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server()
    with WebSocket(server, receive_buffer=4096) as slow, SocketReader(server, channel) as quick, Http(server) as http:
        slow.ask(type="subscribe", channel=channel, policy="disconnect")
        for _ in range(300):
            server.publish_all([{"channel": channel, "data": "x" * 1000}] * 50)
            assert len(quick.read_data(50)) == 50
            if http.get("/v1/admin/stats").json()["connections"] == {"websocket": 1}:
                break  # from here on it has a few seconds to take what says why
        code, _ = slow.read_close()
        assert code == 4001


def test_lagging_reader_may_go_on_from_the_newest(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(
        namespaces=[{"history_messages": 100}], limits={"tail_max_bytes": 100_000, "heartbeat_s": PATIENT_S}
    )
    with WebSocket(server, receive_buffer=4096) as slow:
        slow.ask(type="subscribe", channel=channel, on_gap="newest")
        for start in range(0, 15_000, 100):
            server.publish_all([{"channel": channel, "data": [n, "x" * 1000]} for n in range(start, start + 100)])
        before = []
        while (push := slow.read())["type"] == "message":
            before.append(push["data"][0])
        assert before == list(range(len(before)))
        assert push["type"] == "gap"
        assert push["reason"] == "slow"
        position = server.publish(channel, "next")
        assert int(push["to"].split(".")[1]) < int(position.split(".")[1])
        while (push := slow.read()).get("data") != "next":
            assert push["type"] in ("gap", "message")


def test_policy_latest_gives_a_lagging_reader_the_newest_of_each_key(
    start_server: Callable[..., Server], channel: str
) -> None:
    server = start_server(namespaces=[{"history_messages": 100_000}], limits={"heartbeat_s": PATIENT_S})
    with WebSocket(server, receive_buffer=4096) as slow:
        slow.ask(type="subscribe", channel=channel, policy="latest")
        total = 15_000
        for start in range(0, total, 50):
            messages = [
                {"channel": channel, "data": [number, "x" * 1000], "key": str(number % 3)}
                for number in range(start, start + 50)
            ]
            server.publish_all(messages)
        read: list[dict[str, Any]] = []
        while not read or read[-1]["data"][0] < total - 1:
            read.append(slow.read())
    numbers = [push["data"][0] for push in read]
    assert numbers == sorted(set(numbers))
    assert len(numbers) < total / 2
    assert numbers[-3:] == [total - 3, total - 2, total - 1]


def test_websocket_outlives_what_an_idle_http_connection_may(start_server: Callable[..., Server]) -> None:
    server = start_server(limits={"idle_s": 0.5})
    with WebSocket(server) as wire:
        for _ in range(2):
            with Http(server) as idle:
                assert idle.get("/healthz").status == 200
                assert idle.read_to_end() == b""
        assert wire.ask(type="ping")["type"] == "pong"
