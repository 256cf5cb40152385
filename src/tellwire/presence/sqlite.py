"""Presence in a SQLite file: who was here when the process ended is known to the next one.

One process has the file, so everything is answered from memory; the file is there for the process that comes
after. A change is seen, and acknowledged, once its transaction is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec.structs import astuple

from tellwire.brokers.breaths import Breaths
from tellwire.brokers.sqlite import SqliteBroker
from tellwire.errors import Unavailable
from tellwire.names import Namespaces
from tellwire.presence.base import Counts, Member, Presence
from tellwire.presence.memory import now_ms
from tellwire.presence.sqlite_file import ENTER, FORGET, LEAVE, LEAVE_HELD, RENEW
from tellwire.presence.sqlite_writer import Change, Statement, Writer
from tellwire.presence.table import Table

T = TypeVar("T")


class SqlitePresence(Presence):
    """Members in a file that one process at a time may have open.

    What was acknowledged survives a crash of the process at any moment; a power cut may take the newest. What raised
    Unavailable has changed nothing.

    Args:
        path: The file; made where it is missing, together with ``-wal``, ``-shm`` and ``.lock`` files beside it.
        busy_timeout_s: Seconds to wait for another program that has locked the file.
        clock: Milliseconds since 1970; replaced in tests.
    """

    def __init__(self, path: str | Path, *, busy_timeout_s: float = 5.0, clock: Callable[[], int] = now_ms) -> None:
        self.path = Path(path).resolve()
        self._busy_timeout_s = busy_timeout_s
        self._clock = clock
        self._breaths = Breaths()
        self._node = ""
        self._lease_ms = 0
        self._writer: Writer | None = None
        self._table: Table | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str) -> SqlitePresence:
        """Make the one beside a broker's file: its path and ``-presence``."""
        log = SqliteBroker.from_url(url, Namespaces(), 0.0).path
        return cls(log.with_name(log.name + "-presence"))

    async def open(self, node: str, lease_s: float) -> None:
        if self._writer is not None or self._closing is not None:
            raise Unavailable("this store of presence was opened before; make another one")
        self._node = node
        self._lease_ms = int(lease_s * 1000)
        self._writer = Writer(self.path, self._busy_timeout_s, node, self._clock() + self._lease_ms)
        self._table = await self._writer.start()

    async def enter(self, member: Member) -> Member | None:
        table = self._open()
        if member.node != self._node:
            raise ValueError(f"a member of node {member.node!r} cannot be entered by node {self._node!r}")
        return await self._change([(ENTER, astuple(member))], partial(table.enter, member))

    async def leave(self, channel: str, client: str, *, node: str | None = None) -> Member | None:
        table = self._open()
        statement = (LEAVE, (channel, client)) if node is None else (LEAVE_HELD, (channel, client, node))
        return await self._change([statement], partial(table.leave, channel, client, node))

    async def members(self, channel: str, limit: int) -> list[Member]:
        return self._open().members(channel, limit)

    async def count(self, channel: str) -> Counts:
        return self._open().count(channel)

    async def find(self, channel: str, client: str) -> Member | None:
        return self._open().find(channel, client)

    async def beat(self) -> bool:
        table = self._open()
        until_ms = self._clock() + self._lease_ms
        return await self._change([(RENEW, (self._node, until_ms))], partial(table.renew, self._node, until_ms))

    async def sweep(self, limit: int = 1000) -> list[Member]:
        table = self._open()
        lapsed = table.lapsed(self._clock(), self._node)
        if not lapsed:
            return []
        held = table.held(lapsed, limit)
        # Each is taken only if its node still holds it then: what is on its way to the disk comes first.
        statements: list[Statement] = [(LEAVE_HELD, key) for key in held]
        finished = lapsed if len(held) < limit else []
        statements += [(FORGET, (node,)) for node in finished]

        def take() -> list[Member]:
            gone = [table.leave(*key) for key in held]
            table.give_up(lapsed)
            table.forget(finished)
            return [member for member in gone if member is not None]

        return await self._change(statements, take)

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._writer is not None:
            await self._writer.stop()
        self._table = None

    def _open(self) -> Table:
        if self._table is None or self._closing is not None:
            raise Unavailable("the store of presence is not open; nobody can enter, leave or be counted")
        return self._table

    async def _change(self, statements: Sequence[Statement], apply: Callable[[], T]) -> T:
        """Put a change into the file, and once it is there into the table; return what that brings."""
        assert self._writer is not None
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(error: Exception | None) -> None:
            self._breaths.jobs -= 1
            if error is None:
                outcome = apply()
                if not answer.done():
                    answer.set_result(outcome)
            elif not answer.done():
                answer.set_exception(error)

        self._breaths.begin()
        self._writer.put(Change(statements, done))
        return await answer
