"""A line that does everything a line can do, while the client goes from one transport to another.

What is promised without TLS: a damage that breaks a frame, a text or a JSON value is a connection that was lost. One
that leaves them valid cannot be seen, and the proxy makes none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import permutations

import pytest

from tests.clients.js.driver import Driver
from tests.clients.js.proxy import Proxy
from tests.clients.js.test_switching import TRANSPORTS, Traffic, connect_over, leave
from tests.serving import Server

OPTIONS = {
    "pollMs": 50,
    "longPollMs": 1000,
    "tryTimeoutMs": 2000,
    "requestTimeoutMs": 2000,
    "upgradeAfterMs": 300,
    "heartbeatMs": 1000,
    "outboxMaxMessages": 20_000,
    "isImpatient": True,
}

Connect = Callable[..., Driver]


@pytest.fixture(scope="module")
def beating() -> Iterator[Server]:
    """A server with frequent signs of life, so that a dead line is soon noticed."""
    server = Server(
        limits={"heartbeat_s": 1, "sse_retry_ms": 50, "drain_s": 0.1},
        namespaces=[{"name": "default", "history_messages": 20_000}],
    )
    yield server
    server.close()


@pytest.fixture
def proxy(beating: Server) -> Iterator[Proxy]:
    with Proxy(beating.port) as proxy:
        yield proxy


def torn(proxy: Proxy, traffic: Traffic, count: int) -> None:
    proxy.is_torn = True
    traffic.flow(count)
    traffic.check()
    proxy.is_torn = False


def slow(proxy: Proxy, traffic: Traffic, count: int) -> None:
    # Far slower than what is published: some of it has to come all the same.
    proxy.rate = 4096
    traffic.flow(count)
    traffic.client.wait_messages(traffic.theirs, traffic.count - count + 20)
    proxy.rate = None
    traffic.check()


def late(proxy: Proxy, traffic: Traffic, count: int) -> None:
    proxy.delay_s = 0.1
    traffic.flow(count)
    traffic.check()
    proxy.delay_s = 0


def damaged(proxy: Proxy, traffic: Traffic, count: int) -> None:
    proxy.damages = 3
    traffic.flow(count - 20)
    for _ in range(20):
        traffic.flow(1)
        traffic.check()
    proxy.damages = 0


def silent(proxy: Proxy, traffic: Traffic, count: int) -> None:
    traffic.client.do("client")  # everything that was told before this has been heard
    traffic.client.events.clear()
    proxy.is_silent = True
    traffic.flow(count // 2)
    traffic.client.wait_for("state", lambda event: event["state"] == "disconnected")
    proxy.is_silent = False
    traffic.flow(count - count // 2)
    traffic.check()


def cut(proxy: Proxy, traffic: Traffic, count: int) -> None:
    traffic.flow(count // 2)
    proxy.cut()
    traffic.flow(count - count // 2)
    traffic.check()


FAULTS = (torn, slow, late, damaged, silent, cut)

RING = list(zip(TRANSPORTS, (*TRANSPORTS[1:], TRANSPORTS[0]), strict=True))
"""Each transport once as the one that is left, and once as the one that is come to."""


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        *((*pair, 125) for pair in RING),
        *(pytest.param(*pair, 840, marks=pytest.mark.soak) for pair in permutations(TRANSPORTS, 2)),
    ],
)
def test_nothing_is_lost_or_doubled_on_a_bad_line(
    beating: Server, proxy: Proxy, channel: str, connect: Connect, before: str, after: str, count: int
) -> None:
    client = connect_over(before, after, proxy, connect, **OPTIONS)
    traffic = Traffic(beating, client, channel)
    traffic.subscribe(before)
    faults = list(FAULTS)
    random.Random(f"{before} {after}").shuffle(faults)
    for fault in faults[:3]:
        fault(proxy, traffic, count)
    leave(before, after, proxy)
    for fault in faults[3:]:
        fault(proxy, traffic, count)
    client.do("publish", channel=traffic.mine, data=traffic.count)
    beating.publish(traffic.theirs, traffic.count)
    traffic.count += 1
    traffic.check()
    assert client.gaps == []
