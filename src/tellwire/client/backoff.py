"""When to try again (spec, section 11.3)."""

from __future__ import annotations

import random
from collections.abc import Callable

LONGEST_MS = 60_000
JITTER_MS = 500


def wait_ms(failures: int, chance: float, told_ms: float | None = None) -> float:
    """Return how long to wait after so many failures in a row; `chance` is from 0 to 1.

    ``told_ms`` is when the server said to come back; it knows better.
    """
    if told_ms is not None:
        return told_ms
    base_ms: int = 1000 << min(max(failures, 1) - 1, 6)
    return min(base_ms, LONGEST_MS) + JITTER_MS * chance


class Backoff:
    """How many tries have failed since one worked."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self.failures = 0
        self._chance = chance

    def next_ms(self, told_ms: float | None = None) -> float:
        """A try failed: return the milliseconds until the next one. To be told is not a failure."""
        if told_ms is None:
            self.failures += 1
        return wait_ms(self.failures, self._chance(), told_ms)

    def reset(self) -> None:
        """One worked: begin anew."""
        self.failures = 0
