"""What was measured of each transport, and where, from what ``tellwire compare --json`` wrote (docs/compare.md)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tellwire.advise.rules import Figure, Rules

SHIPPED = Path(__file__).with_name("figures.json")
"""A run of `tellwire compare` that comes with Tellwire."""

FILE_MAX_BYTES = 16_000_000
"""A file that is larger is none that `compare` wrote."""


def last_run() -> Path:
    """Return where the newest run of `tellwire compare` on this machine is kept (XDG Base Directory, state)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "tellwire" / "compare.json"


class Figures(NamedTuple):
    """The figures of one run; ``origin`` says which run it was."""

    origin: str
    document: dict[str, Any]

    @property
    def about(self) -> str:
        """Say where and when it was measured, to follow the word "measured"."""
        machine = self.document.get("machine") or {}
        cores, cpu = machine.get("cores"), machine.get("cpu") or "a processor that did not tell its name"
        where = f"{cores} cores of {cpu}" if cores else str(cpu)
        load = machine.get("load_average")
        if cores and load and load > cores / 2:
            where += f", of which other programs took their part (load average {load:g})"
        when = str(self.document.get("started_at", ""))[:10] or "on a day that is not told"
        return f"{self.origin}: {where}, {when}"

    def lines(self, rules: Rules, transport: str) -> list[tuple[str, str]]:
        """Return a transport's figures, with their names, as far as they were measured."""
        measured = self.document["transports"].get(transport)
        found = [(figure.name, written(value_of(measured, figure), figure.unit)) for figure in rules.figures]
        return [(name, text) for name, text in found if text]

    def has(self, transport: str) -> bool:
        """Say whether a transport was measured."""
        measured = self.document["transports"].get(transport)
        return isinstance(measured, dict) and measured.get("status") == "measured"

    def as_json(self) -> dict[str, Any]:
        """Return which run it is, and the run."""
        return {"origin": self.origin, "run": self.document}


def value_of(measured: Any, figure: Figure) -> float | None:
    """Follow a figure's path; None where it was not measured."""
    for step in figure.path:
        if isinstance(step, str):
            measured = measured.get(step) if isinstance(measured, dict) else None
        else:
            entries = measured if isinstance(measured, list) else []
            measured = next(
                (entry for entry in entries if isinstance(entry, dict) and step.items() <= entry.items()), None
            )
    return float(measured) if isinstance(measured, int | float) and not isinstance(measured, bool) else None


def written(value: float | None, unit: str) -> str:
    """Write a figure with its unit, in three digits; empty for None."""
    if value is None:
        return ""
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def figures_of(path: Path | None, *wanted: str) -> Figures | None:
    """Return the figures of a file, else of the last run here, else of the run that comes with Tellwire.

    Args:
        path: The file.
        wanted: Transports that are to be held against each other: a last run that has not measured all of them will
            not do, since figures of two machines say nothing of which is the better.

    Raises ValueError with a sentence where a file that was named is none of `compare`'s.
    """
    if path is not None:
        return Figures(f"by the run in {path.name}", _read(path))
    origin = "by a run that comes with Tellwire"
    kept = last_run()
    if kept.is_file():
        try:
            last = Figures("here, by the last tellwire compare", _read(kept))
        except ValueError:
            pass  # of another version, or damaged: the figures that come with Tellwire will do
        else:
            if all(last.has(transport) for transport in wanted):
                return last
            origin = "by a run that comes with Tellwire, since the last one here is not of both"
    return Figures(origin, _read(SHIPPED)) if SHIPPED.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise ValueError(f"{path} is too large for a file that `tellwire compare --json` wrote")
        document = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(f"{path} cannot be read as JSON: {exc}") from None
    if (
        not isinstance(document, dict)
        or document.get("compare") != 1
        or not isinstance(document.get("transports"), dict)
    ):
        raise ValueError(f"{path} was not written by this version's `tellwire compare --json`: run that again")
    return document
