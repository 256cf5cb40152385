"""Rows about logs that several nodes share: what an acknowledgement takes, and fan-out from one node to another."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from children import LOAD_CORE, Child, free_port, pinned
from contenders import tellwire
from generator import Generator
from measuring import Bench, Entry, deliveries_per_s, fill, note_load, spread, start
from table import CPU, P99, Ratio, Row

P50_US, P99_US = "p50, µs", "p99, µs"
OVERHEAD = 1.5
"""How much longer a publish may take than a few lines without Tellwire (p50)."""
SUBSCRIBERS = 1000
RATE = 50


@contextmanager
def engine(bench: Bench, name: str) -> Iterator[str | None]:
    """Start a Redis or a NATS of its own; give the URL, or None where it is not installed."""
    program = shutil.which(f"{name}-server") or shutil.which(f"{name}-server", path="/usr/sbin")
    if program is None:
        bench.say(f"  {name}-server is not installed")
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory(dir=bench.places.cache) as directory:
        command = {
            "redis": [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory],
            "nats": [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", directory],
        }[name]
        with Child(name, command, port, bench.places.cache / f"{name}.log"):
            yield f"{name}://127.0.0.1:{port}"


def acknowledge(bench: Bench) -> Row:
    row = Row("acknowledge", "A publish until it is acknowledged, one after the other, of each broker")
    for name in ("memory", "sqlite", "redis", "nats"):
        bench.say(f"  {name}")
        if name in ("memory", "sqlite"):
            file = bench.places.cache / "acknowledge.db"
            for path in bench.places.cache.glob("acknowledge.db*"):
                path.unlink()
            _acknowledge(bench, row, name, "memory://" if name == "memory" else f"sqlite:///{file}")
            continue
        with engine(bench, name) as url:
            if url is not None:
                _acknowledge(bench, row, name, url)
    return row


def _acknowledge(bench: Bench, row: Row, name: str, url: str) -> None:
    script = str(Path(__file__).parent / "acknowledge.py")
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(bench.effort.runs):
        done = subprocess.run(
            [str(bench.places.python), script, url, "100", "3"],
            check=True, capture_output=True, text=True, timeout=120, preexec_fn=lambda: pinned(LOAD_CORE),
        )  # fmt: skip
        answer = json.loads(done.stdout)
        nothing_us = answer.pop("nothing")["p50_us"]
        for side, figures in answer.items():
            figures |= {"per_s": 1e6 / figures["p50_us"], "own_cpu_share": nothing_us / figures["p50_us"]}
            runs.setdefault(side, []).append(figures)
    for side, found in runs.items():
        settings = "default settings" if side == "tellwire" else "a few lines without Tellwire, in turns with it"
        entry = Entry(f"{name}, {side}", settings)
        entry.figures = {
            P50_US: spread(run["p50_us"] for run in found),
            P99_US: spread(run["p99_us"] for run in found),
        }
        entry.raw += found
        # It is one after the other: what it takes to ask for nothing is what the asking itself takes of each.
        note_load(entry, found, lambda run: run["per_s"])
        row.entries.append(entry)
    if "bare" in runs:
        ratios = [ours["p50_us"] / bare["p50_us"] for ours, bare in zip(runs["tellwire"], runs["bare"], strict=True)]
        row.ratios.append(
            Ratio(f"p50 over {name}: Tellwire / bare", spread(ratios)["median"], OVERHEAD, at_least=False)
        )


def nodes(bench: Bench) -> Row:
    row = Row("nodes", f"Fan-out from one node to 1,000 WebSocket subscribers of another, {RATE} messages/s")
    for name in ("redis", "nats"):
        with engine(bench, name) as url:
            if url is None:
                continue
            bench.say(f"  {name}")
            contender = tellwire(url, f"Tellwire, {name}")
            entry = Entry(contender.name, contender.settings)
            row.entries.append(entry)
            with start(bench.places, contender) as near, start(bench.places, contender) as far:
                settings = {**contender.talks["fan"], "count": SUBSCRIBERS, "pub_port": near.port}
                with Generator(bench.places.cache / "load", far, settings) as load:
                    load.fan(RATE, 0.5)
                    runs = [load.fan(RATE, bench.effort.paced_s, warm=0) for _ in range(bench.effort.runs)]
            fill(
                entry,
                runs,
                {
                    P99: lambda run: run["p99_us"] / 1000,
                    CPU: lambda run: run["server_cpu_s"] * 1e6 / max(run["delivered"], 1),
                },
            )
            note_load(entry, runs, deliveries_per_s)
            if any(run["delivered"] < run["expected"] for run in runs):
                entry.remarks.append("some messages had not arrived in time")
    return row
