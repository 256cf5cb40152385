"""One reading of one channel."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Literal, Protocol, Self

from tellwire.client.failures import Closed
from tellwire.client.messages import Message
from tellwire.client.place import Place, split
from tellwire.client.settings import Settings
from tellwire.client.wire import Incoming, Language
from tellwire.errors import BadRequest, TellwireError
from tellwire.message import Gap, parse_since
from tellwire.names import Policy

OnGap = Literal["oldest", "newest"]


class Reader(Protocol):
    """What a subscription tells its client."""

    def changed(self) -> None:
        """Tell that it wants to be read, or no longer."""

    def ended(self, subscription: Subscription) -> None:
        """Tell that it is over."""


class Subscription:
    """An async iterator of a channel's messages, each once and in order, whatever becomes of connections.

    Messages wait in a bounded queue for the iterator. When it is full the channel is no longer read, and is read again
    from the same place when there is room: what waits stays in the server's log. Ephemeral messages miss it then.

    Where messages may be missing (spec, section 5) the iterator calls ``on_gap`` before it goes on with what comes
    after; `with_gaps` yields the gaps themselves among the messages.
    """

    def __init__(
        self,
        channel: str,
        reader: Reader,
        settings: Settings,
        *,
        since: str | int | None = None,
        last: int | None = None,
        policy: Policy | None = None,
        on_gap: OnGap | Callable[[Gap], object] | None = None,
        unreliable: bool = False,
    ) -> None:
        if since is not None and last is not None:
            raise BadRequest("since and last exclude each other: give one of them")
        parse_since(since)
        self.channel = channel
        self.policy = policy
        self.unreliable = unreliable
        """Whether messages may be lost on their way, over a wire that loses any."""
        self.on_gap: OnGap = "newest" if on_gap == "newest" else "oldest"
        self.error: TellwireError | None = None
        """Why it ended, where it was not closed."""
        self.place = Place()
        self.is_wanted = True
        self.is_ended = False
        self._since = since
        self._last = last
        self._listener = on_gap if callable(on_gap) else None
        self._reader = reader
        self._settings = settings
        self._queue: deque[tuple[Message | Gap, int]] = deque()
        self._queued_bytes = 0
        self._handed_out: str | None = None
        self._news = asyncio.Event()
        self._begun = asyncio.Event()
        if isinstance(since, str) and "." in since:
            self.place.at(since)

    @property
    def cursor(self) -> str | None:
        """Up to where messages were handed out: to be kept, and given as ``since`` to go on from here another day.

        None before reading began.
        """
        return self._handed_out if self._queue else self.place.cursor

    async def ready(self) -> None:
        """Wait until the channel is being read; raises why it cannot be."""
        await self._begun.wait()
        if self.error is not None:
            raise self.error
        if self.is_ended:
            raise Closed(f"{self.channel}: the subscription was closed")

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        while True:
            item = await self._next()
            if item is None:
                raise StopAsyncIteration
            if isinstance(item, Message):
                return item

    async def with_gaps(self) -> AsyncGenerator[Message | Gap]:
        """Yield messages, and gaps in their places among them."""
        while (item := await self._next()) is not None:
            yield item

    async def take(self) -> list[Message]:
        """Return all messages that wait, one at least; none when it is over."""
        async for first in self:
            taken = [first]
            # A gap is told in its place: by the next call.
            while self._queue and isinstance(self._queue[0][0], Message):
                item = self._pop()
                assert isinstance(item, Message)
                taken.append(item)
            return taken
        return []

    async def _next(self) -> Message | Gap | None:
        while not self._queue:
            if self.error is not None:
                raise self.error
            if self.is_ended:
                return None
            self._news.clear()
            await self._news.wait()
        return self._pop()

    def _pop(self) -> Message | Gap:
        item, size = self._queue.popleft()
        self._queued_bytes -= size
        if isinstance(item, Gap):
            if item.reason == "epoch":
                self._handed_out = item.to
        elif item.position is not None:
            self._handed_out = item.position
        bounds = self._settings
        has_room = (
            len(self._queue) <= bounds.queue_max_messages // 2 and self._queued_bytes <= bounds.queue_max_bytes // 2
        )
        if has_room and not self.is_wanted and not self.is_ended:
            self.is_wanted = True
            self._reader.changed()
        if isinstance(item, Gap) and self._listener is not None:
            self._listener(item)
        return item

    def close(self) -> None:
        """Read no more; what waits is still handed out."""
        self.end()

    async def aclose(self) -> None:
        """Read no more; may be called twice."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # What follows is for the transports.

    @property
    def wish(self) -> dict[str, Any]:
        """Where a reading of this channel alone is to begin."""
        if self.place.cursor is not None:
            return {"since": self.place.cursor}
        return {"since": self._since} if self._last is None else {"last": self._last}

    @property
    def begins_now(self) -> bool:
        """Whether it is to begin with what comes next."""
        return self.place.cursor is None and self._last is None and self._since in (None, "now")

    def feed(self, push: Incoming, epoch: str, language: Language, *, is_current: bool) -> None:
        """Take a message; `is_current` tells whether it came over the connection in use, not one that comes or goes."""
        if not self.is_wanted:
            return
        before = self.place.cursor
        if not push.seq:
            if not is_current:
                return
        elif not self.place.take(epoch, push.seq):
            return
        self._put(language.message(push, epoch), len(push.data) if push.data else 0, before)
        bounds = self._settings
        if len(self._queue) >= bounds.queue_max_messages or self._queued_bytes >= bounds.queue_max_bytes:
            self.is_wanted = False
            self._reader.changed()

    def tell(self, gap: Gap) -> None:
        """Take a gap, which may be of other channels, or known already."""
        before = self.place.cursor
        if self.channel in gap.channels and not self.is_ended and self.place.gap(gap):
            self._put(gap, 0, before)

    def _put(self, item: Message | Gap, size: int, before: str | None) -> None:
        if not self._queue:
            self._handed_out = before if before is not None else _before(item)
        self._queue.append((item, size))
        self._queued_bytes += size
        self._news.set()

    def began(self) -> None:
        """Take note that it is being read."""
        self._begun.set()

    def end(self, error: TellwireError | None = None) -> None:
        """End it, with an error where there is one; may be called twice."""
        if self.is_ended:
            return
        self.is_ended = True
        self.is_wanted = False
        self.error = error
        self._news.set()
        self._begun.set()
        self._reader.ended(self)


def _before(item: Message | Gap) -> str | None:
    """Return a place from which `item` comes again, for a reading that had no place before."""
    if isinstance(item, Gap):
        return item.from_
    place = split(item.position or "")
    return None if place is None else f"{place.epoch}.{place.seq - 1}"
