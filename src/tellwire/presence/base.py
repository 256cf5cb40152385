"""What every store of presence promises: who is in which channel, for as long as the node that holds them lives.

The contract is executable: ``tellwire.testing.members`` holds the suite that every store passes, ours and others'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import msgspec


class Member(msgspec.Struct, frozen=True, gc=False):
    """One client in one channel; the store takes every name as it comes, the empty one too."""

    channel: str
    client: str
    user: str | None
    info: bytes | None
    """JSON text that came with the token."""
    state: bytes | None
    """JSON text that the client set."""
    node: str
    """The node that holds it: its lease is the member's."""
    since: int
    """Milliseconds since 1970 of its first entering; entering again does not change it."""


class Counts(NamedTuple):
    """How many are in a channel; a member without a user counts as a user of its own."""

    clients: int
    users: int


class Presence(ABC):
    """Who is here.

    Leased: a node renews one lease for all its members, every third of ``lease_s``. While it does, nobody takes them;
    once it is over, any other node's sweep does.
    Handed out once: what was entered is returned by exactly one leave or sweep, whoever calls them at the same time, so
    that its end is announced once. One who dies with what it was handed announces nothing.
    Ordered: operations of one node on one member take effect in the order in which they were begun. Cancelling a
    caller does not take back what it began; so a leave is not to be cancelled by one who would announce it.
    Every operation raises Unavailable where the store cannot be reached or is closed.
    """

    @abstractmethod
    async def open(self, node: str, lease_s: float) -> None:
        """Open the store as this node, whose lease begins; a node's name is random and never used again."""

    @abstractmethod
    async def enter(self, member: Member) -> Member | None:
        """Put a member, or replace it: return what was there (None: it is new), whose ``since`` it keeps.

        ``member.node`` is this node; one that another node held is taken over, and no longer swept with that node.
        """

    @abstractmethod
    async def leave(self, channel: str, client: str, *, node: str | None = None) -> Member | None:
        """Remove a member and return it, None if it is not there; with `node` only if that node still holds it."""

    @abstractmethod
    async def members(self, channel: str, limit: int) -> list[Member]:
        """Return up to `limit` members, those that entered first at the beginning."""

    @abstractmethod
    async def count(self, channel: str) -> Counts:
        """Count the members of a channel, without looking at each of them."""

    @abstractmethod
    async def find(self, channel: str, client: str) -> Member | None:
        """Return one member."""

    @abstractmethod
    async def beat(self) -> bool:
        """Renew this node's lease; False if it was over and members may have been taken: then enter them again."""

    @abstractmethod
    async def sweep(self, limit: int = 1000) -> list[Member]:
        """Remove and return up to `limit` members of nodes whose lease is over, never this node's own.

        There may be more until it brings none.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Finish what was begun, then let go of everything; may be called twice.

        Members of this node stay in a store that outlives it, for a sweep once its lease is over.
        """
