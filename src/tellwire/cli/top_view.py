"""What ``tellwire top`` draws: a picture of one moment, as large as the terminal. No I/O."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tellwire.cli import tables
from tellwire.cli.tables import Column, Row

Sort = Literal["rate", "readers", "lag"]

SORTS: dict[str, Sort] = {"m": "rate", "r": "readers", "l": "lag"}
"""Keys, and what they sort channels by."""

SORTED_BY: dict[Sort, str] = {"rate": "messages", "readers": "readers", "lag": "lag"}

NARROW = 100
"""Columns below which a terminal is narrow: then only what matters most is shown."""

_LEFT_OUT = {"NODES", "MEMBERS", "CHANNELS", "MSGS", "UP", "ON"}
"""Columns that a narrow terminal does without."""

_HEAD_LINES = 3
_FOOT_LINES = 1
_TABLE_LINES = 2
"""A table's own heading, and the empty line before it."""


@dataclass(frozen=True)
class Moment:
    """What was found out at once, and when (by the monotonic clock)."""

    nodes: Sequence[Row]
    channels: Sequence[Row]
    channels_total: int
    connections: Sequence[Row]
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class View:
    """How it is to be drawn: for which server, sorted by what, and what is wrong at the time."""

    url: str
    sort: Sort = "rate"
    trouble: str = ""
    interval_s: float = 2.0


def draw(moment: Moment | None, view: View, width: int, height: int, now: float) -> Group:
    """Draw a moment into so many columns and lines."""
    lines: list[Text | Table] = [*_head(moment, view, width, now)]
    if moment is not None:
        room = max(3, height - _HEAD_LINES - _FOOT_LINES - 3 * _TABLE_LINES)
        slow = [one for one in moment.connections if one["lag"]]
        heights = share(room, [len(moment.nodes), len(moment.channels), max(1, len(slow))])
        names = {node["node"]: str(node.get("name", node["node"])) for node in moment.nodes}
        is_narrow = width < NARROW
        lines += [Text(), _table(tables.NODES, tables.node_rows(moment.nodes), heights[0], is_narrow)]
        lines += [Text(), _table(tables.CHANNELS, tables.channel_rows(moment.channels), heights[1], is_narrow)]
        if slow:
            lines += [Text(), _table(tables.READERS, tables.reader_rows(slow, names), heights[2], is_narrow)]
        else:
            lines += [Text(), Text("no reader lags", "green")]
    lines.append(_foot(view))
    return Group(*lines)


def draw_once(moment: Moment, view: View) -> Group:
    """Draw all of a moment, for what is no terminal."""
    slow = [one for one in moment.connections if one["lag"]]
    names = {node["node"]: str(node.get("name", node["node"])) for node in moment.nodes}
    return Group(
        *_head(moment, view, tables.PIPED_WIDTH, moment.at),
        Text(),
        tables.table(tables.NODES, tables.node_rows(moment.nodes)),
        Text(),
        tables.table(tables.CHANNELS, tables.channel_rows(moment.channels)),
        Text(),
        tables.table(tables.READERS, tables.reader_rows(slow, names)) if slow else Text("no reader lags"),
    )


def share(room: int, wanted: Sequence[int]) -> list[int]:
    """Share lines among tables, none more than it wants: who wants less leaves it to the others."""
    given = [0] * len(wanted)
    left = room
    while left > 0 and (hungry := [at for at, want in enumerate(wanted) if given[at] < want]):
        for at in hungry[:left]:
            given[at] += 1
        left = room - sum(given)
    return given


def _head(moment: Moment | None, view: View, width: int, now: float) -> list[Text]:
    title = Text.assemble(("tellwire top", "bold"), f"  {view.url}  {time.strftime('%H:%M:%S')}")
    if moment is None:
        says = view.trouble or "asking ..."
        return [_cut(title, width), _cut(Text(says, "bold red" if view.trouble else ""), width), Text()]
    nodes = moment.nodes
    counts: Counter[str] = Counter()
    for node in nodes:
        counts.update(node.get("connections", {}))
    wires = "  ".join(f"{name} {tables.number(count)}" for name, count in counts.most_common()) or "none"
    rates: Counter[str] = Counter()
    for node in nodes:
        rates.update({name: rate for name, rate in node.get("rates", {}).items() if node["answered"]})
    silent = sum(not node["answered"] for node in nodes)
    lagging = sum(node.get("lagging", 0) for node in nodes)
    first = Text.assemble(
        ("in ", "dim"), (f"{tables.rate(rates['published'])}/s", "bold"),
        ("  out ", "dim"), (f"{tables.rate(rates['delivered'])}/s", "bold"),
        ("  nodes ", "dim"), f"{len(nodes)}",
        ("  channels ", "dim"), tables.number(moment.channels_total),
        ("  lagging ", "dim"), (tables.number(lagging), "yellow" if lagging else ""),
    )  # fmt: skip
    if silent:
        first.append(f"  {silent} silent", "bold red")
    second = Text.assemble(("connections ", "dim"), (tables.number(sum(counts.values())), "bold"), f"  {wires}")
    if view.trouble:
        second = Text(f"as of {tables.span(int(now - moment.at))} ago: {view.trouble}", "bold red")
    return [_cut(title, width), _cut(first, width), _cut(second, width)]


def _foot(view: View) -> Text:
    keys = Text("q", "bold")
    keys.append(" quit  channels by ", "dim")
    for key, sort in SORTS.items():
        keys.append(key, "bold")
        keys.append(f" {SORTED_BY[sort]}  ", "reverse" if sort == view.sort else "dim")
    return keys


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line


def _table(columns: Sequence[Column], rows: list[list[object]], height: int, is_narrow: bool) -> Table:
    if is_narrow:
        keep = [at for at, column in enumerate(columns) if column.heading not in _LEFT_OUT]
        columns = [columns[at] for at in keep]
        rows = [[row[at] for at in keep] for row in rows]
    hidden = len(rows) - height
    if hidden > 0:
        first = columns[0]
        columns = [first._replace(heading=f"{first.heading} ({height} of {len(rows)})"), *columns[1:]]
    return tables.table(columns, rows[:height], fills=True)
