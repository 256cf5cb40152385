"""The NDJSON door, line by line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.readers import LineReader, target
from tests.serving import Server
from tests.wires import Closed, Http


def read_line(wire: Http) -> Any:
    """Read a line that is sent by itself."""
    piece = wire.read_piece()
    assert piece.endswith(b"\n")
    assert piece.count(b"\n") == 1
    return json.loads(piece) if piece != b"\n" else None


def test_stream_opens_with_connected_and_goes_on_with_pushes(any_server: Server, channel: str) -> None:
    start = any_server.publish(channel, 0)
    with Http(any_server) as wire:
        wire.send_request("GET", target("/v1/stream", (channel,), {"session": "mine"}))
        status, headers = wire.read_head()
        assert status == 200
        assert headers["content-type"] == "application/x-ndjson"
        assert "no-store" in headers["cache-control"]
        connected = read_line(wire)
        assert connected["type"] == "connected"
        assert connected["session"] == "mine"
        assert connected["cursor"] == start
        assert connected["epoch"] == start.split(".")[0]
        any_server.publish(channel, {"text": "a\nb"}, event="made")
        message = read_line(wire)
        assert (message["type"], message["event"], message["data"]) == ("message", "made", {"text": "a\nb"})


def test_gap_is_a_line(any_server: Server, channel: str) -> None:
    name = f"short:{channel}"
    positions = any_server.publish_all([{"channel": name, "data": number} for number in range(9)])
    gap = {"type": "gap", "from": positions[0], "to": positions[3], "reason": "trimmed", "channels": [name]}
    with LineReader(any_server, name, since=positions[0]) as reader:
        cut_before_the_gap = reader.cursor
        assert reader.read() == gap
        assert reader.read_data(5) == [4, 5, 6, 7, 8]
    assert reader.cursor == positions[8]
    with LineReader(any_server, name, since=cut_before_the_gap) as reader:
        assert reader.read() == gap, "what was not told is told to who comes back"


def test_cursor_of_another_log_is_kept_until_it_is_told(any_server: Server, channel: str) -> None:
    any_server.publish(channel, 1)
    with LineReader(any_server, channel, since="zzzzzzzz.5") as reader:
        assert reader.cursor == "zzzzzzzz.5"
        gap = reader.read_gap()
        assert (gap["from"], gap["reason"]) == ("zzzzzzzz.5", "epoch")
        assert reader.cursor == gap["to"]
        assert reader.read_data(1) == [1]


def test_quiet_stream_gets_empty_lines(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"heartbeat_s": 0.05})
    with Http(server) as wire:
        wire.send_request("GET", target("/v1/stream", (channel,), {}))
        wire.read_head()
        assert read_line(wire)["heartbeat_ms"] == 50
        assert read_line(wire) is None
        assert read_line(wire) is None


def test_stream_says_that_it_closes(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server()
    with LineReader(server, channel) as reader:
        server.publish(channel, 1)
        assert reader.read_data(1) == [1]
        server.terminate()
        closing = reader.read()
        assert closing["type"] == "closing"
        assert closing["code"] == 1012
        with pytest.raises(Closed):
            reader.read()


def test_head_request_has_no_stream(any_server: Server, channel: str) -> None:
    with Http(any_server) as http:
        answer = http.request("HEAD", target("/v1/stream", (channel,), {}))
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert http.get("/healthz").status == 200


def test_gap_is_told_once_however_many_bites_follow_it(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(
        namespaces=[{"name": "short", "history_messages": 20}], limits={"read_bite_bytes": 2000, "tail_max_bytes": 2000}
    )
    short, long = f"short:{channel}", channel
    positions = server.publish_all(
        [{"channel": name, "data": number} for number in range(100) for name in (short, long)]
    )
    with LineReader(server, short, long, since=positions[5]) as reader:
        gap = reader.read_gap()
        assert gap["channels"] == [short]
        # What is kept of the long channel before the gap ends comes in bites, each of which begins behind the floor.
        messages = reader.read_messages(97 + 20)
    assert [message["data"] for message in messages if message["channel"] == long] == list(range(3, 100))
    assert [message["data"] for message in messages if message["channel"] == short] == list(range(80, 100))
