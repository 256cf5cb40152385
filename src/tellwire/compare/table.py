"""What a comparison found, as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

MARK = "*"
"""Stands beside a figure that the load generator may have set."""


def print_result(found: dict[str, Any], console: Console) -> None:
    """Print everything that was measured, and a sentence for what was not."""
    settings, machine = found["settings"], found["machine"]
    wires = found["transports"]
    measured = {key: wire for key, wire in wires.items() if "connect_ms" in wire}
    is_complete = found["ended"] == "complete"
    if not measured and not is_complete:
        console.print(Text(f"Nothing was measured: {found['says']}.", "red"))
        return
    where = found["server"]["url"] or "a server of its own"
    own = ", started for this" if found["server"]["is_own"] else ""
    console.print(Text.assemble(("Compared at ", ""), (where, "bold"), own, f", in {found['took_s']:g} s"))
    cores, load = machine["cores"], machine["load_average"]
    busy = (
        f", of which other programs took their part (load average {load:g})"
        if cores and load and load > cores / 2
        else ""
    )
    console.print(f"{machine['cpu']}, {cores} cores{busy}, {_way(settings['path'])}", style="dim", highlight=False)
    if measured:
        shown = settings["readers"][len(settings["readers"]) // 2]
        size = settings["payload_bytes"][min(1, len(settings["payload_bytes"]) - 1)]
        console.print()
        console.print(_times(measured, f"Milliseconds, at {settings['rate']:g} messages/s to {_readers(shown)}"))
        if any("bytes" in wire for wire in measured.values()):
            console.print()
            console.print(_bytes_table(measured, size))
        if any("memory_kib_per_connection" in wire or _has_cpu(wire) for wire in measured.values()):
            console.print()
            console.print(_costs(measured, shown))
        console.print()
        console.print(_own_limits(measured))
        if any(_is_marked(wire) for wire in measured.values()):
            note = f"{MARK} compare itself, or whatever else had the cores, may have set it: the server may do better."
            console.print(Text(note, "yellow"))
    for wire in wires.values():
        if wire["status"] != "measured" and (is_complete or wire["status"] != "unmeasured"):
            left_out = "not measured: " if wire["status"] == "unmeasured" else ""
            console.print(Text.assemble((f"{wire['title']}: ", "bold yellow"), f"{left_out}{wire['says']}."))
        elif wire.get("path", {}).get("verdict") == "clumped":
            console.print(Text.assemble((f"{wire['title']}: ", "bold yellow"), f"{wire['path']['says']}."))
    if found["fallback"] is not None:
        console.print(Text(_capital(found["fallback"]["says"]) + "."))
    for unknown in found["unknown"] if measured else ():
        console.print(Text(f"Unknown: {unknown}.", "dim"))
    if is_complete:
        return
    left = [_left(wire) for wire in wires.values() if wire["status"] == "unmeasured"]
    missing = f"; not measured: {' · '.join(left)}" if left else ""
    console.print(Text(f"This is not everything: {found['says']}{missing}.", "red"))


def _left(wire: dict[str, Any]) -> str:
    return f"the rest of {wire['title']}" if "connect_ms" in wire else str(wire["title"])


def _times(wires: dict[str, Any], title: str) -> Table:
    table = _table(title, "", "connect", "first", "p50", "p99", "p99.9", "resume")
    for wire in wires.values():
        latency = wire.get("latency_ms") or {}
        table.add_row(
            wire["title"],
            *(_ms(wire.get(name), "median") for name in ("connect_ms", "first_message_ms")),
            *(_ms(latency, name) for name in ("p50", "p99", "p99.9")),
            _ms(wire.get("resume_ms"), "median"),
        )
    return table


def _bytes_table(wires: dict[str, Any], size: int) -> Table:
    title = f"Bytes on the wire beside {size} of payload"
    table = _table(title, "", "heads ↓", "framing ↓", "asks ↑", "publish ↑", "publish ↓")
    for wire in wires.values():
        entry = _at(wire.get("bytes"), "payload_bytes", size)
        publish = _at(wire.get("publish", {}).get("bytes"), "payload_bytes", size)
        table.add_row(
            wire["title"],
            *(_bytes(entry, "down", part) for part in ("headers", "framing")),
            _bytes(entry, "up", "total"),
            *(_bytes(publish, way, "beside") for way in ("up", "down")),
        )
    return table


def _costs(wires: dict[str, Any], readers: int) -> Table:
    table = _table(
        f"What the server spends, with {_readers(readers)}", "", "CPU/message", "CPU/delivery", "memory/connection"
    )
    for wire in wires.values():
        cpu = _at(wire.get("readers"), "readers", readers)
        memory = wire.get("memory_kib_per_connection") or {}
        spent = [cpu.get(name) for name in ("cpu_us_per_message", "cpu_us_per_delivery")]
        table.add_row(
            wire["title"],
            *("–" if value is None else _marked(f"{_figure(value)} µs", cpu) for value in spent),
            "–" if memory.get("median") is None else _marked(f"{memory['median']:.3g} KiB", memory),
        )
    return table


def _own_limits(wires: dict[str, Any]) -> Table:
    """What the load generator itself could have done: beyond that nothing is the server's."""
    title = "The load generator's own limit, operations/s; its part of a core; ms late"
    table = _table(title, "", "connect", "deliver", "resume", "open", "busy", "waited", "late")
    for wire in wires.values():
        latency = wire.get("latency_ms") or {}
        load = latency.get("load") or {}
        names = ("connect_ms", "latency_ms", "resume_ms", "memory_kib_per_connection")
        table.add_row(
            wire["title"],
            *(_count((wire.get(name) or {}).get("load", {}).get("limit_per_s")) for name in names),
            _marked(f"{load['cpu_share']:.0%}", latency) if load else "–",
            "–" if load.get("queued_share") is None else f"{load['queued_share']:.0%}",
            f"{load['late_ms']:.3g}" if "late_ms" in load else "–",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=number > 0)
    return table


