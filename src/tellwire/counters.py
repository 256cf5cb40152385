"""What a node counts of itself: plain numbers, made where something happens and read by whoever shows them.

Nothing here knows of channels or users: every key comes from a table of our own (transports, codes, names of commands,
limits and hooks), so that what is kept does not grow with what is served. Counted by the one thread of the loop.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Sequence
from time import perf_counter

SECONDS = (0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of buckets for durations: from a publish in memory to one that waits for a broker."""

MESSAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
"""Upper bounds of buckets for how many messages went out together."""

RATES_OVER_S = 10.0
"""Seconds over which rates are told."""

_SAMPLE_EVERY_S = 1.0


class Histogram:
    """How often values fell up to each bound (the last count is of those beyond), and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)


class HookCounter:
    """How often one hook of the application was asked, how often that failed, and how long it took in seconds."""

    __slots__ = ("failures", "seconds")

    def __init__(self) -> None:
        self.failures = 0
        self.seconds = Histogram()

    @property
    def calls(self) -> int:
        """How often the hook was asked, with or without success."""
        return self.seconds.count


class Rates:
    """How fast some totals grow, over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, int]]] = deque()

    def sample(self, now: float, totals: dict[str, int]) -> None:
        """Keep the totals of a moment, in seconds of a steady clock."""
        samples = self._samples
        samples.append((now, totals))
        while len(samples) > 2 and samples[1][0] <= now - RATES_OVER_S:
            samples.popleft()

    def is_due(self, now: float) -> bool:
        """Tell whether the newest sample is old enough for another."""
        return not self._samples or now - self._samples[-1][0] >= _SAMPLE_EVERY_S

    def per_second(self) -> dict[str, float]:
        """Return how much each total grew in a second; nothing while there is nothing to compare."""
        if len(self._samples) < 2:
            return {}
        (begin, before), (end, after) = self._samples[0], self._samples[-1]
        return {name: round((after[name] - before[name]) / (end - begin), 3) for name in after}


class Counters:
    """Everything that one node counts; each total only ever grows, but ``connections``, which are those open now."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.connections: defaultdict[str, int] = defaultdict(int)  # open now, by transport
        self.connections_opened: defaultdict[str, int] = defaultdict(int)  # by transport
        self.closes: defaultdict[int, int] = defaultdict(int)  # those that the server closed, by close code
        self.commands: defaultdict[str, int] = defaultdict(int)  # by type
        self.rejects: defaultdict[str, int] = defaultdict(int)  # errors sent, by code
        self.limits: defaultdict[str, int] = defaultdict(int)  # how often a bound was hit, by its setting's name
        self.gaps: defaultdict[str, int] = defaultdict(int)  # told to readers, by reason
        self.published_bytes = 0  # of data
        self.duplicates = 0
        self.publish_s = Histogram()  # from the node's begin to the acknowledgement
        self.delivered_messages = 0  # each reader counts
        self.delivered_bytes = 0  # of frames, before a door adds its own
        self.flush_messages = Histogram(MESSAGES)
        self.deliver_lag_s = Histogram()  # from a message's time to its flush; the oldest of each flush
        self.fell_behind = 0  # times that a reader's socket was full in the flush
        self.presence_enters = 0
        self.presence_leaves = 0
        self.presence_sweeps = 0  # members whose lease ran out
        self.hooks: defaultdict[str, HookCounter] = defaultdict(HookCounter)  # by the hook's name
        self._rates = Rates()

    @property
    def published_messages(self) -> int:
        """How many publishes were acknowledged, without duplicates."""
        return self.publish_s.count - self.duplicates

    # Connections

    def opened(self, transport: str) -> None:
        """Count a connection that came."""
        self.connections[transport] += 1
        self.connections_opened[transport] += 1

    def closed(self, transport: str) -> None:
        """Count a connection that went."""
        self.connections[transport] -= 1

    # What runs for every message or batch: no calls but these, and a few additions in each

    def published(self, begin_s: float, size: int, *, duplicate: bool) -> None:
        """Count an acknowledged publish with `size` bytes of data, begun at `begin_s` of `time.perf_counter`."""
        seconds = perf_counter() - begin_s
        histogram = self.publish_s  # observed here and not by its method: a call is a tenth of all this
        histogram.counts[bisect_left(SECONDS, seconds)] += 1
        histogram.total += seconds
        if duplicate:
            self.duplicates += 1
        else:
            self.published_bytes += size

    def delivered(self, messages: int, size: int, readers: int = 1) -> None:
        """Count a batch of `messages` with `size` bytes, written to so many readers."""
        self.delivered_messages += messages * readers
        self.delivered_bytes += size * readers

    def flushed(self, messages: int, oldest_ms: int) -> None:
        """Count a flush; `oldest_ms` is the time of its first message, by the clock of the node that appended it."""
        self.flush_messages.observe(messages)
        # Clocks of two nodes may differ: a message from the future has no lag.
        self.deliver_lag_s.observe(max(0.0, time.time() - oldest_ms / 1000))

    # Limits and hooks

    def limit_hit(self, name: str) -> None:
        """Count that something went over a bound, by its setting's name."""
        self.limits[name] += 1

    def hooked(self, name: str, begin_s: float, *, failed: bool) -> None:
        """Count a call of the application's hook `name`, begun at `begin_s` of `time.perf_counter`."""
        hook = self.hooks[name]
        hook.seconds.observe(perf_counter() - begin_s)
        if failed:
            hook.failures += 1

    # Rates

    def sample(self, now: float) -> None:
        """Note the totals for `rates`, at most once a second; `now` is by a steady clock."""
        if self._rates.is_due(now):
            self._rates.sample(
                now,
                {
                    "published": self.published_messages,
                    "published_bytes": self.published_bytes,
                    "delivered": self.delivered_messages,
                    "delivered_bytes": self.delivered_bytes,
                    "connections": sum(self.connections_opened.values()),
                    "rejects": sum(self.rejects.values()),
                },
            )

    def rates(self) -> dict[str, float]:
        """Return what was published, delivered and so on in a second, over the last ten; at first nothing."""
        return self._rates.per_second()
