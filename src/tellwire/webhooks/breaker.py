"""A circuit breaker: who does not answer is left alone for a while.

::

    closed ──5 failures in a row──▶ open ──after a delay──▶ one probe ──answered──▶ closed
                                      ▲                        │
                                      └──failed: twice as long─┘
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

FAILURES_MAX = 5
"""Failures in a row that open it: as Envoy's outlier detection (consecutive_5xx)."""

OPEN_FIRST_S = 1.0
"""Seconds that it is open at first. A user waits behind this, so shorter than Envoy's 30 s."""

OPEN_MAX_S = 30.0
"""Longest that it is open before the next probe, in seconds: Envoy's base_ejection_time."""


class Permit(NamedTuple):
    """Leave to try once; to be given back with what came of it."""

    probe: bool


class Breaker:
    """Counts failures in a row, and says whether to try.

    Args:
        clock: Seconds of a steady clock.
        random: Numbers from 0 to 1, for the jitter that keeps nodes from probing together.
    """

    def __init__(self, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._failures = 0
        self._openings = 0
        self._probe_at: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        return self._probe_at is not None

    def wait_s(self) -> float:
        """Return the seconds until a try may be let through; 0 where one would be now."""
        if self._probe_at is None:
            return 0.0
        return OPEN_FIRST_S if self._probing else max(0.0, self._probe_at - self._clock())

    def admit(self) -> Permit | None:
        """Return leave to try, None while there is none."""
        if self._probe_at is None:
            return Permit(probe=False)
        if self._probing or self._clock() < self._probe_at:
            return None
        self._probing = True
        return Permit(probe=True)

    def succeeded(self) -> None:
        """Close it: there was an answer."""
        self._failures = self._openings = 0
        self._probe_at = None
        self._probing = False

    def failed(self, permit: Permit) -> None:
        """Take note that there was no answer."""
        self._failures += 1
        if self.is_open and not permit.probe:
            return  # it was under way when this opened, and says nothing new
        if not self.is_open and self._failures < FAILURES_MAX:
            return
        self._probing = False
        delay = min(OPEN_MAX_S, OPEN_FIRST_S * 2 ** min(self._openings, 16))
        self._openings += 1
        self._probe_at = self._clock() + delay * (0.5 + self._random() / 2)

    def given_up(self, permit: Permit) -> None:
        """Take note that nobody waited for the answer, so that nothing is known."""
        if permit.probe:
            self._probing = False
