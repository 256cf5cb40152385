"""Draws what was measured: one picture for each row and metric, and a page that shows them.

Run by `make bench` with the peers' Python, which has matplotlib: ``plots.py RESULTS.json FOLDER``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot

OURS, PEERS, MARKED = "#0b7a75", "#8a94a6", "#c9ced6"
PAGE_METRICS = 2
"""Metrics drawn of each row: the first say what it is about, the others stand in the table."""


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
        shown = []
        for number, metric in enumerate(metrics[:PAGE_METRICS], 1):
            path = folder / f"{row['key']}-{number}.svg"
            if draw(row["entries"], metric, path):
                shown.append(f"![{row['title']}: {metric}]({path.name})")
        if shown:
            lines += ["", f"## {row['title']}", "", *shown]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def draw(measured: Sequence[Mapping[str, Any]], metric: str, path: Path) -> bool:
    """Draw one metric of a row as bars; False where fewer than two servers have it."""
    entries = [entry for entry in measured if metric in entry["figures"]]
    if len(entries) < 2:
        return False
    entries.sort(key=lambda entry: entry["figures"][metric]["median"])
    figures: Sequence[Mapping[str, float]] = [entry["figures"][metric] for entry in entries]
    medians = [figure["median"] for figure in figures]
    spreads = [
        [median - figure["min"] for median, figure in zip(medians, figures, strict=True)],
        [figure["max"] - median for median, figure in zip(medians, figures, strict=True)],
    ]
    picture, axes = pyplot.subplots(figsize=(8, 0.6 + 0.34 * len(entries)), layout="constrained")
    colors = [MARKED if entry["remarks"] else OURS if "Tellwire" in entry["server"] else PEERS for entry in entries]
    servers = [entry["server"] for entry in entries]
    bars = axes.barh(servers, medians, xerr=spreads, color=colors, ecolor="#444", capsize=2)
    texts = [f"{median:,.0f}" if median >= 100 else f"{median:.2f}" for median in medians]
    axes.bar_label(bars, texts, padding=4, fontsize=8)
    if medians[0] > 0 and medians[-1] / medians[0] > 50:
        axes.set_xscale("log")
    axes.set_title(metric, loc="left", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, metadata={"Date": None})
    pyplot.close(picture)
    return True


if __name__ == "__main__":
    main()
