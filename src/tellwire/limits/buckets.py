"""How often: token buckets, which are told what time it is and have no timer."""

from __future__ import annotations

from collections import OrderedDict

KEYS_MAX = 20_000
"""Buckets that are kept for keys; about 5 MB."""

ROUNDING_S = 1e-6
"""Added to a wait, so that floating point does not make it too short by its last bit."""


class Bucket:
    """Lets through `rate` a second, and up to `burst` at once after a quiet time."""

    __slots__ = ("_burst", "_each_s", "_full_at", "_slack_s")

    def __init__(self, rate: float, burst: float) -> None:
        self._burst = burst
        self._each_s = 1 / rate
        self._slack_s = max(0.0, burst - 1) / rate
        # When it is full again; what is missing until then follows from the time. With the level and when that was
        # worked out instead, a take cost three times as much, and every command makes one.
        self._full_at = float("-inf")

    def take(self, n: float, now: float) -> float:
        """Take `n`; return 0.0, or the seconds after which this would have been let through, having taken nothing.

        `now` is a monotonic clock's. More than `burst` at a time is let through where the bucket is full, and paid off
        afterwards; else it never could be.
        """
        full_at = self._full_at
        if full_at < now:
            full_at = now
        slack_s = self._slack_s if n == 1 else max(0.0, self._burst - n) * self._each_s
        wait_s = full_at - now - slack_s
        if wait_s > 0:
            return wait_s + ROUNDING_S
        self._full_at = full_at + n * self._each_s
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
