"""What the contract's tests stand on: a clock, a feed that collects, and a loop to run them."""

from __future__ import annotations

import asyncio
import functools
import warnings
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, ParamSpec, Protocol

from tellwire.brokers.base import Broker
from tellwire.message import Appended, Draft, Gap, Message, Position
from tellwire.names import Namespaces

P = ParamSpec("P")

WATCHDOG_S = 240
"""Seconds after which a test that hangs is given up; no test measures a time."""


class Clock:
    """Milliseconds since 1970 that pass only when a test says so."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += int(seconds * 1000)


class MakeBroker(Protocol):
    """Makes a broker that is not opened yet; what the fixture ``make_broker`` returns."""

    def __call__(
        self,
        namespaces: Namespaces | None = None,
        *,
        dedupe_window_s: float = 300.0,
        clock: Callable[[], int] | None = None,
        store: str = "main",
    ) -> Broker:
        """Make a broker.

        Args:
            namespaces: Bounds of every namespace; None means the defaults.
            dedupe_window_s: Seconds for which a publisher's id is remembered.
            clock: Milliseconds since 1970; None means the machine's.
            store: Names where the log lives. In one test, a durable broker finds under the same name what another one
                left there; a new name is an empty store.
        """


class Collected:
    """A feed that keeps what it is handed."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.heads: list[Position] = []

    def deliver(self, messages: Sequence[Message]) -> None:
        self.messages += messages

    def reset(self, head: Position) -> None:
        self.heads.append(head)

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.messages]


class Opened(NamedTuple):
    """A broker at work, and what it delivered."""

    broker: Broker
    feed: Collected


@asynccontextmanager
async def opened(broker: Broker, *channels: str) -> AsyncIterator[Opened]:
    """Open a broker, follow channels, and close it at the end."""
    feed = Collected()
    try:
        await broker.open(feed)
        for channel in channels:
            await broker.follow(channel)
        yield Opened(broker, feed)
    finally:
        await broker.aclose()


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a plain test of a coroutine function: on uvloop where it is installed, else on asyncio's loop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def watched() -> None:
            async with asyncio.timeout(WATCHDOG_S):
                await test(*args, **kwargs)

        runner = asyncio.Runner(loop_factory=_loop_factory())
        try:
            runner.run(watched())
        finally:
            # uvloop closes no transport that was left open where its warning is an error, and waits for it for ever.
            with warnings.catch_warnings():
                warnings.simplefilter("always", ResourceWarning)
                runner.close()

    return run


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def publish(broker: Broker, channel: str, count: int = 1, *, size: int = 1) -> list[Position]:
    """Append `count` messages of `size` bytes of data, one after the other; return their positions."""
    places: list[Position] = []
    for _ in range(count):
        appended = await broker.append(Draft(channel, b"7" * size))
        places.append(placed(appended))
    return places


def placed(appended: Appended) -> Position:
    """Return the place of a message that is in the log."""
    assert appended.position is not None
    return appended.position


class Pages(NamedTuple):
    """What a reader had, page by page, who read up to the head."""

    pages: list[list[Message]]
    gaps: list[Gap]
    position: Position

    @property
    def messages(self) -> list[Message]:
        return [message for page in self.pages for message in page]

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.messages]


async def read_to_head(
    broker: Broker,
    channels: Collection[str],
    after: Position | None = None,
    *,
    limit_bytes: int = 65_536,
    limit: int | None = None,
) -> Pages:
    """Read from a position until the broker's head is reached, as a reader does that catches up."""
    pages: list[list[Message]] = []
    gaps: list[Gap] = []
    while True:
        head = broker.head
        piece = await broker.read(channels, after, limit_bytes, limit)
        pages.append(piece.messages)
        if piece.gap is not None:
            gaps.append(piece.gap)
        seqs = [message.seq for message in piece.messages]
        assert seqs == sorted(set(seqs)), "a page is in seq order"
        assert all(seq <= piece.position.seq for seq in seqs), "a page's position covers its messages"
        assert piece.position.seq <= broker.head.seq, "a read shows nothing that the feed has not delivered"
        if piece.position == broker.head:
            return Pages(pages, gaps, piece.position)
        assert piece.messages or piece.position >= head, "a page short of the head brings at least one message"
        after = piece.position
