"""What is different where the app goes through plain ``send()``: other servers, and their own backpressure."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.readers import EventReader, LineReader, SocketReader, target
from tests.serving import PATIENT_S, Server
from tests.wires import TEXT, Http, Refused, WebSocket, write_frame

FOREIGN = pytest.mark.parametrize("kind", ["uvicorn", "hypercorn"])


@FOREIGN
def test_reader_that_goes_away_is_let_go_of(start_server: Callable[..., Server], channel: str, kind: str) -> None:
    server = start_server(kind)
    for _ in range(30):
        with EventReader(server, channel), LineReader(server, channel), SocketReader(server, channel):
            pass
    with EventReader(server, channel) as reader:
        server.publish(channel, 1)
        assert reader.read_data(1) == [1]
    server.stop()
    assert "Traceback" not in server.log


@pytest.mark.parametrize("path", ["/v1/events", "/v1/stream"])
def test_reader_that_stops_reading_costs_its_buffers_and_no_more(
    start_server: Callable[..., Server], channel: str, path: str
) -> None:
    server = start_server(
        "uvicorn", limits={"tail_max_bytes": 200_000, "heartbeat_s": PATIENT_S}, namespaces=[{"history_messages": 100}]
    )
    with Http(server, receive_buffer=4096) as stalled, LineReader(server, channel) as other:
        stalled.send_request("GET", target(path, (channel,), {}))
        stalled.read_head()
        stalled.read_piece()
        batch = [{"channel": channel, "data": "x" * 1000}] * 100
        before = 0
        for number in range(200):
            if number == 60:
                before = server.rss
            server.publish_all(batch)
            assert len(other.read_messages(100)) == 100
        assert server.rss - before < 6_000_000
        server.publish(channel, "end")
        stalled.read_until(b"gap")
        stalled.read_until(b'"end"')


def test_websocket_that_stops_reading_costs_its_buffers_and_no_more(
    start_server: Callable[..., Server], channel: str
) -> None:
    server = start_server(
        "uvicorn", limits={"tail_max_bytes": 200_000, "heartbeat_s": PATIENT_S}, namespaces=[{"history_messages": 100}]
    )
    with WebSocket(server, receive_buffer=4096) as stalled, LineReader(server, channel) as other:
        stalled.ask(type="subscribe", channel=channel)
        batch = [{"channel": channel, "data": "x" * 1000}] * 100
        before = 0
        for number in range(200):
            if number == 60:
                before = server.rss
            server.publish_all(batch)
            assert len(other.read_messages(100)) == 100
        assert server.rss - before < 6_000_000
        server.publish(channel, "end")
        pushes = [stalled.read()]
        while pushes[-1].get("data") != "end":
            pushes.append(stalled.read())
        assert [push["reason"] for push in pushes if push["type"] == "gap"] == ["slow"]


def test_peer_that_never_reads_its_answers_is_no_longer_read_from(
    foreign_servers: Callable[[str], Server], channel: str
) -> None:
    """However large they are: a ``ref`` comes back as it was."""
    server = foreign_servers("uvicorn")
    with WebSocket(server, receive_buffer=4096) as wire:
        before = server.rss
        frame = write_frame(TEXT, b'{"type":"ping","ref":"%b"}' % (b"r" * 200_000))
        assert wire.send_while_taken(frame, 400_000_000) < 400_000_000
        assert server.rss - before < 32_000_000


@FOREIGN
def test_handshake_of_a_page_from_elsewhere_is_refused(foreign_servers: Callable[[str], Server], kind: str) -> None:
    with pytest.raises(Refused) as refused:
        WebSocket(foreign_servers(kind), headers=[("Origin", "https://evil.example")])
    assert refused.value.response.code == "forbidden_origin"
