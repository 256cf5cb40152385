"""What the table is made of: rows, what was measured in each, and the ratios that are aimed for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from children import ChildFailedError
from contenders import Contender
from generator import BOTTLENECK, LoadFailedError
from measuring import Bench, Entry

MESSAGES = "messages/s"
DELIVERIES = "deliveries/s"
P99 = "p99 latency, ms"
CPU = "CPU per delivery, µs"
RSS = "resident KiB per connection"
PSS = "proportional KiB per connection"
ACKS = "acknowledged/s"
CLIENTS = "clients/s"
CLIENT_CPU = "CPU per client, µs"
PUBLISH_CPU = "CPU per publish, µs"
MINIFIED = "KiB minified"
GZIPPED = "KiB gzipped"
BUNDLE_MAX_KIB = 12


@dataclass(frozen=True)
class Ratio:
    """A comparison the project aims at; ``value`` is None where a side was not measured."""

    text: str
    value: float | None
    goal: float
    at_least: bool
    held_back: list[str] = field(default_factory=list)
    """Servers that could have done more than the load generator."""

    @property
    def is_met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


@dataclass
class Row:
    """One measured row."""

    key: str
    title: str
    entries: list[Entry] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    measured: str = ""
    """When, and of which commit: rows may be measured anew one by one."""

    def compare(
        self, metric: str, one: Contender | float, other: Contender | float, goal: float, *, at_least: bool
    ) -> None:
        """Add the ratio of two servers' medians; a number stands for itself."""
        sides = [self._side(side, metric) for side in (one, other)]
        names = [side.name if isinstance(side, Contender) else f"{side:,g}" for side in (one, other)]
        value = sides[0] / sides[1] if sides[0] and sides[1] else None
        held_back = [entry.server for entry in self.entries if entry.server in names and BOTTLENECK in entry.remarks]
        self.ratios.append(Ratio(f"{metric}: {names[0]} / {names[1]}", value, goal, at_least, held_back))

    def _side(self, side: Contender | float, metric: str) -> float | None:
        if not isinstance(side, Contender):
            return side
        return next((entry.median(metric) for entry in self.entries if entry.server == side.name), None)


def each(bench: Bench, row: Row, contenders: Sequence[Contender]) -> list[tuple[Contender, Entry]]:
    """Add an entry for each contender; return those that can be measured."""
    present = []
    for contender in contenders:
        entry = Entry(contender.name, contender.settings)
        row.entries.append(entry)
        missing = contender.missing(bench.places)
        if missing is not None:
            entry.remarks.append(f"not measured: {missing}")
            bench.say(f"  {contender.name}: {missing}")
        else:
            present.append((contender, entry))
    return present


@contextmanager
def apart(bench: Bench, entry: Entry) -> Iterator[None]:
    """Say beside a server what failed with it, so that it does not keep the others from being measured."""
    try:
        yield
    except (ChildFailedError, LoadFailedError) as exc:
        bench.say(f"  {entry.server}: {exc}")
        remark = f"not measured: {str(exc).splitlines()[0]}"
        if remark not in entry.remarks:
            entry.remarks.append(remark)
