"""How long a connection may last: until it has said who it is, and then until its token ends."""

from __future__ import annotations

import asyncio
import time

from tellwire.auth import Identity
from tellwire.counters import Counters
from tellwire.errors import CloseCode
from tellwire.limits import Limits
from tellwire.node.callers import caller_of
from tellwire.subscriber import Subscriber

TIMER_MAX_S = 86_400.0
"""Longest timer that is set; what lasts longer is looked at again by then."""


class Lifetimes:
    """Ends connections whose time is over; each has at most one timer, its caller's."""

    def __init__(self, limits: Limits, counters: Counters) -> None:
        self._limits = limits
        self._counters = counters

    def wait_for_token(self, subscriber: Subscriber) -> None:
        """Give a connection that has not said who it is ``connect_s`` to do so."""
        loop = asyncio.get_running_loop()
        caller_of(subscriber).timer = loop.call_later(self._limits.connect_s, self._lose_patience, subscriber)

    def watch(self, subscriber: Subscriber) -> None:
        """See that a connection ends when its token does."""
        caller = caller_of(subscriber)
        caller.stop_timer()
        left_s = _left_s(caller.identity)
        if left_s is not None:
            # By the clock on the wall, which may be set: so what lasts long is looked at again.
            loop = asyncio.get_running_loop()
            delay_s = min(max(left_s, 0.0), TIMER_MAX_S)
            caller.timer = loop.call_later(delay_s, self._expire, subscriber)

    def _expire(self, subscriber: Subscriber) -> None:
        left_s = _left_s(caller_of(subscriber).identity)
        if left_s is not None and left_s <= 0:
            subscriber.door.close(CloseCode.EXPIRED, "the token has expired; come back with a fresh one")
        else:
            self.watch(subscriber)

    def _lose_patience(self, subscriber: Subscriber) -> None:
        self._counters.limit_hit("connect_s")
        says = f"no connect with a token came within {self._limits.connect_s:g} s"
        subscriber.door.close(CloseCode.UNAUTHORIZED, says)


def expires_in_ms(identity: Identity | None) -> int | None:
    """Return how long a token is good for, as clients are told; None where it does not end."""
    left_s = _left_s(identity)
    return None if left_s is None else max(0, int(left_s * 1000))


def _left_s(identity: Identity | None) -> float | None:
    if identity is None or identity.expires_at is None:
        return None
    return identity.expires_at - time.time()
