"""How a figure is found: spreads over runs, the search for the highest rate that holds, servers set up for it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Protocol, Self

from children import Child, free_port
from contenders import Contender, Places
from generator import Figures, Generator, remarks

DRAIN_S = 1.0
"""For so long what was published last may be on its way."""

P99_MAX_US = 50_000
"""Beyond this the 99th percentile of the delivery latency counts as fallen behind."""


FALLS = 8
"""What was found is held so many times, each time lower than before, until it is given up."""


@dataclass(frozen=True)
class Effort:
    """How long everything may take, in seconds and in runs."""

    runs: int
    """At least five: of fewer a median says little."""
    step_s: float
    """For so long each rate is tried on the way to the highest."""
    final_s: float
    """What is found has to hold for so long, each time that it is found."""
    paced_s: float
    closeness: float
    """A finding ends when the lowest failed rate is at most this many times the highest that held."""


QUICK = Effort(runs=5, step_s=0.75, final_s=2, paced_s=2, closeness=1.15)
FULL = Effort(runs=5, step_s=3, final_s=10, paced_s=10, closeness=1.04)


@dataclass
class Entry:
    """What one server did in one row."""

    server: str
    settings: str
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metric to median, min and max."""
    load_share: float | None = None
    """CPU share of the load generator, at most."""
    load_limit: float | None = None
    """What the load generator could have done with all of its core, in the row's first metric."""
    load_says: str = ""
    """Why nothing is said of the load generator, where it is not."""
    remarks: list[str] = field(default_factory=list)
    raw: list[Figures] = field(default_factory=list)

    def median(self, metric: str) -> float | None:
        """Return the metric's median, None where it was not measured."""
        return self.figures[metric]["median"] if metric in self.figures else None


@dataclass
class Bench:
    """What all rows share."""

    places: Places
    effort: Effort
    many: int
    """Connections in the rows with 10,000: fewer where the limit on open files is lower."""
    say: Callable[[str], None]


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return median, min and max."""
    found = list(values)
    return {"median": statistics.median(found), "min": min(found), "max": max(found), "runs": len(found)}


class Bed:
    """A server with the load generator's connections to it; made anew when a measurement left it with a backlog."""

    def __init__(self, bench: Bench, contender: Contender, talk: str, **settings: object) -> None:
        self._bench = bench
        self._contender = contender
        self._settings: Mapping[str, object] = {**contender.talks[talk], **settings}
        self._stack = ExitStack()
        self.server: Child | None = None
        self.load: Generator | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()

    def open(self) -> Generator:
        """Return the load generator, connected."""
        if self.load is None:
            self.server = self._stack.enter_context(start(self._bench.places, self._contender))
            binary = self._bench.places.cache / "load"
            self.load = self._stack.enter_context(Generator(binary, self.server, self._settings))
        return self.load

    def reset(self) -> None:
        """End both."""
        self._stack.close()
        self.server = self.load = None

    def fan(self, rate: float, secs: float, *, warm: float = 0.5) -> Figures:
        """Publish at `rate`; what is left undelivered, long after it should have come, goes with the server."""
        figures = self.open().fan(rate, secs, warm=warm, drain=DRAIN_S)
        if figures["delivered"] < figures["expected"] or figures["closed"]:
            self.reset()
        return figures


def start(places: Places, contender: Contender) -> Child:
    """Return the server, to be entered."""
    port = free_port(contender.ports)
    name = "".join(c if c.isalnum() else "-" for c in contender.name.lower())
    log = places.cache / "logs" / f"{name}.log"
    return Child(contender.name, contender.command(places, port), port, log, ports=contender.ports)


def is_held(figures: Figures) -> bool:
    """Tell whether everything was published in time, arrived, and arrived in time."""
    return (
        figures["sent"] == figures["planned"]
        and figures["delivered"] == figures["expected"]
        and figures["p99_us"] <= P99_MAX_US
        and not (figures["gaps"] or figures["errors"] or figures["closed"])
    )


class Fan(Protocol):
    """What publishes at a rate and tells what arrived: a `Bed`."""

    def fan(self, rate: float, secs: float) -> Figures:
        """Publish for so long."""


