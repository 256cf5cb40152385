"""Presence in a bucket of NATS JetStream that several nodes share.

Every change is made on the condition that its key still has the value that it was made from, so a member is handed to
one leave or sweep only. A change is sent again under the same name where nobody answered, and JetStream takes it once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import InvalidData, Unavailable
from tellwire.presence.base import Counts, Member, Presence
from tellwire.presence.nats_members import Bucket, Change, Held
from tellwire.presence.table import Table

_ATTEMPTS = 100
"""How often a change is made anew because another node was quicker."""


class _Write(NamedTuple):
    """A change as it is to be made: of the value at ``rev`` (0: there is none) to another one (empty: to none)."""

    rev: int
    payload: bytes
    before: Member | int | None


_Step = Callable[[], _Write | None]
"""Looks at the table and says what is to be written; None: nothing."""


class NatsPresence(Presence):
    """Members in a bucket, in the NATS of the broker.

    What raised Unavailable may have been done, where NATS was lost in the middle of it.

    Args:
        place: Where NATS is.
        clock: Milliseconds since 1970; None means JetStream's own clock, the same for all nodes.
    """

    def __init__(self, place: NatsPlace, *, clock: Callable[[], int] | None = None) -> None:
        self.place = place
        self._bucket = Bucket(place)
        self._clock = clock or self._bucket.now_ms
        self._origin = secrets.token_hex(8)
        self._changes = 0
        self._chains: dict[str, asyncio.Task[object]] = {}
        self._node = ""
        self._lease_ms = 0
        self._is_open = False
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str) -> NatsPresence:
        """Make the one beside a broker's log."""
        return cls(NatsPlace.parse(url))

    async def open(self, node: str, lease_s: float) -> None:
        if self._node or self._closing is not None:
            raise Unavailable("this store of presence was opened before; make another one")
        self._node = node
        self._lease_ms = int(lease_s * 1000)
        await self._bucket.start()
        self._is_open = True
        await self.beat()

    async def enter(self, member: Member) -> Member | None:
        self._check_open()
        if member.node != self._node:
            raise ValueError(f"a member of node {member.node!r} cannot be entered by node {self._node!r}")
        key = self._bucket.member_key(member.channel, member.client)

        def step() -> _Write:
            known = self._bucket.keys.get(key)
            before = self._table.find(member.channel, member.client)
            if known is None or before is None:
                return _Write(0, _encode(Held(member, 0)), None)
            again = msgspec.structs.replace(member, since=before.since)
            return _Write(known.rev, _encode(Held(again, known.order)), before)

        step()  # raises where the member cannot be kept
        found = await self._change(key, step)
        assert found is None or isinstance(found, Member)
        return found

    async def leave(self, channel: str, client: str, *, node: str | None = None) -> Member | None:
        self._check_open()
        key = self._bucket.member_key(channel, client)

        def step() -> _Write | None:
            known = self._bucket.keys.get(key)
            member = self._table.find(channel, client)
            if known is None or member is None or (node is not None and member.node != node):
                return None
            return _Write(known.rev, b"", member)

        found = await self._change(key, step)
        assert found is None or isinstance(found, Member)
        return found

    async def members(self, channel: str, limit: int) -> list[Member]:
        self._check_open()
        if limit <= 0:
            return []
        await self._bucket.level()
        return self._table.members(channel, limit)

    async def count(self, channel: str) -> Counts:
        self._check_open()
        await self._bucket.level()
        return self._table.count(channel)

    async def find(self, channel: str, client: str) -> Member | None:
        self._check_open()
        await self._bucket.level()
        return self._table.find(channel, client)

    async def beat(self) -> bool:
        self._check_open()
        bucket = self._bucket

        def step() -> _Write:
            rev, until = bucket.leases.get(self._node, (0, 0))
            return _Write(rev, _encode((self._node, self._clock() + self._lease_ms)), until)

        kept = await self._change(bucket.node_key(self._node), step)
        broken, bucket.broken = bucket.broken, []
        await asyncio.gather(*(self.enter(member) for member in broken if member.node == self._node))
        # Another bucket may lack members that the one before it had.
        doubtful, bucket.is_doubtful = bucket.is_doubtful, False
        return bool(kept) and not doubtful

    async def sweep(self, limit: int = 1000) -> list[Member]:
        self._check_open()
        await self._bucket.level()
        lapsed = self._table.lapsed(self._clock(), self._node)
        await asyncio.gather(*map(self._take, lapsed))
        nodes = self._taken()
        held = self._table.held(nodes, limit)
        left = await asyncio.gather(
            *(self.leave(channel, client, node=node) for channel, client, node in held), return_exceptions=True
        )
        gone = [member for member in left if isinstance(member, Member)]
        failures = [failure for failure in left if isinstance(failure, BaseException)]
        if failures and not gone:
            raise failures[0]
        empty = [node for node in self._taken() if not self._table.held([node], 1)]
        await asyncio.gather(*map(self._forget, empty), return_exceptions=True)
        return gone

    def _taken(self) -> list[str]:
        """Return the nodes whose lease was taken, or that never had one."""
        leases = self._bucket.leases
        return [node for node in self._table.lapsed(0, self._node) if not leases.get(node, (0, 0))[1]]

    async def _take(self, node: str) -> None:
        """Take the lease from a node, so that it is told at its next beat, unless it has just renewed it."""
        bucket = self._bucket

        def step() -> _Write | None:
            rev, until = bucket.leases.get(node, (0, 0))
            return _Write(rev, _encode((node, 0)), None) if 0 < until <= self._clock() else None

        await self._change(bucket.node_key(node), step)

    async def _forget(self, node: str) -> None:
        """Drop the lease of a node that holds nothing."""
        bucket = self._bucket

        def step() -> _Write | None:
            rev, until = bucket.leases.get(node, (0, 0))
            return _Write(rev, b"", None) if rev and not until else None

        await self._change(bucket.node_key(node), step)
        self._table.forget([node])

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        while self._chains:
            await asyncio.wait(list(self._chains.values()))
        await self._bucket.stop()

    @property
    def _table(self) -> Table:
        return self._bucket.table

    def _check_open(self) -> None:
        if not self._is_open or self._closing is not None:
            raise Unavailable("the store of presence is not open; nobody can enter, leave or be counted")

    # Changes

    async def _change(self, key: str, step: _Step) -> object:
        """Change a key, after all changes of it that were begun before."""
        chains = self._chains
        task = asyncio.get_running_loop().create_task(self._run(key, chains.get(key), step))
        chains[key] = task

        def done(ended: asyncio.Task[object]) -> None:
            if chains.get(key) is ended:
                del chains[key]
            if not ended.cancelled():
                ended.exception()  # a caller that was cancelled does not look

        task.add_done_callback(done)
        return await asyncio.shield(task)

    async def _run(self, key: str, before: asyncio.Task[object] | None, step: _Step) -> object:
        if before is not None:
            await asyncio.wait([before])
        is_level = False
        ended_at = 0
        for _ in range(_ATTEMPTS):
            write = step()
            if write is None:
                if is_level:
                    return None
                await self._bucket.level()
                is_level = True
                continue
            self._changes += 1
            token = f"{self._origin}.{self._changes:x}"
            # What was there instead last time was fed by now: a value, the mark of one that ended, or not even that.
            expected = max(write.rev, ended_at)
            change = Change(self._bucket, key, write.payload, expected, token, write.before)
            outcome = await self._bucket.begin(change)
            if outcome.newest is None:
                return outcome.before
            ended_at = outcome.newest
            if ended_at < write.rev:
                self._bucket.reload(f"{key} was deleted by somebody else")
                await self._bucket.level()
        raise Unavailable(f"{self.place}: other nodes change {key} all the time; try again")


def _encode(value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except UnicodeEncodeError as exc:
        raise InvalidData(f"a name holds half a surrogate pair and cannot be kept: {exc}") from exc
