"""What the operators' commands show: tables, and figures as people read them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tellwire.cli.client import shown

Row = dict[str, Any]

PIPED_WIDTH = 10_000
"""Columns of what is no terminal: nothing is cut off there."""


class Column(NamedTuple):
    """A column: its heading, and whether it holds numbers, or is the one that takes the room that is left.

    ``max_width`` is the most that it takes where there is little room.
    """

    heading: str
    is_number: bool = False
    takes_rest: bool = False
    max_width: int | None = None


def console() -> Console:
    """Return where tables go: standard output."""
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(highlight=False, width=width)


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]], *, fills: bool = False) -> Table:
    """Make a table; texts of clients do nothing to the terminal. With `fills` it is as wide as that."""
    made = Table(box=None, pad_edge=False, expand=fills, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if fills and column.takes_rest else None,
            max_width=column.max_width if fills else None,
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(shown(str(cell))) for cell in row))
    return made


def number(value: float) -> str:
    """Write a number shortly: 999, 12.3k, 4.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if value >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:.0f}{unit}"
    return f"{value:.0f}"


def rate(value: float) -> str:
    """Write how often something happens in a second: 0, 0.1, 99.9, 100, 12.3k."""
    return f"{value:.1f}" if 0 < value < 99.95 else number(value)


def span(seconds: float) -> str:
    """Write a time shortly: 8s, 5m, 3h, 12d."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.1f}s" if 0 < seconds < 10 and seconds % 1 else f"{int(seconds)}s"


def since(milliseconds: float) -> str:
    """Write how long ago a moment was."""
    return span(max(0.0, int(time.time() - milliseconds / 1000)))


NODES = (
    Column("NODE", takes_rest=True), Column("STATE"), Column("UP", True), Column("CONN", True),
    Column("CHANNELS", True), Column("IN/s", True), Column("OUT/s", True), Column("LAGGING", True),
    Column("LAG", True),
)  # fmt: skip

CHANNELS = (
    Column("CHANNEL", takes_rest=True), Column("MSG/s", True), Column("READERS", True), Column("NODES", True),
    Column("MEMBERS", True), Column("LAG", True),
)  # fmt: skip

CONNECTIONS = (
    Column("CLIENT"), Column("USER", takes_rest=True), Column("NODE"), Column("WIRE"), Column("ADDRESS"),
    Column("UP", True), Column("CHANNELS", True), Column("LAG", True), Column("BEHIND", True),
)  # fmt: skip

READERS = (
    Column("CLIENT"), Column("USER", takes_rest=True), Column("ON", max_width=24), Column("WIRE"),
    Column("CHANNELS", True), Column("LAG", True), Column("MSGS", True), Column("BEHIND", True),
)  # fmt: skip

MEMBERS = (
    Column("CLIENT"), Column("USER"), Column("NODE"), Column("HERE", True), Column("STATE", takes_rest=True),
)  # fmt: skip


def state_of(node: Row) -> Text:
    """Return how a node does, in a word."""
    if not node["answered"]:
        return Text("silent", "bold red")
    if node.get("draining"):
        return Text("draining", "bold yellow")
    return Text("ready", "green") if node.get("ready") else Text("starting", "yellow")


def node_rows(nodes: Iterable[Row]) -> list[list[object]]:
    """Return the rows of `NODES`."""
    return [
        [
            node.get("name", node["node"]), state_of(node),
            span(node.get("uptime_s", 0)) if node["answered"] else f"{span(node.get('said_s', 0))} ago",
            number(sum(node.get("connections", {}).values())), number(node.get("channels", 0)),
            rate(node.get("rates", {}).get("published", 0)), rate(node.get("rates", {}).get("delivered", 0)),
            number(node.get("lagging", 0)), number(node.get("lag_max", 0)),
        ]
        for node in nodes
    ]  # fmt: skip


def channel_rows(channels: Iterable[Row]) -> list[list[object]]:
    """Return the rows of `CHANNELS`."""
    return [
        [
            one["channel"], rate(one["rate"]), number(one["readers"]), one["nodes"], number(one["members"]),
            number(one["lag_max"]),
        ]
        for one in channels
    ]  # fmt: skip


def connection_rows(connections: Iterable[Row], names: dict[str, str]) -> list[list[object]]:
    """Return the rows of `CONNECTIONS`; `names` are those of nodes, by their ids."""
    return [
        [
            one["client"], one["user"] or "-", names.get(one["node"], one["node"]), one["transport"],
            one["address"] or "-", since(one["since"]), one["channel_count"], number(one["lag"]),
            span(one["lag_ms"] / 1000) if one["lag"] else "-",
        ]
        for one in connections
    ]  # fmt: skip


def reader_rows(connections: Iterable[Row], names: dict[str, str]) -> list[list[object]]:
    """Return the rows of `READERS`."""
    return [
        [
            one["client"], one["user"] or "-", names.get(one["node"], one["node"]), one["transport"],
            one["channel_count"], number(one["lag"]), number(one["lag_messages"]), span(one["lag_ms"] / 1000),
        ]
        for one in connections
    ]  # fmt: skip


def member_rows(members: Iterable[Row], names: dict[str, str]) -> list[list[object]]:
    """Return the rows of `MEMBERS`."""
    return [
        [
            one["client"], one["user"] or "-", names.get(one["node"], one["node"]), since(one["since"]),
            "" if one["state"] is None else shown(one["state"]),
        ]
        for one in members
    ]  # fmt: skip
