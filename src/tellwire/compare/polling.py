"""Readers that ask again and again: short and long polls (spec, section 8.3)."""

from __future__ import annotations

import asyncio

import msgspec

from tellwire.compare.failures import Unmeasured
from tellwire.compare.http_connection import HttpConnection
from tellwire.compare.reader import Reader, Take
from tellwire.compare.site import Site

WAIT_S = 25
"""How long a long poll waits, as the clients have it."""
PAGE_MESSAGES = 1000
HASTY_S = 1.0
"""An empty answer to a long poll that comes sooner is none to be asked for again at once, as the clients have it."""


class TextMessage(msgspec.Struct):
    """What is read of a message."""

    data: str = ""
    seq: int = 0
    type: str = "message"


class _Page(msgspec.Struct):
    cursor: str
    messages: list[TextMessage] = []


_page = msgspec.json.Decoder(_Page).decode


class PollReader(Reader):
    """Asks every `poll_s` seconds, on a schedule of its own."""

    wait_s = 0

    def __init__(self, site: Site, channel: str, take: Take, *, poll_s: float = 1.0) -> None:
        super().__init__(site, channel, take, poll_s=poll_s)
        self._connection = HttpConnection(site)
        self._task: asyncio.Task[None] | None = None

    async def open(self, since: str = "") -> None:
        await self._connection.open()
        # A first request without a place is answered at once, with the place to begin at.
        await self._ask(since, 0)
        self._task = asyncio.create_task(self._go_on())

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._connection.abort()

    @property
    def heads(self) -> tuple[int, int]:
        return self._connection.heads_up, self._connection.heads_down

    async def _ask(self, since: str, wait_s: int) -> int:
        query: dict[str, str | int] = {"channel": self.channel, "limit": PAGE_MESSAGES}
        if since:
            query["since"] = since
        if wait_s:
            query["wait"] = wait_s
        answer = await self._connection.ask("/v1/messages", query)
        try:
            page = _page(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise Unmeasured("broken", f"what came is no answer to a poll: {exc}") from exc
        self.cursor = page.cursor
        self.arrivals += bool(page.messages)
        for message in page.messages:
            self.take(message.data)
        return len(page.messages)

    async def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                if not self.wait_s:
                    due += self.poll_s
                    await asyncio.sleep(due - loop.time())
                if not self._connection.is_open:
                    # A server closes a connection that was idle; whoever polls opens another.
                    old, self._connection = self._connection, HttpConnection(self.site)
                    self._connection.heads_up, self._connection.heads_down = old.heads_up, old.heads_down
                    await self._connection.open()
                asked = loop.time()
                count = await self._ask(self.cursor, self.wait_s)
                if self.wait_s and not count and loop.time() - asked < HASTY_S:
                    await asyncio.sleep(HASTY_S)
        except Unmeasured as why:
            self.fail(why)


class LongPollReader(PollReader):
    """Asks, is answered when there is something, and asks again at once."""

    wait_s = WAIT_S
