"""One URL of the backend: its connections, its queue, its signature and its breaker."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import random
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import httpx

from tellwire import __version__
from tellwire.errors import HookFailed
from tellwire.webhooks.breaker import Breaker, Permit
from tellwire.webhooks.settings import WebhookSettings

_log = logging.getLogger("tellwire.hooks")

ANSWER_MAX_BYTES = 2 * 1024 * 1024
"""Largest answer that is read: as large as a request to a node may be by default."""

KEEP_ALIVE_S = 1.0
"""Seconds that an unused connection is kept: shorter than common backends do, lest one is closed as it is used."""

CLIENT_SHARE = 8
"""A client has at most one in this many of the slots, so that whoever gets slow answers waits for them alone."""

WAITING_PER_SLOT = 8
"""How many may wait for each slot; more are turned away at once."""

BACKOFF_FIRST_S = 0.1
"""Seconds before a question is asked again, about; doubled each time."""

_TRY_AGAIN = frozenset({408, 425, 429})
"""Besides 5xx, the statuses by which a server says that it did not deal with a request (RFC 9110, 6585, 8470)."""


class Unreachable(Exception):
    """There was no answer.

    The backend is ``down``, was too ``slow``, is left alone (``open``), or too many wait for it (``busy``). ``sent`` is
    whether the backend may have got the request.
    """

    def __init__(self, why: Literal["down", "slow", "open", "busy"], reason: str, *, sent: bool = True) -> None:
        super().__init__(reason)
        self.why = why
        self.sent = sent


@dataclass(frozen=True)
class Surroundings:
    """The clocks and the chance that webhooks live by; tests bring their own."""

    now: Callable[[], float] = time.time
    """Seconds since 1970."""
    clock: Callable[[], float] = time.monotonic
    """Seconds of a steady clock."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random


class _Lane:
    """One client's share of the slots; kept while it uses any."""

    __slots__ = ("slots", "users", "waiting", "waiting_max")

    def __init__(self, size: int) -> None:
        self.slots = asyncio.Semaphore(size)
        self.waiting_max = size * WAITING_PER_SLOT
        self.users = self.waiting = 0


