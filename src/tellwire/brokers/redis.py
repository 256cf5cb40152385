"""The log in a Redis that several nodes share.

An append is one script; what it appends is announced to the nodes that follow the channel. A node has one connection,
on which Redis' answers and announcements come in the order in which they happened. So whatever answer says that the
log had come to a place, all that was announced up to there was delivered before: that is what ``head`` stands on, and
a channel is announced to just those who follow it. After a lost connection what was missed is read from the streams
before anything else happens.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from tellwire.brokers.base import Broker, Feed, Slice
from tellwire.brokers.redis_log import RedisLog
from tellwire.brokers.redis_messages import announcement, encode, place, weigh
from tellwire.brokers.redis_scripts import APPEND
from tellwire.brokers.redis_session import Again, Command
from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import Conflict, Unavailable
from tellwire.message import Appended, Draft, Position
from tellwire.names import Namespaces

_TICK_S = 1.0
"""Seconds between looks at where the log is, on a node that hears of no append."""


class RedisBroker(Broker):
    """Logs in Redis, shared by every node that has the same URL.

    Args:
        place: Where Redis is, and what the log is called.
        namespaces: Bounds of every namespace; the same on every node.
        dedupe_window_s: Seconds for which a publisher's id is remembered.
        queue_max_bytes: Bytes of appends that may wait for Redis; a further one raises Unavailable.
        clock: Milliseconds since 1970; None means Redis' own clock, the same for all nodes.
        shard: Which of the place's shards this one is, from 0.
    """

    def __init__(
        self,
        place: RedisPlace,
        namespaces: Namespaces | None = None,
        *,
        dedupe_window_s: float = 300.0,
        queue_max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], int] | None = None,
        shard: int = 0,
    ) -> None:
        self.place = place.shard(shard)
        self._shard = shard
        self.namespaces = namespaces or Namespaces()
        self.head = Position("", 0)
        self._window_ms = int(dedupe_window_s * 1000)
        self._clock = clock
        self._origin = secrets.token_hex(6)
        self._appends = 0
        self._is_open = False
        self._log = RedisLog(self.place, self.namespaces, self._origin, queue_max_bytes, clock, self._moved)
        self._closing: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, namespaces: Namespaces, dedupe_window_s: float) -> Broker:
        """Make one for ``redis://``, ``redis+sentinel://`` or ``redis+cluster://``, or with TLS (see `RedisPlace`)."""
        place = RedisPlace.parse(url)
        if place.shards == 1:
            return cls(place, namespaces, dedupe_window_s=dedupe_window_s)
        from tellwire.brokers.redis_shards import RedisShards

        return RedisShards(place, namespaces, dedupe_window_s=dedupe_window_s)

    async def open(self, feed: Feed) -> None:
        if self._log.feed is not None or self._closing is not None:
            raise Unavailable("this broker was opened before; make another one")
        self._log.feed = feed
        await self._log.start()
        self._is_open = True
        self._ticker = asyncio.get_running_loop().create_task(self._tick())

    async def append(self, draft: Draft) -> Appended:
        if not self._is_open or self._closing is not None:
            raise Unavailable("the broker is closed; nothing can be published")
        return await (self._announce(draft) if draft.ephemeral else self._append(draft))

    def _announce(self, draft: Draft) -> asyncio.Future[Appended]:
        log = self._log
        now = self._clock() if self._clock else log.server_ms(asyncio.get_running_loop().time())
        payload = announcement(draft, self._origin, now)

        def take(_: int) -> Appended:
            log.hand_over(place(draft, "", 0, now))
            return Appended(None)

        def make(again: bool) -> Command | None:
            # Nothing tells whether it was announced already, and better not at all than twice.
            return None if again else ("PUBLISH", log.announcements(draft.channel), payload)

        return log.begin(make, take, len(payload))

    def _append(self, draft: Draft) -> asyncio.Future[Appended]:
        log = self._log
        self._appends += 1
        token = f"{self._origin}{self._appends:x}"
        settings = self.namespaces.of(draft.channel)
        body, size = encode(draft), weigh(draft)
        window = str(self._window_ms) if draft.id is not None and self._window_ms else ""
        deadline = log.server_ms(asyncio.get_running_loop().time() + self.place.timeout_s)
        now = "" if self._clock is None else str(self._clock())
        first_sent_at = Position("", 0)

        def make(again: bool) -> Command:
            nonlocal first_sent_at
            if not again:
                first_sent_at = self.head
            # In another log it cannot be, unless that has grown out of this one.
            since = str(first_sent_at.seq if first_sent_at.epoch == self.head.epoch else 0) if again else ""
            return (
                "EVALSHA", APPEND.sha, 3, log.key("log"), log.key(f"s:{draft.channel}"),
                log.key(f"i:{draft.id}@{draft.channel}"), log.prefix, self.head.epoch, draft.channel, token, since,
                deadline, now, window, "" if draft.expect is None else str(draft.expect), body, size, settings.name,
                settings.history_messages, int(settings.history_age_s * 1000), settings.history_bytes,
                log.announcements(draft.channel), self._shard, self.place.shards,
            )  # fmt: skip

        return log.begin(make, partial(self._appended, draft), len(draft.data) + 2 * len(draft.channel))

    def _appended(self, draft: Draft, reply: list[bytes]) -> Appended:
        status, seq = reply[0], int(reply[1])
        epoch = self.head.epoch
        if status == b"ok":
            message = place(draft, epoch, seq, int(reply[2]))
            self._log.deliver(message)
            return Appended(Position(epoch, seq))
        if status == b"epoch":
            raise Again("the log was lost or replaced")
        if status == b"duplicate":
            self._log.reach(seq)
            return Appended(Position(epoch, seq), duplicate=True)
        self._log.reach(seq)
        if status == b"conflict":
            newest = Position(epoch, int(reply[2]))
            raise Conflict(f"{draft.channel} is at {newest}, not at {draft.expect} as expected", newest)
        if status == b"late":
            self._log.set_clock(int(reply[2]))
            raise Unavailable(f"{self.place} was too slow, so this was not published; try again")
        raise Unavailable(
            "the connection was lost while this was published, and so much came after it that nobody knows whether "
            "it is in the log; try again with an id"
        )

    async def read(
        self, channels: Collection[str], after: Position | None, limit_bytes: int, limit: int | None = None
    ) -> Slice:
        names = tuple(channels)
        return await self._begin_read(names, after, limit_bytes, limit, False)

    async def read_back(self, channels: Collection[str], before: Position | None, limit: int) -> Slice:
        return await self._begin_read(tuple(channels), before, 1 << 50, limit, True)

    def _begin_read(
        self, names: tuple[str, ...], at: Position | None, limit_bytes: int, limit: int | None, back: bool
    ) -> asyncio.Future[Slice]:
        if not self._is_open or self._closing is not None:
            raise Unavailable("the broker is closed; nothing can be read")
        command = self._log.reading(names, at, limit_bytes, limit, back=back)

        def take(reply: list[Any]) -> Slice:
            slice_ = self._log.had(names, at, reply, back=back)
            self._log.reach(int(reply[1]))
            return slice_

        return self._log.begin(lambda again: command, take, sum(map(len, names)))

    async def follow(self, channel: str) -> None:
        if not self._is_open or self._closing is not None:
            raise Unavailable("the broker is closed; nothing can be followed")
        log = self._log
        count = log.followed[channel] = log.followed.get(channel, 0) + 1
        if count == 1:
            log.subscribe(channel)
        if channel in log.seen:
            return
        try:
            await log.begin(lambda again: log.looking, partial(log.looked, channel))
        except BaseException:
            self._unfollow(channel)
            raise

    def look(self, to: int = 0) -> asyncio.Future[None]:
        """Begin to find out how far the log is; with `to`, have it come so far at least, so that it is complete there.

        ``head`` is there once it is done; raises Unavailable.
        """
        log = self._log
        return log.begin(lambda again: log.advancing(to) if to else log.looking, partial(log.looked, None))

    async def unfollow(self, channel: str) -> None:
        self._unfollow(channel)

    def _unfollow(self, channel: str) -> None:
        log = self._log
        count = log.followed.get(channel, 0) - 1
        if count > 0:
            log.followed[channel] = count
        elif count == 0:
            del log.followed[channel]
            log.unsubscribe(channel)

    def figures(self) -> dict[str, float]:
        return {
            "queue_bytes": self._log.queued_bytes,
            "followed_channels": len(self._log.followed),
            "reconnects": self._log.reconnects,
            "connected": float(self._log.ready is not None),
        }

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        await self._log.stop()

    def _moved(self, head: Position) -> None:
        self.head = head

    async def _tick(self) -> None:
        """Look where the log is, now and then: its end may move, or be lost, in channels that nobody follows here."""
        log = self._log
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self.look()
                await log.begin(lambda again: ("TIME",), log.read_clock)
            except Unavailable:
                continue  # the session says in the server's log what is wrong
