"""The ends of connections, told to the application: once each, also those of a node that died.

Each connection that the application wants to hear of is noted in the store of presence, as a member of a channel
without a name. Whoever takes that note out again, at its end or sweeping after a dead node, tells the application.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from tellwire.errors import CloseCode
from tellwire.hooks import Disconnected
from tellwire.node.callers import Caller
from tellwire.presence import Member

if TYPE_CHECKING:
    from tellwire.node.steward import Node

NAMELESS = ""
"""The channel whose members are connections; no client can name it."""

FINISH_S = 5.0
"""Seconds that a stopping node waits for the application to hear of its last connections; the rest is swept later."""


class _Note(msgspec.Struct):
    client: str
    transport: str
    since: float


class Departures:
    """One node's connections whose end somebody wants to hear of."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._pending: set[asyncio.Task[None]] = set()

    def note_begin(self, caller: Caller) -> None:
        """Note a connection that has said who it is, or says anew."""
        if self._node.hooks.disconnect is None:
            return
        if caller.number is None:
            caller.number = secrets.token_urlsafe(9)
        self._note(caller)

    def note_again(self) -> None:
        """Note all connections anew: another node may have taken them for those of a dead one."""
        for subscriber in self._node.hub.subscribers:
            caller: object = subscriber.caller
            if isinstance(caller, Caller) and caller.number is not None:
                self._note(caller)

    def _note(self, caller: Caller) -> None:
        node = self._node
        assert caller.number is not None
        identity = caller.identity
        assert identity is not None
        note = msgspec.json.encode(_Note(caller.client, caller.transport, caller.since))
        self._start(
            self._enter(
                Member(NAMELESS, caller.number, identity.user, identity.info, note, node.name, int(caller.since * 1000))
            )
        )

    async def _enter(self, member: Member) -> None:
        await self._node.presence.enter(member)

    def note_end(self, caller: Caller, code: CloseCode | None, reason: str) -> None:
        """Tell the application that a connection is over."""
        if caller.number is not None:
            self._start(self._end(caller.number, code, reason))
            caller.number = None

    async def _end(self, number: str, code: CloseCode | None, reason: str) -> None:
        member = await self._node.presence.leave(NAMELESS, number)
        if member is not None:
            await self.tell(member, code, reason)

    async def tell(self, member: Member, code: CloseCode | None, reason: str) -> None:
        """Tell the application of a connection whose note was taken out of the store."""
        note = msgspec.json.decode(member.state or b"", type=_Note)
        info = None if member.info is None else msgspec.json.decode(member.info)
        await self._node.hooks.tell_disconnect(
            Disconnected(note.client, member.user, info, note.transport, code, reason, note.since)
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._node.tasks.start(work)
        if task is not None:
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def finish(self) -> None:
        """Wait for a while until the application has heard of every end so far."""
        if self._pending:
            await asyncio.wait(set(self._pending), timeout=FINISH_S)
