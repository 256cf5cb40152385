"""The messages that are published, and when each was due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tellwire.compare.publishers import Publisher

_DIGITS = 8

COARSE_S = 0.03
"""How much of a wait is left to a thread that sleeps, which cannot be interrupted."""


class Texts:
    """Numbers every message, so that whoever gets one knows which it is.

    Latency is counted from when a message was *due*, not from when it was sent: a publisher or a server that falls
    behind shows as latency, and is not left out (coordinated omission).
    """

    def __init__(self) -> None:
        self.due: list[float] = []

    def make(self, size: int, due: float) -> str:
        """Return the next text, which has `size` bytes and is due then."""
        text = f"{len(self.due):0{_DIGITS}d}".ljust(size, "x")
        self.due.append(due)
        return text

    @staticmethod
    def number(text: str) -> int:
        """Return which message a text is; raises ValueError for a foreign one."""
        return int(text[:_DIGITS])


class Inbox:
    """What one reader gets: how late each message came, and whether any is missing or came twice."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._from = len(texts.due)
        self._wanted = 0
        self._complete: asyncio.Event = asyncio.Event()
        self.latencies_s: list[float] = []
        self.numbers: list[int] = []

    def take(self, text: str) -> None:
        """Take notice of a message."""
        now = time.perf_counter()
        try:
            number = self._texts.number(text)
        except ValueError:
            return  # somebody else publishes here too
        if number < self._from:
            return  # of an earlier measurement
        self.latencies_s.append(now - self._texts.due[number])
        self.numbers.append(number)
        if len(self.numbers) >= self._wanted > 0:
            self._complete.set()

    async def have(self, count: int) -> None:
        """Wait until so many have come."""
        self._wanted = count
        if len(self.numbers) < count:
            self._complete.clear()
            await self._complete.wait()

    @property
    def is_in_order(self) -> bool:
        """Whether nothing came twice or too early."""
        return all(before < after for before, after in zip(self.numbers, self.numbers[1:], strict=False))


async def publish_paced(
    publisher: Publisher, texts: Texts, channels: Sequence[tuple[str, int]], rate: float, count: int
) -> list[float]:
    """Publish `count` messages to each channel at a steady rate; return how late each was sent.

    Args:
        publisher: Over which.
        texts: Numbers them.
        channels: Names, each with the size of its messages.
        rate: How many a second, to each channel.
        count: How many in all, to each channel.
    """
    begin = time.perf_counter() + 0.01
    late: list[float] = []
    for number in range(count):
        due = begin + number / rate
        await _until(due)
        for channel, size in channels:
            publisher.send(channel, texts.make(size, due))
        late.append(time.perf_counter() - due)
    return late


async def _until(due: float) -> None:
    """Wait until then, and not for less.

    An event loop's timers are good to a millisecond, and uvloop's may come too early: more than most transports take.
    """
    wait_s = due - time.perf_counter()
    if wait_s > 2 * COARSE_S:
        await asyncio.sleep(wait_s - COARSE_S)
        wait_s = due - time.perf_counter()
    if wait_s > 0:
        await asyncio.to_thread(time.sleep, wait_s)
