"""Draws what was measured: one picture for each row and metric, and a page that shows them.

Run by `make bench` with the peers' Python, which has matplotlib: ``plots.py RESULTS.json FOLDER``.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from generator import BOTTLENECK, DISTURBED
from matplotlib import pyplot, ticker
from table import MESSAGES, P99

OURS, PEERS = "#0b7a75", "#8a94a6"
PALE = {OURS: "#9fcbc8", PEERS: "#c9ced6"}
PAGE_METRICS = 2
"""Metrics drawn of each row: the first say what it is about, the others stand in the table."""
LOGARITHMIC_FROM = 50
HELD_BACK = {BOTTLENECK, DISTURBED}
"""Remarks that say of a figure that it could have been better."""


_HEAD = """# Benchmarks

{date}, {effort} run on {cpu}, {cores} cores. {noise}

Bars are medians, their whiskers the lowest and the highest run. A pale bar is a figure that the load generator or
another program held back. All figures, settings and versions are in the [table](../../bench/results/latest.md), and how
they come about is told [here](../../bench/README.md)."""


def main() -> None:
    """Draw all rows of a file of results."""
    results, folder = Path(sys.argv[1]), Path(sys.argv[2])
    content = json.loads(results.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    # Text stays text, and nothing in the files changes where nothing was measured anew.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tellwire", "font.family": "sans-serif"})
    machine = content["machine"]
    lines = [_HEAD.format(**content, cpu=machine["cpu"], cores=machine["cores"])]
    for row in content["rows"]:
        metrics = list(dict.fromkeys(name for entry in row["entries"] for name in entry["figures"]))
        if MESSAGES in metrics:
            # They are the deliveries, divided by the number of readers; and at the highest rate that keeps it below
            # so many milliseconds, the latency says little.
            metrics = [metric for metric in metrics if metric not in (MESSAGES, P99)]
        shown = []
        for number, metric in enumerate(metrics[:PAGE_METRICS], 1):
            path = folder / f"{row['key']}-{number}.svg"
            if draw(row["entries"], metric, path):
                shown.append(f"![{row['title']}: {metric}]({path.name})")
        if shown:
            lines += ["", f"## {row['title']}", "", *shown]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def draw(measured: Sequence[Mapping[str, Any]], metric: str, path: Path) -> bool:
    """Draw one metric of a row as bars, the best on top; False where fewer than two servers have it."""
    is_more_better = metric.endswith("/s") or "per second" in metric or metric.startswith("arrived")
    entries = [entry for entry in measured if metric in entry["figures"]]
    if len(entries) < 2:
        return False
    entries.sort(key=lambda entry: entry["figures"][metric]["median"], reverse=not is_more_better)
    without = [entry for entry in measured if not entry["figures"]]
    figures: Sequence[Mapping[str, float]] = [entry["figures"][metric] for entry in entries]
    medians = [figure["median"] for figure in figures]
    spreads = [
        [median - figure["min"] for median, figure in zip(medians, figures, strict=True)],
        [figure["max"] - median for median, figure in zip(medians, figures, strict=True)],
    ]
    bars = len(entries) + len(without)
    picture, axes = pyplot.subplots(figsize=(8, 0.7 + 0.34 * bars), layout="constrained")
    places = range(len(without), bars)
    colors = [_color(entry) for entry in entries]
    drawn = axes.barh(places, medians, xerr=spreads, color=colors, ecolor="#444", capsize=2)
    texts = [f"{median:,.0f}" if median >= 100 else f"{median:.2f}" for median in medians]
    axes.bar_label(drawn, texts, padding=4, fontsize=8)
    is_logarithmic = min(medians) > 0 and max(medians) / min(medians) > LOGARITHMIC_FROM
    if is_logarithmic:
        axes.set_xscale("log")
        # Bars begin at a round number; how long they are says less than their labels then.
        axes.set_xlim(10 ** math.floor(math.log10(min(figure["min"] for figure in figures) * 0.8)), max(medians) * 3)
    for place, entry in enumerate(without):
        shown = "not measured" if entry["remarks"][0].startswith("not measured") else entry["remarks"][0]
        axes.annotate(
            shown, (0, place), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", fontsize=8, color="#666",
        )  # fmt: skip
    axes.set_yticks(range(bars), [entry["server"] for entry in (*without, *entries)])
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
    better = "more is better" if is_more_better else "less is better"
    axes.set_title(f"{metric} ({better}{', logarithmic' if is_logarithmic else ''})", loc="left", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.14)
    axes.set_ylim(-0.7, bars - 0.3)
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, metadata={"Date": None})
    pyplot.close(picture)
    return True


def _color(entry: Mapping[str, Any]) -> str:
    color = OURS if "tellwire" in entry["server"].lower() else PEERS
    return PALE[color] if HELD_BACK & set(entry["remarks"]) else color


if __name__ == "__main__":
    main()
