"""The one clock of a comparison: whoever publishes and whoever reads are in one process, and agree on the time."""

from __future__ import annotations

import asyncio
import time

COARSE_S = 0.03
"""How much of a wait is left to a thread that sleeps, which cannot be interrupted."""


class Clock:
    """Monotonic, and good to well under a millisecond."""

    def now(self) -> float:
        """Return seconds since some time."""
        return time.perf_counter()

    async def until(self, due: float) -> None:
        """Wait until then, and not for less.

        An event loop's timers are good to a millisecond, and uvloop's may come too early: more than most transports
        take.
        """
        wait_s = due - self.now()
        if wait_s > 2 * COARSE_S:
            await asyncio.sleep(wait_s - COARSE_S)
            wait_s = due - self.now()
        if wait_s > 0:
            await asyncio.to_thread(time.sleep, wait_s)
