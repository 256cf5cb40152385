"""The SSE door, byte by byte, and as a foreign parser reads it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.readers import EventReader, target
from tests.serving import Server
from tests.wires import Closed, Http

FOREIGN = Path(__file__).parent / "foreign_sse.mjs"

TEXTS = [
    "a\rb",
    "a\nb",
    "a\r\nb\n\r",
    "\0",
    "\u2028\u2029",
    "\ufeff",
    "",
    " leading",
    "data: x\n\nid: 7\n\n",
    "😀" * 500,
]


def open_stream(server: Server, *channels: str, headers: Any = (), **parameters: Any) -> Http:
    """Open an event stream and read its head."""
    wire = Http(server)
    wire.send_request("GET", target("/v1/events", channels, parameters), headers=headers)
    status, fields = wire.read_head()
    assert status == 200
    assert fields["content-type"] == "text/event-stream"
    assert "no-store" in fields["cache-control"]
    assert fields["x-accel-buffering"] == "no"
    return wire


def read_text(wire: Http, end: bytes) -> bytes:
    """Read pieces of the stream until it ends with `end`."""
    text = b""
    while not text.endswith(end):
        piece = wire.read_piece()
        if not piece:
            raise Closed(text)
        text += piece
    return text


def test_stream_opens_with_retry_and_cursor_and_carries_what_was_published(any_server: Server, channel: str) -> None:
    start = any_server.publish(channel, 0)
    with open_stream(any_server, channel) as wire:
        assert read_text(wire, b"\n\n") == f"retry: 1000\n\nid: {start}\n\n".encode()
        first = any_server.publish(channel, {"a": "b\r\n"})
        assert read_text(wire, b"\n\n") == f'id: {first}\ndata: {{"a": "b\\r\\n"}}\n\n'.encode()
        second = any_server.publish(channel, "x", event="made")
        assert read_text(wire, b"\n\n") == f'id: {second}\nevent: made\ndata: "x"\n\n'.encode()
        any_server.publish(channel, 1, ephemeral=True)
        assert read_text(wire, b"\n\n") == b"data: 1\n\n"


def test_last_event_id_wins_over_since(any_server: Server, channel: str) -> None:
    positions = any_server.publish_all([{"channel": channel, "data": number} for number in range(4)])
    headers = [("Last-Event-ID", positions[2])]
    with open_stream(any_server, channel, headers=headers, since=positions[0]) as wire:
        text = read_text(wire, b"data: 3\n\n")
    assert text == f"retry: 1000\n\nid: {positions[2]}\n\nid: {positions[3]}\ndata: 3\n\n".encode()


def test_eventsource_that_was_opened_with_last_goes_on_from_its_id(any_server: Server, channel: str) -> None:
    """It comes back to the same address, with an id beside it."""
    positions = any_server.publish_all([{"channel": channel, "data": number} for number in range(4)])
    with open_stream(any_server, channel, headers=[("Last-Event-ID", positions[2])], last=4) as wire:
        assert b"data: 2" not in read_text(wire, b"data: 3\n\n")


def test_policy_disconnect_ends_a_stream_that_lags(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server()
    with Http(server, receive_buffer=4096) as slow, EventReader(server, channel) as quick:
        slow.send_request("GET", target("/v1/events", (channel,), {"policy": "disconnect"}))
        slow.read_until(b"id: ")
        for _ in range(300):
            server.publish_all([{"channel": channel, "data": "x" * 1000}] * 50)
            assert len(quick.read_messages(50)) == 50
        assert b'event: closing\ndata: {"type":"closing","code":4001' in slow.read_to_end()


def test_empty_last_event_id_is_none(server: Server, channel: str) -> None:
    """EventSource sends no empty one, but simple clients do."""
    positions = server.publish_all([{"channel": channel, "data": number} for number in range(2)])
    with open_stream(server, channel, headers=[("Last-Event-ID", "")], since=positions[0]) as wire:
        read_text(wire, b"data: 1\n\n")


def test_last_event_id_that_is_no_cursor_is_refused(any_server: Server, channel: str) -> None:
    with Http(any_server) as http:
        answer = http.get(target("/v1/events", (channel,), {}), headers=[("Last-Event-ID", "garbage")])
        assert (answer.status, answer.code) == (400, "invalid_cursor")


def test_gap_is_an_event_and_moves_the_cursor_only_where_the_epoch_changed(any_server: Server, channel: str) -> None:
    name = f"short:{channel}"
    positions = any_server.publish_all([{"channel": name, "data": number} for number in range(9)])
    with open_stream(any_server, name, since=positions[0]) as wire:
        text = read_text(wire, b"data: 8\n\n").decode()
    gap = {"type": "gap", "from": positions[0], "to": positions[3], "reason": "trimmed", "channels": [name]}
    assert f"event: gap\ndata: {json.dumps(gap, separators=(',', ':'))}\n\n" in text
    with open_stream(any_server, name, since="zzzzzzzz.1") as wire:
        text = read_text(wire, b"data: 8\n\n").decode()
    assert '"reason":"epoch"' in text
    assert text.index("event: gap") < text.index(f"id: {positions[4]}\n")


def test_gap_comes_before_the_id_that_is_past_it(any_server: Server, channel: str) -> None:
    """Who is cut between the two comes back with the old id, and is told once more."""
    name = f"short:{channel}"
    positions = any_server.publish_all([{"channel": name, "data": number} for number in range(9)])
    with open_stream(any_server, name, since=positions[0]) as wire:
        text = read_text(wire, b"data: 8\n\n").decode()
    assert text.index("event: gap") < text.index("id: ")
    assert text.startswith("retry: 1000\n\nevent: gap\n")


def test_envelope_wraps_the_data(any_server: Server, channel: str) -> None:
    with EventReader(any_server, channel) as reader:
        position = any_server.publish(channel, [1], key="k")
        (message,) = reader.read_messages(1)
        assert (message["channel"], message["key"], message["data"]) == (channel, "k", [1])
        assert reader.cursor == position


def test_quiet_stream_gets_comments(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"heartbeat_s": 0.05})
    with open_stream(server, channel) as wire:
        read_text(wire, b": \n\n: \n\n")
        server.publish(channel, 1)
        read_text(wire, b"data: 1\n\n")
        read_text(wire, b": \n\n")


@pytest.mark.parametrize("kind", ["direct", "uvicorn"])
def test_reader_that_stopped_reading_is_let_go_of(start_server: Callable[..., Server], channel: str, kind: str) -> None:
    server = start_server(kind, limits={"heartbeat_s": 0.1})
    stalled = Http(server, receive_buffer=4096)
    stalled.send_request("GET", target("/v1/events", (channel,), {}))
    stalled.read_until(b"id: ")
    with EventReader(server, channel) as other:
        for _ in range(200):
            server.publish_all([{"channel": channel, "data": "x" * 1000}] * 50)
            assert len(other.read_messages(50)) == 50
        # Comments go on coming to the reader that reads, for longer than the other one may stand still.
        beats = 0
        while beats < 8:
            beats += other.wire.read_piece().count(b": \n\n")
        server.publish(channel, "end")
        assert other.read_data(1) == ["end"]
    if kind == "direct":
        assert b'"end"' not in stalled.read_to_end()
    stalled.close()


def test_head_request_has_the_same_head_and_no_stream(any_server: Server, channel: str) -> None:
    with Http(any_server) as http:
        answer = http.request("HEAD", target("/v1/events", (channel,), {}))
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert http.get("/healthz").status == 200


@pytest.mark.parametrize("path", ["/v1/events", "/v1/stream"])
def test_http_1_0_client_reads_until_the_end(start_server: Callable[..., Server], channel: str, path: str) -> None:
    server = start_server()
    with Http(server) as wire:
        wire.send_request("GET", target(path, (channel,), {}), version="1.0")
        status, headers = wire.read_head()
        assert status == 200
        assert "transfer-encoding" not in headers
        assert headers["connection"] == "close"
        wire.read_until(b"\n")
        server.publish(channel, "hello")
        assert wire.read_until(b'"hello"')
        server.terminate()
        assert b"closing" in wire.read_to_end()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "bad_request"),
        ("channel=", "invalid_channel"),
        ("channel=..", "invalid_channel"),
        ("channel=a&since=x.y", "invalid_cursor"),
        ("channel=a&last=many", "bad_request"),
        ("channel=a&last=-1", "bad_request"),
        ("channel=a&last=1&since=now", "bad_request"),
        ("channel=a&policy=none", "bad_request"),
        ("channel=a&on_gap=none", "bad_request"),
        ("channel=a&session=" + "s" * 65, "bad_request"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/events", "/v1/stream"])
def test_bad_query_is_refused_before_the_stream_begins(any_server: Server, path: str, query: str, code: str) -> None:
    with Http(any_server) as http:
        answer = http.get(f"{path}?{query}")
        assert (answer.status, answer.code) == (400, code)
        assert http.get("/healthz").status == 200


def test_envelope_is_a_switch(any_server: Server) -> None:
    with Http(any_server) as http:
        assert http.get("/v1/events?channel=a&envelope=maybe").code == "bad_request"


def test_eventsource_parser_gives_back_what_was_published(any_server: Server, channel: str) -> None:
    node = shutil.which("node")
    assert node is not None, "node is needed to run the foreign parser; make test installs it"
    name = f"large:{channel}"
    values: list[Any] = [*TEXTS, None, 0, {"k": TEXTS}, "x" * (1 << 20), "€\n" * (1 << 18), "end"]
    for value in values[:-1]:
        any_server.publish(name, value)
    command = [node, str(FOREIGN), f"http://127.0.0.1:{any_server.port}{target('/v1/events', (name,), {'last': 100})}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as parser:
        assert parser.stdout is not None
        assert parser.stdout.readline() == "open\n"
        any_server.publish(name, values[-1], event="last")
        events = [json.loads(line) for line in parser.stdout]
    assert parser.returncode == 0
    assert [event["value"] for event in events] == values
    assert [event["event"] for event in events] == [None] * (len(values) - 1) + ["last"]
    assert len({event["id"] for event in events}) == len(values)
