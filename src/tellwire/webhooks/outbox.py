"""What the backend has yet to be told: the connections that ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque

from tellwire.errors import TellwireError
from tellwire.webhooks.endpoint import Endpoint, Surroundings, Unreachable

_log = logging.getLogger("tellwire.hooks")

ATTEMPTS_MAX = 5
"""How often one message is sent. While the breaker is open none is, so an outage uses up few attempts."""

OUTBOX_MAX_BYTES = 8 * 1024 * 1024
"""Memory for what waits; beyond it the oldest are given up."""

ITEM_BYTES = 256
"""What an item counts for besides its body."""

WORKERS_MAX = 8
"""How many are sent at a time, at most."""

BACKOFF_FIRST_S = 1.0
"""Seconds before a message is sent again, about; doubled each time."""

LOG_EVERY_S = 10.0
"""Seconds between log lines of what is given up."""


class Outbox:
    """Delivers each message at least once, with one Idempotency-Key, as long as memory and attempts last.

    Args:
        endpoint: Whom to tell.
        around: Clocks and chance.
    """

    def __init__(self, endpoint: Endpoint, around: Surroundings) -> None:
        self._endpoint = endpoint
        self._around = around
        self._items: deque[bytes] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._closed = False
        self.size = 0
        self._said = 0
        self._said_at: float | None = None
        self.lost = 0
        """Messages that were given up."""

    def put(self, body: bytes) -> None:
        """Send `body` soon; never waits."""
        if self._closed:
            self._lose("the server stops")
            return
        self._items.append(body)
        self.size += len(body) + ITEM_BYTES
        while self.size > OUTBOX_MAX_BYTES:
            self._take()
            self._lose("too many wait")
        if len(self._workers) < min(WORKERS_MAX, self._endpoint.concurrency):
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    def _take(self) -> bytes:
        body = self._items.popleft()
        self.size -= len(body) + ITEM_BYTES
        return body

    async def _work(self) -> None:
        while self._items:
            body = self._take()
            try:
                await self._deliver(body)
            except asyncio.CancelledError:
                self._lose("the server stops")
                raise
            except TellwireError as exc:
                self._lose(str(exc))
            except Exception:
                _log.exception("a worker of the %s hook failed", self._endpoint.hook)

    async def _deliver(self, body: bytes) -> None:
        key = secrets.token_hex(16)
        attempts = 0
        while True:
            while (wait_s := self._endpoint.breaker.wait_s()) > 0:
                await self._around.sleep(wait_s)
            try:
                status, _ = await self._endpoint.attempt(body, key)
            except Unreachable as exc:
                if exc.why == "open":
                    continue  # another worker was let through first
                attempts += 1
                if attempts == ATTEMPTS_MAX:
                    self._lose(str(exc))
                    return
                await self._around.sleep(BACKOFF_FIRST_S * 2 ** (attempts - 1) * (0.5 + self._around.random()))
            else:
                if not 200 <= status < 300:
                    raise self._endpoint.bad(f"answered {status}, where 200 or 204 would do")
                return

    def _lose(self, reason: str) -> None:
        self.lost += 1
        if self._said_at is None or self._around.clock() - self._said_at >= LOG_EVERY_S:
            self._say(reason)

    def _say(self, reason: str) -> None:
        unsaid, self._said, self._said_at = self.lost - self._said, self.lost, self._around.clock()
        if unsaid:
            _log.error("the %s hook was not told of %d connections: %s", self._endpoint.hook, unsaid, reason)

    async def aclose(self, deadline_s: float) -> None:
        """Deliver what waits for at most `deadline_s`, then give up the rest; may be called twice."""
        self._closed = True
        if self._workers:
            await asyncio.wait(self._workers, timeout=deadline_s)
        for worker in list(self._workers):
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        while self._items:
            self._take()
            self._lose("the server stops")
        self._say("the server stops")
