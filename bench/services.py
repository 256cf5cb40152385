"""gRPC beside a service of grpcio's own that does nothing else: what a core of the server gives.

The load generator is grpcio too, and costs more than the server does; so what counts is the server's CPU.
"""

from __future__ import annotations

import json
import subprocess

from children import LOAD_CORE, SERVER_CORE, Child, ChildFailedError, free_port, pinned
from clocks import Reading, read, shares
from contenders import PEERS, Contender, Places
from measuring import Bench, Entry, deliveries_per_s, note_load, spread
from table import ACKS, CPU, DELIVERIES, P99, Row, each

READERS = 200
RATE = 25.0
WINDOW = 256

CORE_DELIVERIES = "deliveries per second of the server's CPU"
CORE_ACKS = "acknowledged per second of the server's CPU"


def _tellwire(places: Places, port: int) -> list[str]:
    flags = f"--port {free_port()} --grpc-port {port} --log-level warning --publishes-per-s 1000000"
    return [str(places.python), "-m", "tellwire", "serve", *flags.split()]


def _bare(places: Places, port: int) -> list[str]:
    return [str(places.python), str(PEERS / "bare_grpc.py"), str(port)]


OVER_GRPC = Contender("Tellwire, gRPC", "defaults; memory broker", _tellwire, {})
BARE_GRPC = Contender(
    "bare grpcio", "asyncio server on uvloop; a queue for each reader, messages made once as bytes", _bare, {}
)


def _run(bench: Bench, contender: Contender, arguments: list[str]) -> dict[str, float]:
    """Let the load generator ask of a fresh server; return what came of it, after the warming up."""
    places = bench.places
    port = free_port()
    log = places.cache / "logs" / f"{contender.name.replace(' ', '-')}.log"
    command = [str(places.python), str(PEERS / "grpc_load.py"), arguments[0], str(port), *arguments[1:]]
    with Child(contender.name, contender.command(places, port), port, log) as server:
        load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: pinned(LOAD_CORE))
        assert load.stdout is not None
        try:
            marks: list[tuple[dict[str, float], Reading, Reading]] = []
            while len(marks) < 5:
                line = load.stdout.readline()
                if not line:
                    raise ChildFailedError(f"the load generator ended: {server.log_tail()}")
                marks.append((json.loads(line), read(server.pids, SERVER_CORE), read([load.pid], LOAD_CORE)))
        finally:
            load.kill()
            load.wait()
            load.stdout.close()
    _, _, (begin, server_before, own_before), (end, server_after, own_after), (last, _, _) = marks
    return {
        **end,
        "wall_s": end["at"] - begin["at"],
        "cpu_s": max(server_after.cpu_s - server_before.cpu_s, 0.001),
        "p99_us": last["p99_us"],
        **shares("server", server_before, server_after),
        **shares("own", own_before, own_after),
    }


def _measure(bench: Bench, row: Row, arguments: list[str]) -> dict[str, tuple[Entry, list[dict[str, float]]]]:
    present = each(bench, row, [OVER_GRPC, BARE_GRPC])
    found: dict[str, tuple[Entry, list[dict[str, float]]]] = {each.name: (entry, []) for each, entry in present}
    for number in range(bench.effort.runs):
        bench.say(f"  run {number + 1}: {', '.join(found)}")
        for contender, entry in present:
            figures = _run(bench, contender, arguments)
            if figures["delivered"] < figures["expected"]:
                entry.remarks.append(f"{figures['expected'] - figures['delivered']:,.0f} were missing")
            found[contender.name][1].append(figures)
    return found


def grpc_fanout(bench: Bench) -> Row:
    """Measure 1 → 200 streams, paced."""
    row = Row("grpc_fanout", f"gRPC, 1 → {READERS} streams of 126 B, paced at {RATE:g} messages/s")
    for entry, runs in _measure(bench, row, ["fan", str(READERS), str(RATE), str(bench.effort.paced_s)]).values():
        entry.figures[CORE_DELIVERIES] = spread(run["delivered"] / run["cpu_s"] for run in runs)
        entry.figures[CPU] = spread(run["cpu_s"] * 1e6 / max(run["delivered"], 1) for run in runs)
        entry.figures[P99] = spread(run["p99_us"] / 1000 for run in runs)
        entry.figures[DELIVERIES] = spread(map(deliveries_per_s, runs))
        entry.raw += runs
        note_load(entry, runs, deliveries_per_s)
    row.compare(CORE_DELIVERIES, OVER_GRPC, BARE_GRPC, 0.7, at_least=True)
    return row


def grpc_acks(bench: Bench) -> Row:
    """Measure acknowledged publishes over one bidirectional stream."""
    row = Row("grpc_acks", f"gRPC, publish with acknowledgement over one stream, {WINDOW} in flight")
    for entry, runs in _measure(bench, row, ["acks", str(WINDOW), str(bench.effort.paced_s)]).values():
        entry.figures[ACKS] = spread(map(deliveries_per_s, runs))
        entry.figures[CORE_ACKS] = spread(run["delivered"] / run["cpu_s"] for run in runs)
        entry.raw += runs
        note_load(entry, runs, deliveries_per_s)
    row.compare(ACKS, OVER_GRPC, BARE_GRPC, 0.7, at_least=True)
    row.compare(CORE_ACKS, OVER_GRPC, BARE_GRPC, 0.7, at_least=True)
    return row
