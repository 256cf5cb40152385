"""The log in a stream of NATS JetStream that several nodes share.

JetStream gives every message its place, drops what it has already, and checks conditions. Each node is fed the whole
stream in order and holds what the namespaces keep of it, so it reads from its own memory; an append is done once its
message came back in the feed, where it stands where it stands for every node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from tellwire.brokers.base import Broker, Feed, Slice
from tellwire.brokers.nats_log import Append, Ephemeral, NatsLog
from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import Unavailable
from tellwire.message import Appended, Draft, Position
from tellwire.names import Namespaces


class NatsBroker(Broker):
    """Logs in NATS, shared by every node that has the same URL.

    Args:
        place: Where NATS is, and what the log is called.
        namespaces: Bounds of every namespace; the same on every node.
        dedupe_window_s: Seconds for which a publisher's id is remembered.
        queue_max_bytes: Bytes of appends that may wait for NATS; a further one raises Unavailable.
        clock: Milliseconds since 1970; None means JetStream's own clock, the same for all nodes.
        trim_every_s: Seconds between looks at what the stream need not hold any more.
        keep_s: Seconds for which the stream holds what was dropped; None means as long as JetStream knows ids.
    """

    def __init__(
        self,
        place: NatsPlace,
        namespaces: Namespaces | None = None,
        *,
        dedupe_window_s: float = 300.0,
        queue_max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], int] | None = None,
        trim_every_s: float = 10.0,
        keep_s: float | None = None,
    ) -> None:
        self.place = place
        self.namespaces = namespaces or Namespaces()
        self._log = NatsLog(place, self.namespaces, dedupe_window_s, queue_max_bytes, clock, trim_every_s, keep_s)
        self._is_open = False
        self._was_opened = False
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, namespaces: Namespaces, dedupe_window_s: float) -> NatsBroker:
        """Make one for ``nats://`` or ``tls://`` (see `NatsPlace`)."""
        return cls(NatsPlace.parse(url), namespaces, dedupe_window_s=dedupe_window_s)

    @property
    def head(self) -> Position:  # type: ignore[override]
        return self._log.head

    async def open(self, feed: Feed) -> None:
        if self._was_opened or self._closing is not None:
            raise Unavailable("this broker was opened before; make another one")
        self._was_opened = True
        self._log.feed = feed
        await self._log.start()
        self._is_open = True

    async def append(self, draft: Draft) -> Appended:
        self._check_open("published")
        log = self._log
        if draft.ephemeral:
            return await log.begin(Ephemeral(log, draft))
        known = None if draft.id is None else log.known(draft)
        if known is not None and log.oldest is None:
            return Appended(known, duplicate=True)
        return await log.begin(Append(log, draft))

    async def read(
        self, channels: Collection[str], after: Position | None, limit_bytes: int, limit: int | None = None
    ) -> Slice:
        self._check_open("read")
        await self._level_with(after, 0)
        return await self._log.replica.read(channels, after, limit_bytes, limit)

    async def read_back(self, channels: Collection[str], before: Position | None, limit: int) -> Slice:
        self._check_open("read")
        await self._level_with(before, 1)
        return await self._log.replica.read_back(channels, before, limit)

    async def _level_with(self, position: Position | None, beyond: int) -> None:
        """Have this node come as far as the one that a position is from."""
        if position is not None and (position.epoch != self.head.epoch or position.seq > self.head.seq + beyond):
            await self._log.level()

    async def level(self) -> None:
        """Wait until this node was fed all that was acknowledged anywhere before; raises Unavailable."""
        await self._log.level()

    async def follow(self, channel: str) -> None:
        """Nothing to do: every node is fed the whole log."""
        self._check_open("followed")

    async def unfollow(self, channel: str) -> None:
        """Nothing to do."""

    def figures(self) -> dict[str, float]:
        return {
            "queue_bytes": self._log.queued_bytes,
            "reconnects": self._log.reconnects,
            "connected": float(self._log.ready is not None),
            **self._log.replica.figures(),
        }

    def _check_open(self, what: str) -> None:
        if not self._is_open or self._closing is not None:
            raise Unavailable(f"the broker is closed; nothing can be {what}")

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._log.stop())
        await asyncio.shield(self._closing)
