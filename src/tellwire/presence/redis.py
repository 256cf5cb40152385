"""Presence in a Redis that several nodes share.

Every change is one script, so a member is handed to one leave or sweep only. A change is sent again where the
connection was lost, under the same token: Redis keeps what it answered for a while, and answers it again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from tellwire.brokers.redis_link import Link
from tellwire.brokers.redis_members import BEAT, COUNT, ENTER, LEAVE, MEMBERS, SWEEP
from tellwire.brokers.redis_scripts import Script
from tellwire.brokers.redis_session import Command, RedisSession
from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import InvalidData, Unavailable
from tellwire.presence.base import Counts, Member, Presence

T = TypeVar("T")

_QUEUE_MAX_BYTES = 16 * 1024 * 1024
_KEPT_LEASTWISE_MS = 60_000
"""Milliseconds for which Redis keeps what a change answered, at least."""

_Rest = tuple[bytes | None, bytes | None]
_rest = msgspec.msgpack.Decoder(_Rest)


class RedisPresence(Presence):
    """Members in hashes, in the Redis of the broker.

    What raised Unavailable may have been done, where Redis was lost in the middle of it.

    Args:
        place: Where Redis is.
        clock: Milliseconds since 1970; None means Redis' own clock, the same for all nodes.
    """

    def __init__(self, place: RedisPlace, *, clock: Callable[[], int] | None = None) -> None:
        self.place = place
        self._clock = clock
        self._session = _Members(place)
        self._prefix = f"{{{place.tag}}}:"
        self._kept_ms = max(_KEPT_LEASTWISE_MS, int(4000 * place.timeout_s))
        self._origin = secrets.token_hex(8)
        self._changes = 0
        self._node = ""
        self._lease_ms = 0
        self._is_open = False
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str) -> RedisPresence:
        """Make the one beside a broker's log."""
        return cls(RedisPlace.parse(url))

    async def open(self, node: str, lease_s: float) -> None:
        if self._node or self._closing is not None:
            raise Unavailable("this store of presence was opened before; make another one")
        self._node = node
        self._lease_ms = int(lease_s * 1000)
        await self._session.start()
        self._is_open = True
        await self._beat()

    async def enter(self, member: Member) -> Member | None:
        self._check_open()
        if member.node != self._node:
            raise ValueError(f"a member of node {member.node!r} cannot be entered by node {self._node!r}")

        def take(before: bytes | None) -> Member | None:
            return None if before is None else _read(member.channel, member.client, before)

        return await self._change(ENTER, take, _utf8(member.channel), _utf8(member.client), _write(member))

    async def leave(self, channel: str, client: str, *, node: str | None = None) -> Member | None:
        self._check_open()

        def take(gone: bytes | None) -> Member | None:
            return None if gone is None else _read(channel, client, gone)

        return await self._change(LEAVE, take, _utf8(channel), _utf8(client), int(node is not None), _utf8(node or ""))

    async def members(self, channel: str, limit: int) -> list[Member]:
        self._check_open()
        if limit <= 0:
            return []

        def take(found: list[bytes]) -> list[Member]:
            return [_read(channel, found[at].decode(), found[at + 1]) for at in range(0, len(found), 2)]

        return await self._look(MEMBERS, take, _utf8(channel), limit)

    async def count(self, channel: str) -> Counts:
        self._check_open()
        return await self._look(COUNT, Counts._make, _utf8(channel))

    async def find(self, channel: str, client: str) -> Member | None:
        self._check_open()
        command: Command = ("HGET", self._prefix.encode() + b"m:" + _utf8(channel), _utf8(client))

        def take(found: bytes | None) -> Member | None:
            return None if found is None else _read(channel, client, found)

        return await self._session.begin(lambda again: command, take)

    async def beat(self) -> bool:
        self._check_open()
        return await self._beat()

    async def _beat(self) -> bool:
        kept = await self._change(BEAT, bool, _utf8(self._node), self._lease_ms)
        # Another server may lack members that the one before it had.
        doubtful, self._session.is_doubtful = self._session.is_doubtful, False
        return kept and not doubtful

    async def sweep(self, limit: int = 1000) -> list[Member]:
        self._check_open()

        def take(gone: list[bytes]) -> list[Member]:
            return [_read(gone[at].decode(), gone[at + 1].decode(), gone[at + 2]) for at in range(0, len(gone), 3)]

        return await self._change(SWEEP, take, _utf8(self._node), limit)

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._session.stop())
        await asyncio.shield(self._closing)

    def _check_open(self) -> None:
        if not self._is_open or self._closing is not None:
            raise Unavailable("the store of presence is not open; nobody can enter, leave or be counted")

    def _look(self, script: Script, take: Callable[[Any], T], *arguments: str | bytes | int) -> asyncio.Future[T]:
        command: Command = ("EVALSHA", script.sha, 1, self._prefix + "leases", self._prefix, *arguments)
        return self._session.begin(lambda again: command, take)

    def _change(self, script: Script, take: Callable[[Any], T], *arguments: str | bytes | int) -> asyncio.Future[T]:
        session = self._session
        self._changes += 1
        deadline = session.server_ms(asyncio.get_running_loop().time() + self.place.timeout_s)
        command: Command = (
            "EVALSHA", script.sha, 1, self._prefix + "leases", self._prefix, f"{self._origin}{self._changes:x}",
            deadline, "" if self._clock is None else self._clock(), self._kept_ms, *arguments,
        )  # fmt: skip

        def answered(reply: Sequence[Any]) -> T:
            if reply[0] == b"late":
                session.set_clock(int(reply[1]))
                raise Unavailable(f"{self.place} was too slow, so nothing was changed; try again")
            return take(reply[1] if len(reply) > 1 else None)

        weight = sum(len(each) for each in arguments if isinstance(each, bytes))
        return session.begin(lambda again: command, answered, weight)


class _Members(RedisSession):
    """The connection of a store of presence; nothing is announced to it."""

    scripts = (ENTER, LEAVE, BEAT, SWEEP, MEMBERS, COUNT)

    def __init__(self, place: RedisPlace) -> None:
        super().__init__(place, _QUEUE_MAX_BYTES)
        self.is_doubtful = False
        """Whether the server was replaced or started again since the last beat."""
        self._known_run = ""

    async def greet(self, link: Link) -> None:
        if self._known_run not in ("", self.run):
            self.is_doubtful = True
        self._known_run = self.run

    def pushed(self, channel: bytes, payload: bytes) -> None:
        """Nothing to do."""

    def parted(self) -> None:
        """Nothing to do."""


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidData(f"a name holds half a surrogate pair and cannot be kept: {exc}") from exc


def _write(member: Member) -> bytes:
    node = _utf8(member.node)
    user = None if member.user is None else _utf8(member.user)
    head = f"{member.since} {len(node)} {-1 if user is None else len(user)}\n".encode()
    return head + node + (user or b"") + msgspec.msgpack.encode((member.info, member.state))


def _read(channel: str, client: str, value: bytes) -> Member:
    head, _, body = value.partition(b"\n")
    since, nodes, users = map(int, head.split(b" "))
    user_end = nodes + max(users, 0)
    info, state = _rest.decode(body[user_end:])
    user = None if users < 0 else body[nodes:user_end].decode()
    return Member(channel, client, user, info, state, body[:nodes].decode(), since)
