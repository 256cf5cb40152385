"""What a file of presence has after its process was killed in the middle of writing."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from tellwire.presence.base import Member
from tellwire.presence.sqlite import SqlitePresence
from tellwire.testing.harness import Clock, on_loop
from tellwire.testing.members import LEASE_S, opened, sweep_all

CROWD = """
import asyncio, os, sys
from tellwire.presence.base import Member
from tellwire.presence.sqlite import SqlitePresence

async def main(path, node, lease_s):
    presence = SqlitePresence(path, busy_timeout_s=0)
    await presence.open(node, float(lease_s))
    print("open", flush=True)
    async def visitor(number):
        for count in range(1_000_000):
            client = f"{node}-{number}-{count}"
            await presence.enter(Member(f"room-{number % 5}", client, None, None, None, node, count))
            # One write each: an acknowledgement that is in the pipe was given, whatever becomes of the process.
            os.write(1, f"+ {client}\\n".encode())
            if count % 3 == 0:
                os.write(1, f"? {client}\\n".encode())
                left = await presence.leave(f"room-{number % 5}", client)
                os.write(1, f"- {left.client}\\n".encode())
    await asyncio.gather(*map(visitor, range(32)))

asyncio.run(main(*sys.argv[1:]))
"""


def test_sqlite_presence_acknowledged_before_kill_9_is_swept_once(tmp_path: Path) -> None:
    path = tmp_path / "p"
    seed = random.Random(9)
    told: dict[str, set[str]] = {"+": set(), "?": set(), "-": set()}
    for life in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", CROWD, path, f"n{life}", str(LEASE_S)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            for _ in range(seed.randrange(1, 3000)):
                word, client = process.stdout.readline().split()
                told[word].add(client)
            process.kill()
            for line in process.stdout:  # what was on its way when it died
                if line.endswith("\n"):
                    word, client = line.split()
                    told[word].add(client)
            assert process.wait() == -signal.SIGKILL

    times = Counter(member.client for member in swept_of(path))
    assert set(times.values()) == {1}
    assert told["+"] - told["?"] <= set(times), "who was told that it entered is there"
    assert told["-"].isdisjoint(times), "who was told that it left is not"
    assert {client.partition("-")[0] for client in times} == {"n0", "n1", "n2", "n3"}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def swept_of(path: Path) -> list[Member]:
    """Return what two processes that come after get, long after every lease."""
    swept: list[Member] = []
    on_loop(_sweep)(path, swept)
    return swept


async def _sweep(path: Path, swept: list[Member]) -> None:
    clock = Clock()
    clock.now_ms = 1 << 42  # later than any machine's clock
    for node in ("next", "after it"):
        async with opened(SqlitePresence(path, clock=clock), node) as presence:
            clock.advance(LEASE_S)
            swept += await sweep_all(presence, 100)
            for room in range(5):
                assert await presence.members(f"room-{room}", 10) == []
