"""Clients that come, talk and die, for a long time: nothing grows, and in the end nothing is left.

`make soak` runs it for TELLWIRE_SOAK_S seconds (600 where it is not set) with TELLWIRE_SOAK_CLIENTS clients (2,000);
the other tests hold a short one, for what is left behind at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from tests.guarded import SECRET, token
from tests.soak.swarm import Swarm
from tests.soak.watched import WatchedServer
from tests.wires import Http

SETTINGS: dict[str, Any] = {
    "limits": {
        "drain_s": 0.1,
        "heartbeat_s": 5.0,
        "head_s": 5.0,
        "connect_s": 5.0,
        "presence_lease_s": 3.0,
        "presence_grace_s": 0.5,
        "dedupe_window_s": 10.0,
        "tail_max_bytes": 4_000_000,
    },
    "auth": {"token_key": SECRET},
    "namespaces": [
        {"name": "default", "history_messages": 20, "history_age_s": 10.0, "history_bytes": 4_000_000},
        {"name": "own", "history_messages": 5, "history_age_s": 5.0, "history_bytes": 4_000_000},
        {"name": "$presence", "history_messages": 20, "history_age_s": 10.0, "history_bytes": 4_000_000},
        {"name": "$client", "history_messages": 20, "history_age_s": 10.0, "history_bytes": 4_000_000},
    ],
}
"""Everything that is kept for a while is kept for seconds, so that what still grows after the warm-up is a leak."""

USERS = 200

GROWTH_BYTES = 24_000_000
GROWTH_SHARE = 0.10
"""How much more there may be in the last quarter than in the second, of memory and of anything counted (medians)."""

NOISE = 150
"""Differences below it are chance, in what is counted."""

COUNTED = ("subscribers", "tails", "holds", "holders", "members", "connections", "tasks", "timers", "objects", "files")
"""What must not grow while as many clients are there."""


@contextmanager
def many_files() -> Iterator[None]:
    """Allow as many descriptors as may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def soak(clients: int, seconds: float, every_s: float) -> tuple[list[dict[str, Any]], Swarm]:
    """Run it; return what was seen before, `every_s` seconds during, and after."""
    tokens = {f"user-{number}": token(f"user-{number}") for number in range(USERS)}
    server = WatchedServer(**SETTINGS)
    try:
        with many_files(), Http(server) as wire:
            server.look(wire)  # loads what it needs itself
            seen = [server.look(wire)]

            async def run() -> Swarm:
                swarm = Swarm(server.port, tokens, seed=clients)
                running = asyncio.create_task(swarm.run(clients, seconds))
                while not running.done():
                    await asyncio.wait([running], timeout=every_s)
                    if not running.done():
                        seen.append(await asyncio.to_thread(server.look, wire))
                await running
                return swarm

            swarm = uvloop.run(run())
            seen.append(server.look_until_empty(wire, seen[0]))
        assert "Traceback" not in server.log, server.log[-3000:]
        return seen, swarm
    finally:
        server.close()


def check_ends_empty(seen: list[dict[str, Any]], swarm: Swarm) -> None:
    """Check that nothing failed, that there was something, and what may stay."""
    assert not swarm.failures, swarm.failures[:3]
    before, after = seen[0], seen[-1]
    assert all(figures["internal"] == 0 for figures in seen)
    assert after["published"] > 0
    assert after["delivered"] > after["published"]
    # A bucket for each address that asked without a token, and for each user.
    assert after["buckets"] <= 2 * (USERS + 201)
    assert after["objects"] - before["objects"] < 40_000


def test_nothing_is_left_of_a_hundred_clients() -> None:
    seen, swarm = soak(100, 12.0, 3.0)
    check_ends_empty(seen, swarm)
    assert swarm.lives > 100


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_nothing_grows_while_thousands_come_and_go() -> None:
    seconds = float(os.environ.get("TELLWIRE_SOAK_S", "600"))
    clients = int(os.environ.get("TELLWIRE_SOAK_CLIENTS", "2000"))
    seen, swarm = soak(clients, seconds, max(1.0, seconds / 60))
    for figures in seen:
        print(json.dumps(figures))
    check_ends_empty(seen, swarm)
    during = seen[1:-1]
    quarter = len(during) // 4
    assert quarter >= 3, "this is too short to say whether anything grows"
    second, last = during[quarter : 2 * quarter], during[-quarter:]

    def grew(name: str) -> tuple[float, float]:
        early = statistics.median(figures[name] for figures in second)
        return early, statistics.median(figures[name] for figures in last) - early

    early, growth = grew("rss")
    assert growth < GROWTH_BYTES, f"memory grew from {early} by {growth} bytes"
    for name in COUNTED:
        early, growth = grew(name)
        assert growth <= early * GROWTH_SHARE + NOISE, f"{name} grew from {early} by {growth}"
