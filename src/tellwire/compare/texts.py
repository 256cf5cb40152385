"""The messages that are published, and when each was due."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tellwire.compare.clock import Clock
from tellwire.compare.publishers import Publisher

_DIGITS = 8


class Texts:
    """Numbers every message, so that whoever gets one knows which it is.

    Latency is counted from when a message was *due*, not from when it was sent: a publisher or a server that falls
    behind shows as latency, and is not left out (coordinated omission).
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
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
        now = self._texts.clock.now()
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
    clock = texts.clock
    begin = clock.now() + 0.01
    late: list[float] = []
    for number in range(count):
        due = begin + number / rate
        await clock.until(due)
        for channel, size in channels:
            publisher.send(channel, texts.make(size, due))
        late.append(clock.now() - due)
    return late
