"""Data channels: how many readers one process carries, and what loss on the way does to each wire.

The peers are aiortc's and cost as much as the server does, so that the machine is shared by all of them here.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from children import ChildFailedError
from generator import BOTTLENECK, BOTTLENECK_SHARE
from measuring import Bench, Entry, deliveries_per_s, note_load, spread
from table import CPU, P99, Ratio, Row

READERS = 1000
RATE = 10.0
LOSS_RATE = 50.0
ARRIVED = "arrived, %"
P50 = "p50 latency, ms"
P99_OVER_P50 = "p99 / p50"
STEADY = 1.1
"""How far the 99th percentile may be above the median, where nothing that was lost is waited for."""

_NAMES = {
    "unreliable": "data channel, unreliable",
    "reliable": "data channel, reliable",
    "websocket": "WebSocket",
}


def _run(bench: Bench, *arguments: object) -> dict[str, Any]:
    """Let the peers run, and return what they found; raises ChildFailedError."""
    command = [str(bench.places.python), str(Path(__file__).parent / "channels.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise ChildFailedError(f"channels.py ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def channels(bench: Bench) -> Row:
    """Measure what one process delivers to a thousand peers."""
    row = Row("channels", f"{READERS:,} readers over data channels, {RATE:g} messages/s of 100 B, one server process")
    entry = Entry("Tellwire, data channels", "defaults but for the rate of offers; two processes of aiortc's peers")
    row.entries.append(entry)
    runs = []
    for number in range(bench.effort.runs):
        bench.say(f"  run {number + 1}")
        seconds = bench.effort.paced_s
        runs.append(_run(bench, "fan-out", "--clients", READERS, "--rate", RATE, "--seconds", seconds))
    entry.figures = {
        ARRIVED: spread(100 * run["delivered"] / run["expected"] for run in runs),
        P50: spread(run["p50_ms"] for run in runs),
        P99: spread(run["p99_ms"] for run in runs),
        CPU: spread(run["cpu_us_each"] for run in runs),
    }
    entry.raw = runs
    note_load(entry, runs, deliveries_per_s)
    full = spread(run["own_cpu_share"] + run["server_cpu_share"] for run in runs)["median"]
    peers = spread(run["own_cpu_share"] for run in runs)["median"] / full
    entry.remarks.append(
        f"the peers shared all cores with the server: together they had {full:.0%} of them, the peers {peers:.0%} of it"
    )
    if full > BOTTLENECK_SHARE and BOTTLENECK not in entry.remarks:
        entry.remarks.append(BOTTLENECK)
    return row


def loss(bench: Bench) -> Row:
    """Measure one message's way over a line that loses some."""
    row = Row("loss", f"Latency at 40 ms there and back with 2 % of loss, {LOSS_RATE:g} messages/s")
    runs = []
    for number in range(bench.effort.runs):
        bench.say(f"  run {number + 1}")
        runs.append(_run(bench, "loss", "--rate", LOSS_RATE, "--seconds", 5 * bench.effort.paced_s))
    for name, title in _NAMES.items():
        entry = Entry(f"Tellwire, {title}", "a relay for datagrams and one for TCP, where a loss is a wait of 240 ms")
        entry.figures = {
            P50: spread(run[name]["p50_ms"] for run in runs),
            P99: spread(run[name]["p99_ms"] for run in runs),
            P99_OVER_P50: spread(run[name]["p99_ms"] / run[name]["p50_ms"] for run in runs),
        }
        entry.raw = [run[name] for run in runs]
        note_load(entry, entry.raw, lambda _: LOSS_RATE)
        row.entries.append(entry)
    row.ratios.append(Ratio("unreliable: p99 / p50", row.entries[0].median(P99_OVER_P50), STEADY, at_least=False))
    return row