class Endpoint:
    """Asks one URL, on behalf of one hook. Nothing here is shared with another hook.

    Args:
        hook: The hook's name, for the log.
        url: Where to POST.
        settings: How long, how often, how many at a time.
        around: Clocks and chance.
        tls: For https.
    """

    def __init__(
        self, hook: str, url: str, settings: WebhookSettings, around: Surroundings, tls: ssl.SSLContext | None = None
    ) -> None:
        self.hook = hook
        self.breaker = Breaker(around.clock, around.random)
        self._url = url
        parts = urlsplit(url)
        self._place = f"{parts.scheme}://{parts.netloc}{parts.path}"  # a query may hold a secret
        self._secret = (settings.hook_secret or "").encode()
        self._timeout_s = settings.hook_timeout_s
        self._retries = settings.hook_retries
        self._around = around
        self._tls = tls
        self._transports: list[httpx.AsyncHTTPTransport] = []
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self.concurrency = settings.hook_concurrency
        self._slots = asyncio.Semaphore(settings.hook_concurrency)
        self._waiting = 0
        self._waiting_max = settings.hook_concurrency * WAITING_PER_SLOT
        self._lanes: dict[str | None, _Lane] = {}

    async def ask(self, body: bytes, *, client: str | None = None, repeatable: bool = True) -> tuple[int, bytes]:
        """Return the status and body of an answer; raise Unreachable where none came in time.

        Every question has one Idempotency-Key, however often it is asked. One that is not `repeatable` is asked
        again only if the backend cannot have got it.
        """
        if self.breaker.wait_s() > 0:
            raise self._left_alone()
        key = secrets.token_hex(16)
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        async with self._slot(client, deadline):
            attempt = 0
            while True:
                try:
                    return await self.attempt(body, key, deadline)
                except Unreachable as exc:
                    pause = BACKOFF_FIRST_S * 2**attempt * (0.5 + self._around.random())
                    too_late = asyncio.get_running_loop().time() + pause >= deadline
                    if attempt == self._retries or too_late or self.breaker.is_open or (exc.sent and not repeatable):
                        raise
                attempt += 1
                await self._around.sleep(pause)

    async def attempt(self, body: bytes, key: str, deadline: float | None = None) -> tuple[int, bytes]:
        """Send a request once; raise Unreachable where no answer came, or one that says to try again.

        `deadline` is of the loop's clock; without one there are ``hook_timeout_s``.
        """
        permit = self.breaker.admit()
        if permit is None:
            raise self._left_alone()
        now = asyncio.get_running_loop().time()
        deadline = deadline or now + self._timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                status, answer = await self._post(body, key)
        except httpx.HTTPError as exc:
            sent = not isinstance(exc, httpx.ConnectError)
            raise self._no_answer(permit, f"{type(exc).__name__} {exc}".strip(), sent=sent) from None
        except TimeoutError:
            if deadline - now < self._timeout_s / 2:
                self.breaker.given_up(permit)  # most of its time went by in the queue: not this request's fault
                raise Unreachable("busy", "too little time was left") from None
            raise self._no_answer(permit, f"no answer in {deadline - now:.3g} s", slow=True) from None
        except BaseException:
            self.breaker.given_up(permit)  # who asked hung up, or had a shorter deadline of its own
            raise
        if status >= 500 or status in _TRY_AGAIN:
            raise self._no_answer(permit, f"status {status}")
        if self.breaker.is_open:
            _log.warning("the %s hook at %s answers again", self.hook, self._place)
        self.breaker.succeeded()
        return status, answer

    async def _post(self, body: bytes, key: str) -> tuple[int, bytes]:
        stamp = int(self._around.now())
        request = httpx.Request(
            "POST",
            self._url,
            headers={
                "Content-Type": "application/json",
                "User-Agent": f"tellwire/{__version__}",
                "Idempotency-Key": key,
                "Tellwire-Signature": f"t={stamp},v1={sign(self._secret, stamp, body)}",
            },
            content=body,
        )
        transport = self._idle.pop() if self._idle else self._new_transport()
        try:
            response = await transport.handle_async_request(request)
            try:
                answer = bytearray()
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > ANSWER_MAX_BYTES:
                        raise self.bad(f"answered with more than {ANSWER_MAX_BYTES} bytes")
                return response.status_code, bytes(answer)
            finally:
                await response.aclose()
        finally:
            self._idle.append(transport)

    def _new_transport(self) -> httpx.AsyncHTTPTransport:
        # A transport and not a client: it keeps no cookies, follows no redirects, logs no URLs and minds no proxies.
        # One for each connection, the one used last first: for every request, a pool looks at all it has (httpcore
        # 1.0; with 64 connections that took as long as all the rest).
        transport = httpx.AsyncHTTPTransport(
            verify=self._tls or False,  # False where no URL is https
            limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEP_ALIVE_S),
        )
        self._transports.append(transport)
        return transport

    @asynccontextmanager
    async def _slot(self, client: str | None, deadline: float) -> AsyncIterator[None]:
        """Hold one of the slots, and of the client's share of them."""
        lane = self._lanes.get(client)
        if lane is None:
            lane = self._lanes[client] = _Lane(self._slots_of(client))
        if self._waiting >= self._waiting_max or lane.waiting >= lane.waiting_max:
            self._leave(client, lane)
            raise Unreachable("busy", "too many wait for the application", sent=False)
        lane.users += 1
        self._waiting += 1
        lane.waiting += 1
        try:
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout_at(deadline):
                        await held.enter_async_context(lane.slots)
                        await held.enter_async_context(self._slots)
                except TimeoutError:
                    raise Unreachable("busy", "no slot became free", sent=False) from None
                finally:
                    self._waiting -= 1
                    lane.waiting -= 1
                yield
        finally:
            lane.users -= 1
            self._leave(client, lane)

    def _leave(self, client: str | None, lane: _Lane) -> None:
        if lane.users == 0:
            self._lanes.pop(client, None)

    def _slots_of(self, client: str | None) -> int:
        return self.concurrency if client is None else max(1, self.concurrency // CLIENT_SHARE)

    def _left_alone(self) -> Unreachable:
        return Unreachable("open", "the application did not answer lately, and is left alone for a while", sent=False)

    def _no_answer(self, permit: Permit, reason: str, *, slow: bool = False, sent: bool = True) -> Unreachable:
        was_open = self.breaker.is_open
        self.breaker.failed(permit)
        if self.breaker.is_open and not was_open:
            _log.error("the %s hook at %s gives no answer (%s); it is left alone", self.hook, self._place, reason)
        elif not was_open:
            _log.warning("the %s hook at %s gave no answer: %s", self.hook, self._place, reason)
        return Unreachable("slow" if slow else "down", reason, sent=sent)

    def bad(self, what: str) -> HookFailed:
        """Log what is wrong with an answer; return what the client is told."""
        _log.error("the %s hook at %s %s", self.hook, self._place, what)
        return HookFailed(f"the application's {self.hook} handler failed; the server's log says why")

    async def aclose(self) -> None:
        """Close the connections; may be called twice."""
        for transport in self._transports:
            await transport.aclose()


def sign(secret: bytes, stamp: int, body: bytes) -> str:
    """Return what a request is signed with: HMAC-SHA256 over its time, a dot and its body."""
    return hmac.new(secret, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
