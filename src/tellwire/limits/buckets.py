"""How often: token buckets, which are told what time it is and have no timer."""

from __future__ import annotations

from collections import OrderedDict

KEYS_MAX = 20_000
"""Buckets that are kept for keys; about 5 MB."""

ROUNDING_S = 1e-6
"""Added to a wait, so that floating point does not make it too short by its last bit."""


class Bucket:
    """Lets through `rate` a second, and up to `burst` at once after a quiet time."""

    __slots__ = ("_burst", "_level", "_rate", "_seen")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._seen = float("-inf")  # when the level was last worked out; full from the beginning of time

    def take(self, n: float, now: float) -> float:
        """Take `n`; return 0.0, or the seconds after which this would have been let through, having taken nothing.

        `now` is a monotonic clock's. More than `burst` at a time is let through where the bucket is full, and paid off
        afterwards; else it never could be.
        """
        if now > self._seen:
            self._level = min(self._burst, self._level + (now - self._seen) * self._rate)
            self._seen = now
        missing = min(n, self._burst) - self._level
        if missing > 0:
            return missing / self._rate + ROUNDING_S
        self._level -= n
        return 0.0


class Buckets:
    """A bucket for each address or user, as many as fit: whoever was quiet for longest begins anew with a full one."""

    __slots__ = ("_buckets", "_burst", "_keys_max", "_rate")

    def __init__(self, rate: float, burst: float, keys_max: int = KEYS_MAX) -> None:
        self._rate = rate
        self._burst = burst
        self._keys_max = keys_max
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, n: float, now: float) -> float:
        """Take `n` from the bucket of `key`; see Bucket.take."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._keys_max:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = Bucket(self._rate, self._burst)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(n, now)
