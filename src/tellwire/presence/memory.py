"""Presence in memory: there while the process runs; no operation ever waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from tellwire.errors import Unavailable
from tellwire.presence.base import Counts, Member, Presence
from tellwire.presence.table import Table


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class MemoryPresence(Presence):
    """Members in dicts.

    Args:
        table: Where they are; nodes in one process that are given the same one see each other.
        clock: Milliseconds since 1970; replaced in tests.
    """

    def __init__(self, table: Table | None = None, *, clock: Callable[[], int] = now_ms) -> None:
        self._table = Table() if table is None else table
        self._clock = clock
        self._node: str | None = None
        self._lease_ms = 0
        self._closed = False

    @classmethod
    def from_url(cls, url: str) -> MemoryPresence:
        """Make one; whatever the URL says beside its scheme is the broker's."""
        return cls()

    async def open(self, node: str, lease_s: float) -> None:
        if self._node is not None or self._closed:
            raise Unavailable("this store of presence was opened before; make another one")
        self._node = node
        self._lease_ms = int(lease_s * 1000)
        self._table.renew(node, self._clock() + self._lease_ms)

    async def enter(self, member: Member) -> Member | None:
        table, node = self._open()
        if member.node != node:
            raise ValueError(f"a member of node {member.node!r} cannot be entered by node {node!r}")
        return table.enter(member)

    async def leave(self, channel: str, client: str, *, node: str | None = None) -> Member | None:
        return self._open()[0].leave(channel, client, node)

    async def members(self, channel: str, limit: int) -> list[Member]:
        return self._open()[0].members(channel, limit)

    async def count(self, channel: str) -> Counts:
        return self._open()[0].count(channel)

    async def find(self, channel: str, client: str) -> Member | None:
        return self._open()[0].find(channel, client)

    async def beat(self) -> bool:
        table, node = self._open()
        return table.renew(node, self._clock() + self._lease_ms)

    async def sweep(self, limit: int = 1000) -> list[Member]:
        table, node = self._open()
        lapsed = table.lapsed(self._clock(), node)
        gone = [table.leave(*key) for key in table.held(lapsed, limit)]
        table.give_up(lapsed)
        table.forget(lapsed)
        return [member for member in gone if member is not None]

    async def aclose(self) -> None:
        self._closed = True

    def _open(self) -> tuple[Table, str]:
        if self._node is None or self._closed:
            raise Unavailable("the store of presence is not open; nobody can enter, leave or be counted")
        return self._table, self._node
