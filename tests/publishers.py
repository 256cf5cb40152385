"""Publishers that do not give up while a log's servers fail, and what has to be true of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TypeVar

from tellwire.brokers.base import Broker
from tellwire.errors import Unavailable
from tellwire.message import Draft, Message, Position
from tellwire.testing.harness import Collected, Opened, opened, placed, read_to_head

T = TypeVar("T")

CHANNELS = ("a", "b", "c")


async def insist(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try something until it is no longer Unavailable."""
    while True:
        try:
            return await attempt()
        except Unavailable:
            await asyncio.sleep(0)


async def hear(broker: Broker) -> None:
    """Wait until a node was told of all that was appended before: its answers and announcements come in order."""
    await insist(lambda: broker.read(["nothing"], None, 1))


async def say(broker: Broker, draft: Draft) -> Position:
    """Append a draft that has an id until it is acknowledged; return its place."""
    assert draft.id is not None
    return placed(await insist(lambda: broker.append(draft)))


@asynccontextmanager
async def opened_at_last(make: Callable[[], Broker], *channels: str) -> AsyncIterator[Opened]:
    """Open a broker, that waits for its server only for a moment, as often as that takes on a busy machine."""
    async with AsyncExitStack() as stack:
        yield await insist(lambda: stack.enter_async_context(opened(make(), *channels)))


def told(feed: Collected) -> list[Message]:
    """Return what a feed brought, without the notes of how far the log is."""
    return [message for message in feed.messages if message.channel]


class Watched(Collected):
    """A feed that says when the log was lost."""

    def __init__(self) -> None:
        super().__init__()
        self.was_reset = asyncio.Event()

    def reset(self, head: Position) -> None:
        super().reset(head)
        self.was_reset.set()


class Publishers:
    """Three on each node, that publish until each of their messages is acknowledged."""

    def __init__(self, nodes: list[Opened], each: int) -> None:
        self.acknowledged: dict[str, Position] = {}
        self.twice = 0
        self._wanted = each * 3 * len(nodes)
        self._progress = asyncio.Event()
        self._may_begin = asyncio.Event()
        self._may_begin.set()
        self._under_way = 0
        self.tasks = [
            asyncio.create_task(self._publish(node, f"{index}-{channel}", channel, each))
            for index, node in enumerate(nodes)
            for channel in CHANNELS
        ]

    async def _publish(self, node: Opened, name: str, channel: str, count: int) -> None:
        for number in range(count):
            draft = Draft(channel, f"{name}-{number}".encode(), id=f"{name}-{number}")
            await self._may_begin.wait()
            self._under_way += 1
            appended = await insist(partial(node.broker.append, draft))
            self.acknowledged[f"{name}-{number}"] = placed(appended)
            self.twice += appended.duplicate
            self._under_way -= 1
            self._progress.set()

    async def until(self, part: float) -> None:
        """Wait until so much of it is done."""
        await self._until(lambda: len(self.acknowledged) >= self._wanted * part)

    async def hold(self) -> None:
        """Let them begin nothing more, and wait until all that they began is acknowledged."""
        self._may_begin.clear()
        await self._until(lambda: not self._under_way)

    def go_on(self) -> None:
        """Let them begin again."""
        self._may_begin.set()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._progress.clear()
            await self._progress.wait()


async def check(nodes: list[Opened], publishers: Publishers) -> None:
    """Compare what was acknowledged, what every node was told, and what is in the log."""
    await asyncio.gather(*publishers.tasks)
    logs = []
    for broker, feed in nodes:
        newest = max(publishers.acknowledged.values())
        await insist(partial(broker.read, ["nothing"], newest, 1))  # whoever has not heard of it by now, hears
        logs.append((await read_to_head(broker, CHANNELS)).messages)
        assert told(feed) == logs[-1], "every node is told of everything, once and in order"
        assert feed.heads == []
    assert logs.count(logs[0]) == len(logs)
    assert {message.id: message.seq for message in logs[0]} == {
        id_: place.seq for id_, place in publishers.acknowledged.items()
    }
    assert [message.seq for message in logs[0]] == list(range(1, len(logs[0]) + 1))
