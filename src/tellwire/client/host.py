"""What transports know of their client, and the client of transports."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tellwire.client.failures import Failure, lost
from tellwire.client.http import Http
from tellwire.client.messages import Page, TransportName
from tellwire.client.outbox import Answer, Outbox
from tellwire.client.place import Place
from tellwire.client.presence import Presence
from tellwire.client.settings import Settings
from tellwire.client.sockets import OpenSocket, Socket
from tellwire.client.subscription import Subscription
from tellwire.client.tokens import Tokens
from tellwire.client.wire import Incoming, Language
from tellwire.message import Gap
from tellwire.protocol.commands import Call, Publish, Send

DEAD_AFTER = 2.5
"""Heartbeats that may be missing before a connection is taken for dead (spec, section 11.1)."""


class GrpcSide(Protocol):
    """Where gRPC is served."""

    async def open_stream(self) -> Socket:
        """Begin a conversation; raises Failure."""

    async def history(self, channel: str, before: str | int | None, limit: int, timeout_s: float) -> Page:
        """Return the newest messages before a place; raises Failure."""


@dataclass(kw_only=True)
class Host:
    """A client, as its transports see it."""

    settings: Settings
    session: str
    tokens: Tokens
    http: Http
    open_socket: OpenSocket
    open_channels: OpenSocket
    outbox: Outbox
    grpc: GrpcSide | None
    readings: Callable[[], Mapping[str, Subscription]]
    """What is to be read now."""
    take_push: Callable[[Incoming, str, Language], None]
    """Takes what is no message, and the epoch it is of."""
    take_gap: Callable[[Gap], None]
    """Takes what a gap means but for messages."""
    is_current: Callable[[Transport], bool]
    heartbeat_s: float
    client: str | None = None
    inbox: Place = field(default_factory=Place)
    """Up to where this client had what was said to it alone."""
    rooms: dict[str, Presence] = field(default_factory=dict)


class Transport(ABC):
    """A way to move the readers' cursors.

    It opens once and is over once; coming back is the connection's business. ``lost`` is done when one that was open is
    over, with the reason.
    """

    name: TransportName
    batches: int

    def __init__(self, host: Host) -> None:
        self.host = host
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self.deadline: asyncio.Timeout | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @abstractmethod
    async def open(self) -> None:
        """Return when everything wanted is being read; raises Failure where that cannot be."""

    def progress(self) -> None:
        """Put off the deadline for opening: much may have to come over a slow line before everything is read."""
        if self.deadline is not None:
            self.deadline.reschedule(asyncio.get_running_loop().time() + self.host.settings.try_timeout_s)

    @abstractmethod
    def sync(self) -> None:
        """Take note that what is wanted has changed."""

    @abstractmethod
    async def publish(self, publishes: Sequence[Publish]) -> list[Answer]:
        """Send them in order; return as many answers. Their data is MessagePack."""

    @abstractmethod
    async def request(self, command: Send | Call, timeout_s: float) -> tuple[Incoming, Language]:
        """Return the reply to a command, whose data is MessagePack; raises Failure."""

    @abstractmethod
    async def present(self, room: Presence, *, is_watched: bool) -> tuple[Incoming | None, Language]:
        """Be in a channel or not, watch it or not; return who is there, None where that was not asked for."""

    async def aclose(self) -> None:
        """End it, and everything that runs for it; may be called twice."""
        self.end(lost("the connection was closed"))
        await stop(*self._tasks)

    def end(self, failure: Failure) -> None:
        """Take note that it is over; the first reason counts."""
        if not self.lost.done():
            self.lost.set_result(failure)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something as long as the transport lives; a failure of it is the transport's end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.end(exc if isinstance(exc, Failure) else lost(f"{type(exc).__name__}: {exc}"))


async def stop(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended; what they raise was told elsewhere."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
