"""Keeps one transport open: tries them in order, comes back when one is lost, and looks out for a better one.

::

    connecting → connected → disconnected → connecting …
    from each of them: failed (the server's answer would be the same again), closed (the application's wish)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tellwire.client import turns
from tellwire.client.backoff import Backoff
from tellwire.client.failures import Failure, as_failure, told
from tellwire.client.host import Host, Transport, stop
from tellwire.client.messages import State, TransportName
from tellwire.client.webrtc import WebRtcTransport
from tellwire.client.websocket import WebSocketTransport
from tellwire.errors import TellwireError


def _grpc(host: Host) -> Transport:
    from tellwire.client.grpc import GrpcTransport  # its library is loaded where it is asked for

    return GrpcTransport(host)


TRANSPORTS: Mapping[TransportName, Callable[[Host], Transport]] = {
    "webrtc": WebRtcTransport,
    "grpc": _grpc,
    "websocket": WebSocketTransport,
    "sse": turns.sse,
    "longpoll": turns.longpoll,
    "poll": turns.poll,
}

LONGEST_UPGRADE_S = 600.0

STEADY_S = 1.0
"""A connection that was there for so long has worked."""

_remembered: dict[str, TransportName] = {}
"""What worked the last time, by server: one process hardly moves to another network."""


def forget() -> None:
    """Forget what worked with which server: the next clients begin with the best of their transports."""
    _remembered.clear()


class Told(Protocol):
    """Who is told of what becomes of the connection."""

    def adopt(self, transport: Transport) -> None:
        """Tell that this one is used from now on."""

    def part(self) -> None:
        """Tell that there is none any more."""

    def change(self, state: State) -> None:
        """Tell of the state."""


class Connection:
    """One client's connection; `run` is its life."""

    def __init__(self, host: Host, order: Sequence[TransportName], told: Told) -> None:
        self.state = State(name="connecting")
        self.current: Transport | None = None
        self._host = host
        self._order = tuple(order)
        self._told = told
        self._backoff = Backoff(host.settings.chance)
        # Those that are being opened.
        self._candidates: set[Transport] = set()
        self._upgrade_s = host.settings.upgrade_after_s
        # How many connections in a row were lost as soon as they were there.
        self._short_lived = 0
        # Whether the token was renewed since a connection worked.
        self._is_renewed = False

    async def run(self) -> None:
        """Connect, and come back whenever the connection is lost; return when that is of no use any more."""
        while True:
            self._change(State(name="connecting"))
            try:
                failure = await self._stay(await self._dial())
                if failure.code == "expired" and self._renew():
                    continue
            except Failure as refused:
                failure = refused
            if failure.is_final:
                self._change(State(name="failed", error=failure.error))
                return
            if failure.code == "expired":
                self._host.tokens.forget()
            retry_in_s = self._backoff.next_ms(failure.retry_ms) / 1000
            self._change(State(name="disconnected", error=failure.error, retry_in_s=retry_in_s))
            await asyncio.sleep(retry_in_s)

    def fail(self, error: TellwireError) -> None:
        """Take note of a fault of our own, after which nothing runs any more."""
        self._change(State(name="failed", error=error))

    def close(self) -> None:
        """Take note that it is over, after `run` has ended."""
        if self.state.name != "failed":
            self._change(State(name="closed"))

    def _change(self, state: State) -> None:
        self.state = state
        self._told.change(state)

    async def _dial(self) -> Transport:
        """Open the first transport that can be; raises the Failure of the last."""
        names = list(self._names())
        while True:
            name = names.pop(0)
            try:
                return await self._try(name)
            except Failure as failure:
                if failure.code == "expired" and self._renew():
                    names.insert(0, name)
                elif failure.is_final or failure.is_busy or failure.code == "expired" or not names:
                    raise

    def _names(self) -> tuple[TransportName, ...]:
        """Return the order to try: first what worked the last time, but last what worked only for a moment, twice."""
        known = _remembered.get(self._host.http.base)
        if known not in self._order:
            return self._order
        at = self._order.index(known)
        better, one, worse = self._order[:at], self._order[at : at + 1], self._order[at + 1 :]
        return (*one, *better, *worse) if self._short_lived < 2 else (*worse, *better, *one)

    def _renew(self) -> bool:
        """Tell whether another token can be tried at once: once, until one has worked."""
        if self._is_renewed:
            return False
        self._is_renewed = True
        self._host.tokens.expire()
        return True

    async def _try(self, name: TransportName) -> Transport:
        """Open a transport within its deadline."""
        limit_s = self._host.settings.try_timeout_s
        transport = TRANSPORTS[name](self._host)
        self._candidates.add(transport)
        try:
            async with asyncio.timeout(limit_s) as transport.deadline:
                await transport.open()
                transport.deadline = None
        except BaseException as exc:
            await transport.aclose()
            if isinstance(exc, TimeoutError):
                raise told("timeout", f"{name}: not live within {limit_s:g} s") from None
            if isinstance(exc, Exception):
                raise as_failure(exc) from exc
            raise
        finally:
            self._candidates.discard(transport)
        return transport

    async def _stay(self, transport: Transport) -> Failure:
        """Use a transport, and better ones when there are some, until one is lost; return why."""
        now = asyncio.get_running_loop().time
        self.current = transport
        upgrade: asyncio.Task[Transport] | None = None
        before: Transport | None = None
        worked: TransportName | None = None
        adopted_at = self._adopt(transport)
        try:
            while True:
                upgrade = self._plan_upgrade(transport)
                ends: set[asyncio.Future[Any]] = {transport.lost}
                if upgrade is not None:
                    ends.add(upgrade)
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if upgrade is None or not upgrade.done():
                    break
                before, transport, upgrade = transport, upgrade.result(), None
                if now() - adopted_at >= STEADY_S:
                    worked = before.name
                    self._has_worked()
                # Only then is the one before closed: whatever both bring is dropped once.
                adopted_at = self._adopt(transport)
                await before.aclose()
            failure = transport.lost.result()
            # One that ends as soon as it has begun did not work, whatever it said.
            if now() - adopted_at >= STEADY_S:
                self._has_worked()
                if transport.name == self._order[0]:
                    self._upgrade_s = self._host.settings.upgrade_after_s
            elif worked is not None and not failure.is_final:
                # The better one was none: back to the one before, at once.
                _remembered[self._host.http.base] = worked
                return Failure(failure.error, retry_ms=failure.retry_ms or 0, close_code=failure.close_code)
            else:
                self._short_lived += 1
            return failure
        finally:
            self.current = None
            self._told.part()
            if upgrade is not None:
                await stop(upgrade)
                if not upgrade.cancelled() and upgrade.exception() is None:
                    await upgrade.result().aclose()
            for each in (before, transport):
                if each is not None:
                    await each.aclose()

    def _has_worked(self) -> None:
        self._backoff.reset()
        self._short_lived = 0
        self._is_renewed = False

    def _adopt(self, transport: Transport) -> float:
        self.current = transport
        _remembered[self._host.http.base] = transport.name
        self._told.adopt(transport)
        self._change(State(name="connected", transport=transport.name))
        return asyncio.get_running_loop().time()

    def _plan_upgrade(self, transport: Transport) -> asyncio.Task[Transport] | None:
        better = self._order[: self._order.index(transport.name)]
        return asyncio.create_task(self._find_better(better)) if better else None

    async def _find_better(self, names: Sequence[TransportName]) -> Transport:
        """Return a better transport as soon as there is one; try later and later."""
        while True:
            await asyncio.sleep(self._upgrade_s)
            self._upgrade_s = min(self._upgrade_s * 2, LONGEST_UPGRADE_S)
            for name in names:
                try:
                    return await self._try(name)
                except Failure:
                    continue

    def sync(self) -> None:
        """Take note that what is wanted has changed."""
        for transport in (self.current, *self._candidates):
            if transport is not None:
                transport.sync()
