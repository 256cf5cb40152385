"""How many: connections in all, of one address, of one user, and those of which it is not known whose they are."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable

from tellwire.errors import TooManyConnections
from tellwire.limits.addresses import address_key
from tellwire.limits.bounds import LimitHits, Limits

Evict = Callable[[TooManyConnections], None]
"""Closes a connection for the reason given; called at most once, while another one comes in."""


class Visit:
    """One connection's place in the counts, from `Turnstile.enter` until `leave`."""

    __slots__ = ("_key", "_turnstile")

    def __init__(self, turnstile: Turnstile, key: str) -> None:
        self._turnstile: Turnstile | None = turnstile
        self._key = key

    def move(self, address: str) -> None:
        """Count for another address, as a proxy named it; raises TooManyConnections, and counts for the old one."""
        if self._turnstile is not None:
            self._key = self._turnstile.rekey(self._key, address)

    def unknown(self, evict: Evict) -> None:
        """Count among those that still have to say who they are; `evict` is called where a newer one needs the room."""
        if self._turnstile is not None:
            self._turnstile.hold(self, evict)

    def known(self) -> None:
        """Count among them no longer; may be called twice."""
        if self._turnstile is not None:
            self._turnstile.let_go(self)

    def leave(self) -> None:
        """Be counted nowhere any more; may be called twice."""
        turnstile, self._turnstile = self._turnstile, None
        if turnstile is not None:
            turnstile.forget(self, self._key)


class Turnstile:
    """Counts who is in, and says no to whoever would be one too many.

    Only what `enter` and `enter_user` let in is counted, and only once taken out; a key without connections is dropped.
    """

    def __init__(self, limits: Limits, hits: LimitHits | None = None) -> None:
        self._limits = limits
        self._hits = hits
        self._total = 0
        self._by_address: dict[str, int] = {}
        self._by_user: dict[str, int] = {}
        # An attacker can have all of these; the oldest goes, and not the one that comes, so that an honest client,
        # which says who it is within a round trip, is let in meanwhile.
        self._unknown: OrderedDict[Visit, Evict] = OrderedDict()

    @property
    def total(self) -> int:
        """Connections that are open."""
        return self._total

    @property
    def unauthenticated(self) -> int:
        """Those of which it is not known whose they are."""
        return len(self._unknown)

    def of_address(self, address: str) -> int:
        """Return how many connections an address has; in IPv6 its /64."""
        return self._by_address.get(address_key(address), 0)

    def of_user(self, user: str) -> int:
        """Return how many connections a user has."""
        return self._by_user.get(user, 0)

    def enter(self, address: str) -> Visit:
        """Count a connection; raises TooManyConnections. The empty address is nobody's (a Unix socket)."""
        if self._total >= self._limits.connections_max:
            raise self._refusal("connections_max", "this server has as many connections as it may")
        key = address_key(address)
        if self._by_address.get(key, 0) >= self._limits.connections_per_address:
            raise self._refusal("connections_per_address", "this address has as many connections as it may")
        self._total += 1
        _add(self._by_address, key)
        return Visit(self, sys.intern(key))  # one text for all connections of the address

    def check_user(self, user: str) -> None:
        """Raise TooManyConnections where a user may have no more."""
        if self._by_user.get(user, 0) >= self._limits.connections_per_user:
            raise self._refusal("connections_per_user", "this user has as many connections as they may")

    def enter_user(self, user: str) -> None:
        """Count a connection for its user; raises TooManyConnections. Each needs its `leave_user`."""
        self.check_user(user)
        _add(self._by_user, user)

    def leave_user(self, user: str) -> None:
        """Count one connection less for a user."""
        _remove(self._by_user, user)

    # For Visit

    def rekey(self, key: str, address: str) -> str:
        """Move one connection from one address to another; return that one's key."""
        other = address_key(address)
        if other != key:
            if self._by_address.get(other, 0) >= self._limits.connections_per_address:
                raise self._refusal("connections_per_address", "this address has as many connections as it may")
            _remove(self._by_address, key)
            _add(self._by_address, other)
        return other

    def hold(self, visit: Visit, evict: Evict) -> None:
        """Count a connection as unknown, in place of the one that has been for longest where there is no room."""
        if visit in self._unknown:
            self._unknown[visit] = evict
            return
        oldest = None
        if len(self._unknown) >= self._limits.unauthenticated_max:
            oldest = self._unknown.popitem(last=False)[1]
        self._unknown[visit] = evict
        if oldest is not None:
            oldest(self._refusal("unauthenticated_max", "others came who have not said who they are either"))

    def let_go(self, visit: Visit) -> None:
        """Count a connection as known."""
        self._unknown.pop(visit, None)

    def forget(self, visit: Visit, key: str) -> None:
        """Take a connection out of the counts."""
        self._unknown.pop(visit, None)
        self._total -= 1
        _remove(self._by_address, key)

    def _refusal(self, name: str, detail: str) -> TooManyConnections:
        if self._hits is not None:
            self._hits.limit_hit(name)
        return TooManyConnections(f"{detail}; try again later")


def _add(counts: dict[str, int], key: str) -> None:
    if key:
        counts[key] = counts.get(key, 0) + 1


def _remove(counts: dict[str, int], key: str) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
