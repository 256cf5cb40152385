"""How figures are made of what was seen: exact percentiles, spreads, and what the load generator itself could do."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

BOTTLENECK_SHARE = 0.9
"""Share of the time that the load generator worked or waited for a core, from which on it may have set a figure."""

QUANTILES = (
    *(number / 100 for number in range(0, 100, 2)),
    0.99, 0.992, 0.994, 0.996, 0.998, 0.999, 0.9995, 1.0,
)  # fmt: skip
"""Which points of a distribution are kept."""

_SCHEDULING = Path("/proc/thread-self/schedstat")
"""Nanoseconds on a core, nanoseconds of waiting for one, and how often: Documentation/scheduler/sched-stats.rst."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all does not exceed (nearest rank): one that was seen."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Meter:
    """Watches what the load generator spends: ``with Meter() as meter: …``, then `load`."""

    def __enter__(self) -> Self:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()
        self._queued = _queued_s()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.perf_counter() - self._wall
        self.cpu_s = time.process_time() - self._cpu
        queued = _queued_s()
        self.queued_s = None if queued is None or self._queued is None else queued - self._queued

    def load(self, operations: float, late_s: Sequence[float] = ()) -> dict[str, Any]:
        """Return what stands beside a figure.

        Args:
            operations: How many of what the figure is about were done.
            late_s: By how much each publish was later than it was due.
        """
        share = self.cpu_s / self.wall_s
        queued = None if self.queued_s is None else self.queued_s / self.wall_s
        found: dict[str, Any] = {
            "cpu_share": share,
            "queued_share": queued,
            "limit_per_s": operations / max(self.cpu_s, 1e-6),
            "bottleneck": share + (queued or 0.0) > BOTTLENECK_SHARE,
        }
        if late_s:
            found["late_ms"] = 1000 * percentile(sorted(late_s), 0.99)
        return found


def _queued_s() -> float | None:
    try:
        return int(_SCHEDULING.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def spread_ms(values_s: Sequence[float], meter: Meter) -> dict[str, Any]:
    """Return median, min and max in milliseconds."""
    return {
        "median": 1000 * statistics.median(values_s),
        "min": 1000 * min(values_s),
        "max": 1000 * max(values_s),
        "runs": len(values_s),
        "load": meter.load(len(values_s)),
    }


def distribution_ms(values_s: Sequence[float]) -> dict[str, Any]:
    """Return the percentiles in milliseconds, all None where there is nothing to take them of."""
    if not values_s:
        return {"p50": None, "p99": None, "p99.9": None, "min": None, "max": None, "count": 0, "quantiles": []}
    ordered = sorted(values_s)
    return {
        "p50": 1000 * percentile(ordered, 0.5),
        "p99": 1000 * percentile(ordered, 0.99),
        "p99.9": 1000 * percentile(ordered, 0.999),
        "min": 1000 * ordered[0],
        "max": 1000 * ordered[-1],
        "count": len(ordered),
        "quantiles": [[share, 1000 * percentile(ordered, share)] for share in QUANTILES],
    }
