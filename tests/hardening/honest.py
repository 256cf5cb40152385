"""Honest clients beside an abuse, and how long they wait for their messages before it and while it lasts."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice, repeat

from tests.readers import EventReader
from tests.serving import Server
from tests.wires import WebSocket

RATIO = 20
"""How many times as long a message may take while the abuse lasts, by the medians."""

FLOOR_S = 0.010
"""What is faster counts as this, so that the noise of a busy machine decides nothing."""

ROUNDS = 30


class HonestPair:
    """Somebody who publishes over a WebSocket, and readers over a WebSocket and over Server-Sent Events."""

    def __init__(self, server: Server, channel: str, *, token: str = "") -> None:
        self._channel = channel
        self._publisher = WebSocket(server, token=token)
        self._socket = WebSocket(server, token=token)
        assert self._socket.ask(type="subscribe", channel=channel)["type"] == "subscribed"
        self._events = EventReader(server, channel, token=token or None)
        self._number = 0

    def close(self) -> None:
        """Go away."""
        for wire in (self._publisher, self._socket, self._events):
            wire.close()

    def round_trip(self) -> float:
        """Publish a message; return after how many seconds both readers had it, in its order."""
        self._number += 1
        began = time.perf_counter()
        published = self._publisher.ask(type="publish", channel=self._channel, data=self._number)
        assert published["type"] == "published", published
        assert self._socket.read()["data"] == self._number
        assert self._events.read()["data"] == self._number
        return time.perf_counter() - began

    def measure(self, steps: Iterable[object]) -> float:
        """Return the median of round trips, one after each step of what else goes on."""
        return statistics.median([self.round_trip() for _ in steps])


@contextmanager
def honest_pair(server: Server, channel: str, *, token: str = "") -> Iterator[HonestPair]:
    """Let honest clients in, measured without the abuse."""
    pair = HonestPair(server, channel, token=token)
    try:
        yield pair
    finally:
        pair.close()


def check_unmoved(pair: HonestPair, abuse: Iterable[object], *, rounds: int = ROUNDS) -> None:
    """Check that honest clients wait hardly longer while an abuse goes on, a step of it before each message.

    The steps run between the measured times and not during them, as they would take the processor from the clients and
    not from the server.
    """
    before = pair.measure(repeat(None, rounds))
    gc.collect()
    during = pair.measure(islice(abuse, rounds))
    assert during <= RATIO * max(before, FLOOR_S), (
        f"{during * 1000:.1f} ms for a message, {before * 1000:.1f} ms before"
    )