def _ms(figure: dict[str, Any] | None, name: str) -> str:
    value = (figure or {}).get(name)
    return "–" if figure is None or value is None else _marked(_figure(value), figure)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _has_cpu(wire: dict[str, Any]) -> bool:
    return any(entry["cpu_us_per_delivery"] is not None for entry in wire.get("readers", []))


def _bytes(entry: dict[str, Any], way: str, part: str) -> str:
    if not entry:
        return "–"
    counted = entry[way]
    value = counted["headers"] + counted["framing"] if part == "beside" else counted[part]
    return _marked(f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}", entry)


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _marked(text: str, figure: dict[str, Any]) -> str:
    return text + (MARK if figure.get("load", {}).get("bottleneck") else "")


def _at(entries: list[dict[str, Any]] | None, key: str, value: int) -> dict[str, Any]:
    return next((entry for entry in entries or [] if entry[key] == value), {})


def _is_marked(wire: dict[str, Any]) -> bool:
    return any(load.get("bottleneck") for load in _loads(wire))


def _loads(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            if name == "load":
                yield each
            else:
                yield from _loads(each)
    elif isinstance(value, list):
        for each in value:
            yield from _loads(each)


def _way(path: dict[str, Any]) -> str:
    parts = []
    if path["delay_ms"]:
        parts.append(f"{path['delay_ms']:g} ms more each way")
    if path["loss"]:
        parts.append(f"{path['loss']:.2%} of the segments lost".replace(".00%", "%"))
    if path["bandwidth_bits_per_s"]:
        parts.append(f"{path['bandwidth_bits_per_s'] / 1e6:g} Mbit/s")
    if path["no_websocket"]:
        parts.append("a proxy that forbids upgrades")
    if path["buffering_proxy"]:
        parts.append("a proxy that holds answers until they are whole")
    return "over a way with " + ", ".join(parts) if parts else "over the way as it is"


def _readers(count: int) -> str:
    return "1 reader" if count == 1 else f"{count} readers"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