def highest_rates(
    effort: Effort, beds: Callable[[], AbstractContextManager[Fan]], first: float, say: Callable[[str], None]
) -> list[Figures]:
    """Find the highest rate that holds, as often as the effort's runs, and return the figures of each at its rate.

    One search finds the neighbourhood, by doubling from `first` and halving the gap. Each finding then has a server
    and connections of its own, begins nearby, at another place than the others so that steps of the same size do not
    lead to the same rates, goes up while it holds or down while it does not, and holds what it found for `final_s`.
    """
    with beds() as bed:
        near = _neighbourhood(effort, bed, first, say)
    found = []
    for number in range(effort.runs if near else 0):
        begin = near * effort.closeness ** ((number + 0.5) / effort.runs - 0.5)
        say(f"    finding {number + 1}")
        with beds() as bed:
            figures = _finding(effort, bed, begin, say)
        if figures is not None:
            found.append(figures)
    return found


def _try(bed: Fan, rate: float, secs: float, say: Callable[[str], None], tries: int = 1) -> Figures | None:
    """Return the figures of the first try in which the rate was held; None if it was not in any."""
    for _ in range(tries):
        figures = bed.fan(rate, secs)
        say(f"    {rate:,.0f}/s for {secs:g} s: {_verdict(figures)}")
        if is_held(figures):
            return figures
    return None


def _neighbourhood(effort: Effort, bed: Fan, first: float, say: Callable[[str], None]) -> float:
    """Return a rate that is held for a step, and about which there is one that is not; 0 where none is held."""
    low, high = 0.0, 0.0
    rate = first
    # The findings close in by themselves: two of their steps are near enough.
    while rate >= 1 and not (low and high and high / low <= effort.closeness**2):
        # A failure counts only when it comes twice: one hiccup of the machine is not the server's limit.
        if _try(bed, rate, effort.step_s, say, tries=2 if low else 1):
            low = rate
        else:
            high = rate
        rate = low * 2 if not high else high / 2 if not low else (low * high) ** 0.5
    return low


def _finding(effort: Effort, bed: Fan, begin: float, say: Callable[[str], None]) -> Figures | None:
    """Close in on the highest rate from `begin`, and hold it; None where it does not hold, nor what is well below."""
    low, high = 0.0, 0.0
    rate, stride = begin, effort.closeness
    # Rounding must not cost a step.
    while rate >= 1 and not (low and high and high / low <= effort.closeness * 1.001):
        if _try(bed, rate, effort.step_s, say):
            low = rate
        else:
            high = rate
        rate = low * stride if not high else high / stride if not low else (low * high) ** 0.5
        if not (low and high):
            # The neighbourhood may have been found while the machine was disturbed.
            stride = min(stride**2, 2.0)
    for fall in range(FALLS):
        if low < 1:
            break
        held = _try(bed, low, effort.final_s, say, tries=2)
        if held:
            return held
        low /= effort.closeness ** (1 + fall // 2)
    return None


def _verdict(figures: Figures) -> str:
    if is_held(figures):
        return f"held, p99 {figures['p99_us'] / 1000:.1f} ms"
    missing = figures["expected"] - figures["delivered"]
    return (
        f"not held: p99 {figures['p99_us'] / 1000:.1f} ms, {missing:,} of {figures['expected']:,} missing, "
        f"{figures['planned'] - figures['sent']:,} not sent, {figures['gaps']} gaps {figures['trouble']}"
    )


def fill(entry: Entry, runs: list[Figures], metrics: Mapping[str, Callable[[Figures], float]]) -> Entry:
    """Put the metrics of all runs into the entry; the first one is what the load generator's limit is told in."""
    for metric, of in metrics.items():
        entry.figures[metric] = spread(of(run) for run in runs)
    entry.raw += runs
    note_load(entry, runs, next(iter(metrics.values())))
    return entry


def note_load(entry: Entry, runs: Iterable[Figures], rate: Callable[[Figures], float]) -> None:
    """Put the load generator's share of its core beside the figures, and what it could have done with all of it."""
    runs = list(runs)
    entry.load_limit = spread(rate(run) / max(run["own_cpu_share"], 0.001) for run in runs)["median"]
    entry.load_share = max(entry.load_share or 0.0, *(run["own_cpu_share"] for run in runs))
    entry.remarks = list(dict.fromkeys([*entry.remarks, *(remark for run in runs for remark in remarks(run))]))


def deliveries_per_s(run: Figures) -> float:
    """Return the rate of deliveries: in it the load generator's limit is told where a row's first metric is no rate."""
    return float(run["delivered"] / run["wall_s"])
