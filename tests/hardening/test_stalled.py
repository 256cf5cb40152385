"""Readers that stop reading while 100,000 messages are published: a cursor that lags, and no more."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.readers import LineReader, target
from tests.serving import PATIENT_S, Server
from tests.wires import Http, WebSocket

TOTAL = 100_000
DATA = "x" * 126

BUFFERS = 12_000_000
"""What may come on top of the history and the tail: three sockets' buffers, joined frames, and what Python keeps."""


def stalled_readers(server: Server, channel: str) -> list[Http]:
    """Connect a reader on each push door, that reads its beginning and then nothing."""
    socket = WebSocket(server, receive_buffer=4096)
    assert socket.ask(type="subscribe", channel=channel)["type"] == "subscribed"
    events = Http(server, receive_buffer=4096)
    events.send_request("GET", target("/v1/events", (channel,), {"envelope": 1}))
    events.read_until(b"id: ")
    lines = Http(server, receive_buffer=4096)
    lines.send_request("GET", target("/v1/stream", (channel,), {}))
    lines.read_until(b'"connected"')
    return [socket, events, lines]


def publish_all(server: Server, channel: str) -> None:
    """Publish numbered messages."""
    for start in range(0, TOTAL, 500):
        server.publish_all([{"channel": channel, "data": [n, DATA]} for n in range(start, start + 500)])


class Numbers:
    """Takes the numbers out of a stream's raw bytes, whatever frames are around them."""

    def __init__(self, wire: Http) -> None:
        self.wire = wire
        self.gaps = 0

    def read(self, last: int) -> list[int]:
        """Read up to the message with the number `last`."""
        numbers: list[int] = []
        while not numbers or numbers[-1] != last:
            # Each message ends with its data, and each gap holds its reason.
            text = self.wire.read_until(b'"' + DATA.encode() + b'"]')
            self.gaps += text.count(b'"reason":"slow"')
            numbers.append(int(text[text.rindex(b'"data":[') + 8 :].rstrip(b", ")))
        return numbers


def run_beside(publish: Callable[[], None], reader: LineReader) -> list[int]:
    """Publish in a thread while another reader reads; return what it got."""
    thread = threading.Thread(target=publish)
    thread.start()
    read = [data[0] for data in reader.read_data(TOTAL)]
    thread.join()
    return read


def test_stalled_readers_get_everything_in_order_where_the_history_reaches_back(
    start_server: Callable[..., Server], channel: str
) -> None:
    history = 64_000_000
    tail = 4_000_000
    server = start_server(
        namespaces=[{"history_messages": TOTAL, "history_bytes": history}],
        limits={"tail_max_bytes": tail, "heartbeat_s": PATIENT_S},
    )
    server.publish_all([{"channel": "warm", "data": DATA}] * 1000)
    before = server.rss
    stalled = stalled_readers(server, channel)
    with LineReader(server, channel) as other:
        assert run_beside(lambda: publish_all(server, channel), other) == list(range(TOTAL))
    assert server.rss - before < history + tail + BUFFERS
    for wire in stalled:
        numbers = Numbers(wire)
        assert numbers.read(TOTAL - 1) == list(range(TOTAL))
        assert numbers.gaps == 0
        wire.close()


def test_stalled_readers_are_told_of_the_gap_where_the_history_was_trimmed(
    start_server: Callable[..., Server], channel: str
) -> None:
    server = start_server(
        namespaces=[{"history_messages": 500}], limits={"tail_max_bytes": 200_000, "heartbeat_s": PATIENT_S}
    )
    server.publish_all([{"channel": "warm", "data": DATA}] * 5000)
    before = server.rss
    stalled = stalled_readers(server, channel)
    with LineReader(server, channel) as other:
        assert run_beside(lambda: publish_all(server, channel), other) == list(range(TOTAL))
    # 13 MB of data in 26 MB of frames were published, for each of three readers.
    assert server.rss - before < BUFFERS
    for wire in stalled:
        numbers = Numbers(wire)
        read = numbers.read(TOTAL - 1)
        assert read == sorted(set(read))
        assert read[0] == 0
        assert len(read) < TOTAL
        assert numbers.gaps >= 1
        wire.close()


@pytest.mark.parametrize("deflate", ["", "permessage-deflate"])
def test_readers_that_stall_again_and_again_lose_nothing(
    start_server: Callable[..., Server], channel: str, deflate: str
) -> None:
    server = start_server(
        namespaces=[{"history_messages": TOTAL}], limits={"tail_max_bytes": 200_000, "heartbeat_s": PATIENT_S}
    )
    with WebSocket(server, receive_buffer=4096, deflate=deflate) as wire:
        wire.ask(type="subscribe", channel=channel)
        published = read = 0
        for turn in range(12):
            for _ in range(20):
                batch = [{"channel": channel, "data": [n, DATA * 8]} for n in range(published, published + 100)]
                server.publish_all(batch)
                published += 100
            while read < published - (0 if turn == 11 else 500):
                push = wire.read()
                assert push["data"][0] == read
                read += 1
