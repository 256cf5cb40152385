"""A stream that is asked for behind an answer which the socket has not taken yet."""

from __future__ import annotations

from collections.abc import Callable

from tests.readers import target
from tests.serving import Server
from tests.wires import Http

COUNT = 200
SIZE = 60_000
"""Together more than the buffers of a socket hold."""


def test_stream_begins_behind_what_was_not_sent_yet(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"request_max_bytes": 64_000_000})
    for _ in range(COUNT // 20):
        server.publish_all([{"channel": channel, "data": "x" * SIZE} for _ in range(20)])
    with Http(server) as wire:
        wire.send_request("GET", target("/v1/messages", (channel,), {"since": "earliest"}))
        wire.send_request("GET", target("/v1/stream", (channel,), {"since": "earliest"}))
        page = wire.read_response().json()
        assert [len(message["data"]) for message in page["messages"]] == [SIZE] * COUNT
        status, headers = wire.read_head()
        assert (status, headers["content-type"]) == (200, "application/x-ndjson")
        lines = b""
        while lines.count(b"\n") < COUNT + 1:
            lines += wire.read_piece()
        assert lines.count(b'"type":"message"') == COUNT
