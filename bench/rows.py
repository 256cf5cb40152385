"""The rows of the table, one function each: what is measured, of whom, and which ratio is aimed for."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from bundle import bundle_bytes
from children import Child
from contenders import (
    BARE,
    BARE_ACKS,
    NCHAN,
    NCHAN_SSE,
    SEND_LOOP,
    SOCKETIO,
    STARLETTE,
    TOKENS,
    UWEBSOCKETS,
    Contender,
    recovering,
    tellwire,
    with_tokens,
)
from datagrams import channels, loss
from field import CENTRIFUGO, SOCKETIO_NODE, SOCKETS, STREAMS
from generator import Figures, Generator
from measuring import Bed, Bench, Entry, deliveries_per_s, fill, highest_rates, note_load, spread, start
from npm import PACKAGES, npm_missing
from services import grpc_acks, grpc_fanout
from shared import acknowledge, nodes
from table import (
    ACKS,
    BUNDLE_MAX_KIB,
    CLIENT_CPU,
    CLIENTS,
    CPU,
    DELIVERIES,
    GZIPPED,
    MESSAGES,
    MINIFIED,
    P99,
    PSS,
    PUBLISH_CPU,
    RSS,
    Ratio,
    Row,
    apart,
    each,
)  # fmt: skip

SUBSCRIBERS = 1000
ROOMS = 100
ROOM_MEMBERS = 10
FANOUT_HOLD_S = 10
"""So long the highest rate of the fan-out is held, in a quick run too: it is the figure that others are measured by."""
PACED_RATE = 50
GROWTH_DELIVERIES = 50_000
"""Deliveries a second while the cost of each is measured, whatever the number of subscribers."""
WINDOW = 256
TURNS = 4
"""Turns of a comparison for each run of the effort, each of `TURN_S` seconds."""
TURN_S = 1.0
RECOVERED = 10
IDLE_SHARE = 1.15
"""How much a publish may cost with everything there and nothing used, against the bare core."""

TELLWIRE = tellwire()
OVER_SSE = tellwire(name="Tellwire, SSE")
SQLITE = tellwire("sqlite:///{cache}/bench.db", "Tellwire, SQLite")

OPEN = tellwire(name="Tellwire, no token")


def _search(bench: Bench, contender: Contender, entry: Entry, talk: str, first: float, **settings: object) -> None:
    receivers = SUBSCRIBERS // int(str(settings.get("rooms", 1)))
    bench.say(f"  {contender.name}")

    def bed() -> Bed:
        return Bed(bench, contender, talk, count=SUBSCRIBERS, **settings)

    found = highest_rates(bench.effort, bed, first, bench.say)
    if not found:
        with bed() as one:
            late_ms = one.fan(1, 1, warm=0)["p99_us"] / 1000
        entry.remarks.append(f"no rate was held: even a single message takes {late_ms:,.0f} ms to reach all")
        return
    if len(found) < bench.effort.runs:
        entry.remarks.append(f"in {bench.effort.runs - len(found)} of {bench.effort.runs} findings no rate was held")
    metrics: dict[str, Callable[[Figures], float]] = {
        DELIVERIES: lambda run: run["rate"] * receivers,
        MESSAGES: lambda run: run["rate"],
        P99: lambda run: run["p99_us"] / 1000,
        CPU: _cpu_us,
    }
    fill(entry, found, metrics)


def _cpu_us(run: Figures) -> float:
    return float(run["server_cpu_s"] * 1e6 / max(run["delivered"], 1))


def fanout(bench: Bench) -> Row:
    row = Row(
        "fanout", "Fan-out, 1 → 1,000 WebSocket subscribers, 126 B, one core: highest rate with p99 ≤ 50 ms for 10 s"
    )
    bench = replace(bench, effort=replace(bench.effort, final_s=FANOUT_HOLD_S))
    for contender, entry in each(bench, row, [TELLWIRE, UWEBSOCKETS, NCHAN, *SOCKETS]):
        with apart(bench, entry):
            _search(bench, contender, entry, "fan", 50)
    row.compare(DELIVERIES, TELLWIRE, UWEBSOCKETS, 1.0, at_least=True)
    return row


def paced(bench: Bench) -> Row:
    row = Row("paced", "The same, paced at 50 messages/s")
    present = each(bench, row, [TELLWIRE, SEND_LOOP, NCHAN, UWEBSOCKETS, *SOCKETS])
    runs: dict[str, list[Figures]] = {contender.name: [] for contender, _ in present}
    for number in range(bench.effort.runs):
        bench.say(f"  run {number + 1}: {', '.join(runs)}")
        # In turns, so that what disturbs the machine for a while disturbs all of them.
        for contender, entry in present:
            with apart(bench, entry), Bed(bench, contender, "fan", count=SUBSCRIBERS) as bed:
                bed.fan(PACED_RATE, 0.5)
                runs[contender.name].append(bed.fan(PACED_RATE, bench.effort.paced_s, warm=0))
    for contender, entry in present:
        if not runs[contender.name]:
            continue
        fill(entry, runs[contender.name], {CPU: _cpu_us, P99: lambda run: run["p99_us"] / 1000})
        note_load(entry, entry.raw, deliveries_per_s)
    row.compare(CPU, TELLWIRE, SEND_LOOP, 1.25, at_least=False)
    row.compare(P99, TELLWIRE, NCHAN, 1.0, at_least=False)
    return row


def rooms(bench: Bench) -> Row:
    row = Row("rooms", "100 rooms of 10 members, everyone talking, one core: deliveries/s with p99 ≤ 50 ms")
    for contender, entry in each(bench, row, [TELLWIRE, SOCKETIO, STARLETTE, *SOCKETS]):
        with apart(bench, entry):
            _search(bench, contender, entry, "rooms", 1000, rooms=ROOMS, members_publish=1)
    row.compare(DELIVERIES, TELLWIRE, SOCKETIO, 2.0, at_least=True)
    row.compare(DELIVERIES, TELLWIRE, STARLETTE, 2.0, at_least=True)
    return row


def sse(bench: Bench) -> Row:
    row = Row("sse", "Fan-out over SSE, beside our own WebSocket: highest rate with p99 ≤ 50 ms")
    for contender, entry in each(bench, row, [OVER_SSE, TELLWIRE, NCHAN_SSE, *STREAMS]):
        with apart(bench, entry):
            _search(bench, contender, entry, "sse" if contender is OVER_SSE else "fan", 100)
    row.compare(DELIVERIES, OVER_SSE, TELLWIRE, 0.8, at_least=True)
    return row


def memory(bench: Bench) -> Row:
    row = Row(
        "memory", f"Resident memory per idle subscribed connection, {bench.many:,} of them (without the kernel's)"
    )
    names = {"fan": "WebSocket", "sse": "SSE", "poll": "waiting long poll"}
    goals = {"fan": 8, "sse": 16, "poll": 24}
    for talk, wire in names.items():
        entry = Entry(f"Tellwire, {wire}", TELLWIRE.settings)
        row.entries.append(entry)
        with apart(bench, entry):
            _measure_memory(bench, TELLWIRE, entry, talk)
        value = entry.median(RSS)
        row.ratios.append(Ratio(f"KiB per {wire}", value, goals[talk], at_least=False))
    for contender, entry in each(bench, row, [UWEBSOCKETS, NCHAN, *SOCKETS]):
        with apart(bench, entry):
            _measure_memory(bench, contender, entry, "fan")
    return row


def _measure_memory(bench: Bench, contender: Contender, entry: Entry, talk: str) -> None:
    load = bench.places.cache / "load"
    settings = contender.talks[talk]
    grown: dict[str, list[float]] = {RSS: [], PSS: []}
    for number in range(bench.effort.runs):
        bench.say(f"  {entry.server}, run {number + 1}")
        with start(bench.places, contender) as server:
            with Generator(load, server, {**settings, "count": 100}):
                pass  # what is loaded with the first connections is not theirs
            before = _settled(server)
            with Generator(load, server, {**settings, "count": bench.many}) as connections:
                after = _settled(server)
                figures = connections.fan(1, 1, warm=0, drain=10)
        for metric, kind in ((RSS, "Rss"), (PSS, "Pss")):
            grown[metric].append((after[kind] - before[kind]) / bench.many)
        entry.raw.append({**figures, "before_kib": before, "after_kib": after})
        if figures["delivered"] < figures["expected"]:
            entry.remarks.append(f"a message reached only {figures['delivered']:,} of them")
    entry.figures = {metric: spread(values) for metric, values in grown.items()}
    entry.load_says = "no load: the connections are idle"


def _settled(server: Child) -> dict[str, int]:
    """Return the memory once it has stopped changing."""
    seen = server.memory_kib()
    for _ in range(20):
        time.sleep(0.5)
        last, seen = seen, server.memory_kib()
        if abs(seen["Rss"] - last["Rss"]) * 500 <= seen["Rss"]:
            break
    return seen


def publish(bench: Bench) -> Row:
    row = Row("publish", "Publish with acknowledgement over one WebSocket, 256 in flight, one core")
    for contender, entry in each(
        bench, row, [TELLWIRE, SQLITE, BARE_ACKS, UWEBSOCKETS, SOCKETIO, SOCKETIO_NODE, CENTRIFUGO]
    ):
        bench.say(f"  {contender.name}")
        with apart(bench, entry):
            runs = []
            for _ in range(bench.effort.runs):
                for path in bench.places.cache.glob("bench.db*"):
                    path.unlink()
                with start(bench.places, contender) as server:
                    binary = bench.places.cache / "load"
                    with Generator(binary, server, {**contender.talks["acks"], "count": 0}) as load:
                        runs.append(load.ack(WINDOW, bench.effort.paced_s))
            fill(entry, runs, {ACKS: lambda run: run["acks"] / run["wall_s"], P99: lambda run: run["p99_us"] / 1000})
            if any(run["unanswered"] for run in runs):
                entry.remarks.append("some were never answered")
    row.compare(ACKS, TELLWIRE, 60_000.0, 1.0, at_least=True)
    row.compare(ACKS, TELLWIRE, BARE_ACKS, 60 / 107, at_least=True)
    row.compare(ACKS, SQLITE, 30_000.0, 1.0, at_least=True)
    return row


def recover(bench: Bench) -> Row:
    row = Row("recover", f"{bench.many:,} clients reconnect and each recovers {RECOVERED} messages")
    for contender, entry in each(bench, row, [TELLWIRE, NCHAN]):
        runs = []
        with start(bench.places, contender) as server:
            for number in range(bench.effort.runs):
                bench.say(f"  {contender.name}, run {number + 1}")
                if contender is NCHAN:
                    _post_one_by_one(server.port, RECOVERED)
                    talk = {**NCHAN.talks["recover"], "sub_ready_messages": RECOVERED}
                else:
                    talk = {**recovering(_publish_over_http(server.port, RECOVERED), RECOVERED)}
                with Generator(bench.places.cache / "load", server, {**talk, "count": bench.many}) as load:
                    runs.append(load.connected)
        fill(entry, runs, _CLIENT_METRICS)
        if contender is NCHAN:
            entry.remarks.append("a new client is given the channel's last messages")
    row.compare(CLIENTS, TELLWIRE, 5000.0, 1.0, at_least=True)
    return row


# The load generator counts what holds its mark and a time stamp; when it was sent does not matter here.
_UNTIMED = "~T" + "0" * 19 + "x" * 103


def _post_one_by_one(port: int, count: int) -> None:
    for _ in range(count):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/post", _UNTIMED.encode())
        with urllib.request.urlopen(request) as answer:
            answer.read()


def _publish_over_http(port: int, count: int) -> str:
    """Publish messages; return the cursor of a reader that has none of them."""
    url = f"http://127.0.0.1:{port}/v1/messages"
    with urllib.request.urlopen(f"{url}?channel=bench&since=now") as answer:
        cursor: str = json.load(answer)["cursor"]
    body = json.dumps([{"channel": "bench", "data": _UNTIMED}] * count).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        answer.read()
    return cursor


_CLIENT_METRICS: dict[str, Callable[[Figures], float]] = {
    CLIENTS: lambda run: run["opened"] / run["wall_s"],
    CLIENT_CPU: lambda run: run["server_cpu_s"] / run["opened"] * 1e6,
}


def tokens(bench: Bench) -> Row:
    row = Row("tokens", "Clients that connect over WebSocket and subscribe, each with a token of its own")
    cache = bench.places.cache
    goals = {"HS256": 2.0, "EdDSA": 3.0}
    contenders = [OPEN, *(with_tokens(algorithm, cache) for algorithm in goals)]
    runs: dict[str, list[Figures]] = {contender.name: [] for contender in contenders}
    count = min(bench.many, TOKENS)
    for number in range(bench.effort.runs):
        bench.say(f"  run {number + 1}: {', '.join(runs)}")
        for contender in contenders:
            # A fresh server, which remembers none of the tokens.
            with start(bench.places, contender) as server:
                settings = {**contender.talks["fan"], "count": count, "rooms": count}
                settings.pop("pub_path", None)
                with Generator(cache / "load", server, settings) as load:
                    runs[contender.name].append(load.connected)
    for contender in contenders:
        entry = Entry(contender.name, contender.settings)
        row.entries.append(entry)
        fill(entry, runs[contender.name], _CLIENT_METRICS)
    for contender, goal in zip(contenders[1:], goals.values(), strict=True):
        row.compare(CLIENT_CPU, contender, OPEN, goal, at_least=False)
    return row


def unused(bench: Bench) -> Row:
    row = Row("unused", "Publish with acknowledgement: what limits, rights, hooks and counters cost that nobody uses")
    contenders = [TELLWIRE, BARE]
    runs: dict[str, list[Figures]] = {contender.name: [] for contender in contenders}
    with ExitStack() as stack:
        loads = {}
        for contender in contenders:
            server = stack.enter_context(start(bench.places, contender))
            settings = {**contender.talks["acks"], "count": 0}
            loads[contender.name] = stack.enter_context(Generator(bench.places.cache / "load", server, settings))
        # In short turns, so that what disturbs the machine for a while disturbs both.
        for number in range(TURNS * bench.effort.runs):
            bench.say(f"  turn {number + 1}")
            for name, load in loads.items():
                runs[name].append(load.ack(WINDOW, TURN_S))
    for contender in contenders:
        entry = Entry(contender.name, contender.settings)
        row.entries.append(entry)
        fill(
            entry,
            runs[contender.name],
            {
                ACKS: lambda run: run["acks"] / run["wall_s"],
                PUBLISH_CPU: lambda run: run["server_cpu_s"] / max(run["acks"], 1) * 1e6,
            },
        )
    row.compare(PUBLISH_CPU, TELLWIRE, BARE, IDLE_SHARE, at_least=False)
    return row


def growth(bench: Bench) -> Row:
    row = Row("growth", f"Cost per delivery from 100 to {bench.many:,} subscribers, {GROWTH_DELIVERIES:,} deliveries/s")
    sizes = sorted({100, 1000, bench.many})
    for contender, entry in each(bench, row, [TELLWIRE, SEND_LOOP]):
        costs = []
        for count in sizes:
            bench.say(f"  {contender.name}, {count:,} subscribers")
            with Bed(bench, contender, "fan", count=count) as bed:
                rate = GROWTH_DELIVERIES / count
                bed.fan(rate, 0.5)
                runs = [bed.fan(rate, bench.effort.paced_s, warm=0) for _ in range(bench.effort.runs)]
            metric = f"{CPU}, {count:,} subscribers"
            fill(entry, runs, {metric: _cpu_us})
            costs.append(entry.figures[metric]["median"])
        note_load(entry, entry.raw, deliveries_per_s)
        goal = 1.2 if contender is TELLWIRE else float("inf")
        if goal < float("inf"):
            row.ratios.append(
                Ratio(f"{CPU}: {sizes[-1]:,} subscribers / {sizes[0]:,}", costs[-1] / costs[0], goal, at_least=False)
            )
        else:
            entry.remarks.append(f"grows to {costs[-1] / costs[0]:.2f} times: the kernel's part of it")
    return row


def bundle(bench: Bench) -> Row:
    row = Row("bundle", "What a page loads of the JavaScript client: one file, minified and gzipped")
    settings = f"esbuild {PACKAGES['esbuild']}, bundled and minified for ES2022; gzip at its best level"
    entry = Entry("Tellwire for JavaScript", settings)
    row.entries.append(entry)
    missing = npm_missing()
    if missing is not None:
        entry.remarks.append(f"not measured: {missing}")
        bench.say(f"  {missing}")
    else:
        built = [bundle_bytes(bench.places.cache) for _ in range(bench.effort.runs)]
        entry.figures = {
            MINIFIED: spread(minified / 1024 for minified, _ in built),
            GZIPPED: spread(gzipped / 1024 for _, gzipped in built),
        }
        entry.raw += [{"minified_bytes": minified, "gzipped_bytes": gzipped} for minified, gzipped in built]
        entry.load_says = "no load: a file's size"
    row.ratios.append(Ratio(GZIPPED, entry.median(GZIPPED), BUNDLE_MAX_KIB, at_least=False))
    return row


ROWS: dict[str, Callable[[Bench], Row]] = {
    row.__name__: row
    for row in (
        fanout, paced, rooms, sse, memory, publish, unused, recover, tokens, growth, bundle, acknowledge, nodes,
        grpc_fanout, grpc_acks, channels, loss,
    )
}  # fmt: skip
