"""Readers that ask for all the history there is, and take none of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.readers import LineReader, target
from tests.serving import Server
from tests.wires import Http, WebSocket

MEGABYTE = 1_000_000
SIZE = 60_000
COUNT = 500


@pytest.fixture
def full(start_server: Callable[..., Server], channel: str) -> Server:
    """A server with 30 MB of history in one channel."""
    server = start_server(namespaces=[{"history_messages": 10_000, "history_bytes": 100 * MEGABYTE}])
    for start in range(0, COUNT, 20):
        server.publish_all([{"channel": channel, "data": [n, "x" * SIZE]} for n in range(start, start + 20)])
    return server


@pytest.mark.parametrize("parameters", [{"last": COUNT}, {"since": "earliest"}], ids=str)
def test_stalled_readers_of_a_long_history_cost_no_copy_of_it(
    full: Server, channel: str, parameters: dict[str, str | int]
) -> None:
    wires: list[Http] = []
    with LineReader(full, channel):
        before = full.rss
        for _ in range(5):
            socket = WebSocket(full, receive_buffer=4096)
            socket.say(type="subscribe", channel=channel, **parameters)
            lines = Http(full, receive_buffer=4096)
            lines.send_request("GET", target("/v1/stream", (channel,), parameters))
            wires += [socket, lines]
        for wire in wires:
            wire.read_until(b'"data":[0')
        grown = full.rss - before
    # Every one of the ten would have 30 MB waiting for it.
    assert grown < 40 * MEGABYTE
    for wire in wires[:2]:
        for number in range(1, COUNT):
            wire.read_until(b'"data":[%d,' % number)
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("wait", [0, 1])
def test_poll_for_a_long_history_is_paged_by_bytes(full: Server, channel: str, wait: int) -> None:
    with Http(full) as http:
        parameters: dict[str, str | int] = {"last": COUNT}
        numbers: list[int] = []
        while len(numbers) < COUNT:
            answer = http.get(target("/v1/messages", (channel,), {**parameters, "limit": 10_000, "wait": wait}))
            assert len(answer.body) < 3 * MEGABYTE
            page = answer.json()
            numbers += [message["data"][0] for message in page["messages"]]
            parameters = {"since": page["cursor"]}
        assert numbers == list(range(COUNT))


def test_history_backwards_is_paged_by_bytes(full: Server, channel: str) -> None:
    with Http(full) as http:
        before: str | int = "now"
        numbers: list[int] = []
        while len(numbers) < COUNT:
            answer = http.get(target("/v1/messages", (channel,), {"before": before, "limit": 10_000}))
            assert len(answer.body) < 3 * MEGABYTE
            messages = answer.json()["messages"]
            numbers = [message["data"][0] for message in messages] + numbers
            before = messages[0]["seq"]
        assert numbers == list(range(COUNT))
