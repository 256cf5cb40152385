"""Things that happened, kept for whoever iterates over them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, Self, TypeVar

from tellwire.errors import TellwireError

T = TypeVar("T")

FEED_MAX_ITEMS = 1000


class Feed(Generic[T]):
    """An async iterator over what is put into it; the oldest is dropped where nobody keeps up.

    ``dropped`` counts those.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._items: deque[T] = deque()
        self._news = asyncio.Event()
        self._is_ended = False
        self._error: TellwireError | None = None

    @property
    def is_ended(self) -> bool:
        """Whether nothing comes any more."""
        return self._is_ended

    def put(self, item: T) -> None:
        """Add something at the end."""
        if self._is_ended:
            return
        if len(self._items) >= FEED_MAX_ITEMS:
            self._items.popleft()
            self.dropped += 1
        self._items.append(item)
        self._news.set()

    def end(self, error: TellwireError | None = None) -> None:
        """End it; what is in it is still handed out, and then `error` is raised."""
        if not self._is_ended:
            self._is_ended = True
            self._error = error
            self._news.set()

    async def take(self) -> list[T]:
        """Return all that waits, one thing at least; nothing when it is over."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                return []
            self._news.clear()
            await self._news.wait()
        taken = list(self._items)
        self._items.clear()
        return taken

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._items.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()
