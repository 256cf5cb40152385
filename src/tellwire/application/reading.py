"""What an application reads: messages, who is where, and a reading that goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec

from tellwire.errors import CloseCode, Unavailable
from tellwire.hub import Hub
from tellwire.message import Gap, Message, Position
from tellwire.names import Policy
from tellwire.node import Local, LocalReading, Node
from tellwire.protocol.commands import OnGap
from tellwire.protocol.data import to_value
from tellwire.protocol.pushes import GapPush, MemberView, PresencePush
from tellwire.subscriber import Subscriber

TURN_MESSAGES = 64
"""Messages that are given without a pause; then the rest of the program has a turn."""

_ENDS = (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART)
"""What a reading is closed with when the node stops; anything else is a failure."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message as a reader gets it.

    ``data`` is a Python value, in which bytes are bytes. ``time`` is in milliseconds since 1970. Ephemeral messages
    have no ``position``, and 0 as ``seq``.
    """

    channel: str
    seq: int
    position: str | None
    id: str
    time: int
    event: str
    data: Any
    key: str | None

    @classmethod
    def of(cls, message: Message, epoch: str) -> Received:
        """Make what a reader gets out of a message of the log that has this epoch."""
        return cls(
            message.channel,
            message.seq,
            str(Position(epoch, message.seq)) if message.seq else None,
            message.id,
            message.time,
            message.event,
            to_value(message.data, packed=message.packed),
            message.key,
        )


@dataclass(frozen=True, slots=True)
class History:
    """A part of the log: messages, the ``cursor`` after them, and the gap before them if there is one."""

    messages: tuple[Received, ...]
    cursor: str
    gap: Gap | None


@dataclass(frozen=True, slots=True)
class Occupant:
    """Somebody who is in a channel."""

    client: str
    user: str | None
    info: Any
    state: Any


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Who is in a channel; ``members`` is None where there are more than its namespace lists."""

    members: tuple[Occupant, ...] | None
    clients: int
    users: int

    @classmethod
    def of(cls, push: PresencePush) -> Occupancy:
        """Read what a client would have been told."""
        members = None if push.members is None else tuple(map(_occupant, push.members))
        return cls(members, push.clients, push.users)


def _occupant(view: MemberView) -> Occupant:
    info, state = (
        None if isinstance(part, msgspec.UnsetType) else to_value(bytes(part), packed=False)
        for part in (view.info, view.state)
    )
    return Occupant(view.client, view.user, info, state)


class Subscription:
    """A reading that goes on: an async iterator of messages, and of gaps where some may be missing.

    It begins where ``async with`` is entered, or with the first message that is asked for. Nothing is queued for a
    reader that is slow: it is a cursor in the log, and reads on from there. A gap comes where the log no longer reaches
    back to it, or was lost.

    The iteration ends when the node stops. It raises Unavailable where the log cannot be read; another subscription
    can go on from `cursor`. Leaving ``async with``, `aclose`, or dropping the iterator ends it. Cancelling a wait for
    the next message loses none.
    """

    def __init__(
        self,
        find_node: Callable[[], Node],
        channels: tuple[str, ...],
        since: str | int,
        last: int | None,
        policy: Policy,
        on_gap: OnGap,
    ) -> None:
        self._find_node = find_node
        self._channels = channels
        self._since = since
        self._last = last
        self._policy = policy
        self._on_gap: OnGap = on_gap
        self._woken = asyncio.Event()
        # Neither knows this object: once nobody holds it, it goes, and takes its place in the hub with it.
        self._reading = LocalReading(self._woken.set)
        self._held: tuple[asyncio.AbstractEventLoop, Hub, Subscriber] | None = None
        self._epoch = ""
        self._turn = 0
        self._begun = False
        self._done = False
        self.cursor: str | None = None
        """What has been given so far, as a cursor to go on from; None before it begins."""

    async def _begin(self) -> None:
        if self._begun:
            raise RuntimeError("this subscription is being begun by another task; each task needs one of its own")
        node = self._find_node()
        wanted = node.reading.wanted(self._channels, self._policy)
        since = None if self._last is not None else self._since
        self._begun = True
        try:
            placement = await node.reading.place(wanted, since, self._last, self._on_gap)
        except BaseException:
            self._begun = False
            raise
        if self._done or not node.ready:
            node.hub.let_go(placement.subscriptions)
            self._done = True
            return
        reading = self._reading
        subscriber = reading.subscriber = Subscriber(node.hub, reading, reading.encoding, Local())
        self._held = (asyncio.get_running_loop(), node.hub, subscriber)
        self.cursor = str(placement.cursor)
        self._epoch = placement.cursor.epoch
        if placement.gap is not None:
            reading.write(GapPush.of(placement.gap))
        node.hub.enter(subscriber, beats=False)  # so that it hears of a log that was lost, and of the end
        node.hub.join(subscriber, placement)

    async def __anext__(self) -> Received | Gap:
        if self._held is None and not self._done:
            await self._begin()
        self._turn += 1
        if self._turn % TURN_MESSAGES == 0:
            await asyncio.sleep(0)
        while not self._done:
            item = self._reading.take()
            if item is not None:
                return self._give(item)
            if self._reading.closed is not None:
                code, reason = self._reading.closed
                await self.aclose()
                if code not in _ENDS:
                    raise Unavailable(f"the subscription ended: {reason}")
                break
            self._woken.clear()
            await self._woken.wait()
        raise StopAsyncIteration

    def _give(self, item: Message | GapPush) -> Received | Gap:
        if isinstance(item, Message):
            received = Received.of(item, self._epoch)
            self.cursor = received.position or self.cursor
            return received
        position = Position.parse(item.to)
        if item.reason == "epoch":
            self._epoch = position.epoch
            self.cursor = item.to
        return Gap(item.from_, item.to, item.reason, tuple(item.channels))

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        if self._held is None and not self._done:
            await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the reading; may be called twice."""
        self._done = True
        self._woken.set()
        held, self._held = self._held, None
        if held is not None:
            _, hub, subscriber = held
            hub.leave(subscriber)

    def __del__(self) -> None:
        # Whoever breaks out of `async for` leaves it without a word. This may be any thread.
        if self._held is not None:
            loop, hub, subscriber = self._held
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the hub with it
                loop.call_soon_threadsafe(hub.leave, subscriber)
