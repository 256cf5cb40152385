"""What processes cost, and how long they waited for their core: for load generators that are not the one in C."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SCHED = 2
"""CPUCLOCK_SCHED: exact, unlike the 10 ms ticks of /proc/PID/stat (clock_getcpuclockid(3))."""


@dataclass(frozen=True)
class Reading:
    """Clocks of some processes at one time, in seconds."""

    wall_s: float
    cpu_s: float
    """User and system, of all their threads."""
    queued_s: float
    """Their first threads were ready to run and had no core."""
    busy_s: float
    """Their core was busy, with anything, in ticks of the kernel; 0 where they have none of their own."""


def read(pids: Iterable[int], core: int | None = None) -> Reading:
    """Read the clocks of all of them; one that has ended counts no more."""
    cpu = queued = 0.0
    for pid in pids:
        try:
            cpu += time.clock_gettime((~pid << 3) | _SCHED)
            queued += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
        except OSError:
            continue
    return Reading(time.monotonic(), cpu, queued, _busy_s(core))


def _busy_s(core: int | None) -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, *rest = map(int, ticks[:8])
            return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def shares(of: str, before: Reading, after: Reading, cores: int = 1) -> dict[str, float]:
    """Return which part of so many cores the processes had, and for which part of the time others held theirs.

    Threads and processes that wait for each other wait too, but leave the core no more busy than they are.
    """
    wall_s, cpu_s = after.wall_s - before.wall_s, after.cpu_s - before.cpu_s
    found = {f"{of}_cpu_share": cpu_s / wall_s / cores}
    if after.busy_s:
        others_s = max(after.busy_s - before.busy_s - cpu_s, 0.0)
        found[f"{of}_queued_share"] = min(after.queued_s - before.queued_s, others_s) / wall_s
    return found
