"""The results as JSON for programs and as Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from measuring import Entry
from table import Ratio, Row

INTRODUCTION = (
    "Every server had one core to itself and the load generator the other; figures are medians, with the lowest and "
    "highest of the runs in brackets. What they mean and how they come about stands in [bench/README.md](../README.md)."
)
MARKS = {True: "met", False: "missed", None: "no peer"}


def write_json(path: Path, rows: Sequence[Row], about: Mapping[str, object]) -> None:
    """Write everything that was measured, raw figures too."""
    content = {**about, "rows": [_row_dict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _row_dict(row: Row) -> dict[str, object]:
    content = asdict(row)
    for ratio, one in zip(content["ratios"], row.ratios, strict=True):
        ratio["is_met"] = one.is_met
    return content


def read_rows(path: Path) -> dict[str, Row]:
    """Read the rows that `write_json` wrote, by their keys; none where there is no file."""
    if not path.exists():
        return {}
    rows = {}
    for content in json.loads(path.read_text())["rows"]:
        ratios = [
            Ratio(each["text"], each["value"], each["goal"], each["at_least"], each["held_back"])
            for each in content["ratios"]
        ]
        entries = [Entry(**each) for each in content["entries"]]
        rows[content["key"]] = Row(content["key"], content["title"], entries, ratios, content["measured"])
    return rows


def render(rows: Sequence[Row], about: Mapping[str, object]) -> str:
    """Return the results as a page: the ratios first, then each row's figures, then where they come from."""
    lines = [
        "# Measurements",
        "",
        f"{about['date']}, {about['effort']} run. {INTRODUCTION} {about['noise']}",
        "",
        "| | ratio | goal | |",
        "|---|---|---|---|",
    ]
    for row in rows:
        lines += [
            f"| **{row.key}** {ratio.text} | {_value(ratio)} | {_goal(ratio)} | {_mark(ratio)} |"
            for ratio in row.ratios
        ]
    for row in rows:
        lines += ["", *render_row(row)]
    lines += ["", "## The machine, and versions", ""]
    machine = about["machine"]
    assert isinstance(machine, Mapping)
    for name, value in machine.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else value
        lines.append(f"- {name.replace('_', ' ')}: {shown if shown else 'none'}")
    lines += ["", "## Settings", ""]
    settings = {entry.server: entry.settings for row in rows for entry in row.entries}
    lines += [f"- {server}: {text}" for server, text in settings.items()]
    return "\n".join(lines) + "\n"


def render_row(row: Row) -> list[str]:
    """Return the lines of one row's part of the page."""
    return [f"## {row.key}: {row.title}", "", f"{row.measured}.", "", *_table(row)]


def _mark(ratio: Ratio) -> str:
    mark = MARKS[ratio.is_met]
    if not ratio.held_back:
        return mark
    return f"{mark}; the load generator was the bottleneck of {' and of '.join(ratio.held_back)}"


def _value(ratio: Ratio) -> str:
    return "–" if ratio.value is None else f"{ratio.value:.2f}"


def _goal(ratio: Ratio) -> str:
    return f"{'≥' if ratio.at_least else '≤'} {ratio.goal:.3g}"


def _table(row: Row) -> list[str]:
    metrics = list(dict.fromkeys(metric for entry in row.entries for metric in entry.figures))
    lines = [
        "| server | " + " | ".join(metrics) + " | load generator: CPU share, own limit | remarks |",
        "|---" * (len(metrics) + 3) + "|",
    ]
    for entry in row.entries:
        cells = [_spread(entry.figures.get(metric)) for metric in metrics]
        lines.append(f"| {entry.server} | {' | '.join(cells)} | {_load(entry)} | {'; '.join(entry.remarks)} |")
    return lines


def _load(entry: Entry) -> str:
    if entry.load_share is None or entry.load_limit is None:
        return entry.load_says or "–"
    return f"{entry.load_share:.0%}, {_number(entry.load_limit)}/s"


def _spread(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "–"
    if figure["runs"] < 2:
        return _number(figure["median"])
    return f"{_number(figure['median'])} ({_number(figure['min'])}…{_number(figure['max'])})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 20 else f"{value:.2f}"
