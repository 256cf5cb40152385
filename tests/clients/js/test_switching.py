"""From one transport to another, while messages come: each of them once, and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import pytest

from tests.clients.js.driver import Driver
from tests.clients.js.proxy import Proxy
from tests.serving import Server

TRANSPORTS = ("websocket", "sse", "longpoll", "poll")

LINES = {"websocket": "/v1/ws", "sse": "/v1/events", "longpoll": "wait="}
"""What is in the first line of requests of each transport, and not in those of the transports after it."""

OPTIONS = {"pollMs": 50, "longPollMs": 1000, "tryTimeoutMs": 2000, "upgradeAfterMs": 300, "outboxMaxMessages": 20_000}

Connect = Callable[..., Driver]


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def is_better(before: str, after: str) -> bool:
    """Tell whether a client that has the one transport goes on looking for the other."""
    return TRANSPORTS.index(after) < TRANSPORTS.index(before)


def connect_over(before: str, after: str, proxy: Proxy, connect: Connect, **options: Any) -> Driver:
    """Make a client of two transports, which has the first one for now."""
    if is_better(before, after):
        proxy.forbidden = {LINES[after]}
    transports = [name for name in TRANSPORTS if name in (before, after)]
    return connect(f"http://127.0.0.1:{proxy.port}", transports=transports, **options)


def leave(before: str, after: str, proxy: Proxy) -> None:
    """Let a client go from one transport to another."""
    if is_better(before, after):
        proxy.forbidden = set()
    else:
        proxy.forbidden = {LINES[before]}
        proxy.cut()


class Traffic:
    """Messages of two channels: one that others publish to, and one that the client publishes to itself."""

    def __init__(self, server: Server, client: Driver, channel: str) -> None:
        self.server = server
        self.client = client
        self.theirs, self.mine = channel, f"{channel}-mine"
        self.count = 0
        self._waiting: list[int] = []

    def subscribe(self, transport: str) -> None:
        """Begin to read both, and wait until that is over a transport."""
        for name in (self.theirs, self.mine):
            self.client.do("subscribe", channel=name, since="earliest")
        self.client.wait_connected(transport)

    def flow(self, count: int) -> None:
        """Publish so many on each side."""
        numbers = list(range(self.count, self.count + count))
        self.count += count
        self._waiting.append(self.client.begin("publish_all", channel=self.mine, list=numbers))
        self.server.publish_all([{"channel": self.theirs, "data": number} for number in numbers])

    def check(self) -> None:
        """Wait for all of them; each has to have come once and in order."""
        for each in self._waiting:
            self.client.end(each)
        self._waiting.clear()
        for channel in (self.theirs, self.mine):
            assert self.client.wait_messages(channel, self.count) == list(range(self.count))


@pytest.mark.parametrize("count", [100, pytest.param(700, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("before", "after"), list(permutations(TRANSPORTS, 2)))
def test_nothing_is_lost_or_doubled_between_two_transports(
    server: Server, proxy: Proxy, channel: str, connect: Connect, before: str, after: str, count: int
) -> None:
    client = connect_over(before, after, proxy, connect, **OPTIONS)
    traffic = Traffic(server, client, channel)
    traffic.subscribe(before)
    for _ in range(5):
        traffic.flow(count)
    leave(before, after, proxy)
    for _ in range(5):
        traffic.flow(count)
    client.wait_connected(after)
    for _ in range(5):
        traffic.flow(count)
    traffic.check()
    assert client.gaps == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_connections_that_are_cut_again_and_again(
    server: Server, proxy: Proxy, channel: str, connect: Connect, transport: str
) -> None:
    client = connect(f"http://127.0.0.1:{proxy.port}", transports=[transport], **OPTIONS)
    traffic = Traffic(server, client, channel)
    for name in (traffic.theirs, traffic.mine):
        client.do("subscribe", channel=name, since="earliest")
    for _ in range(3):
        traffic.flow(100)
        proxy.cut()
        traffic.flow(100)
        traffic.check()


def test_a_proxy_without_websockets_that_buffers_streams(
    server: Server, proxy: Proxy, channel: str, connect: Connect
) -> None:
    proxy.forbidden = {"/v1/ws"}
    proxy.buffered = {"/v1/events"}
    client = connect(f"http://127.0.0.1:{proxy.port}", **OPTIONS)
    client.do("subscribe", channel=channel)
    client.wait_connected("longpoll")
    server.publish(channel, 1)
    assert client.wait_messages(channel, 1) == [1]


def test_a_line_that_swallows_everything(start_server: Callable[..., Server], channel: str, connect: Connect) -> None:
    # The server says how often it gives a sign of life only on some transports; for the others the client has to know.
    server = start_server(limits={"heartbeat_s": 0.4})
    for transport in ("websocket", "sse"):
        with Proxy(server.port) as proxy:
            options = {**OPTIONS, "heartbeatMs": 400}
            client = connect(f"http://127.0.0.1:{proxy.port}", transports=[transport], **options)
            traffic = Traffic(server, client, f"{channel}-{transport}")
            for name in (traffic.theirs, traffic.mine):
                client.do("subscribe", channel=name)
            client.wait_connected(transport)
            client.do("client")  # everything that was told before this has been heard
            client.events.clear()
            proxy.is_silent = True
            traffic.flow(50)
            client.wait_for("state", lambda event: event["state"] == "disconnected")
            proxy.is_silent = False
            traffic.flow(50)
            traffic.check()
