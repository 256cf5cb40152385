"""What is told of presence: who came, changed and went, or, of many, how many there are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tellwire.errors import TellwireError
from tellwire.message import Draft
from tellwire.presence import Member
from tellwire.protocol.data import to_packed
from tellwire.protocol.internal import PRESENCE, InternalCount
from tellwire.protocol.pushes import MemberView

if TYPE_CHECKING:
    from tellwire.node.steward import Node

COUNT_EVERY_S = 1.0
"""Least seconds between two counts of a channel that is too large to tell of each member."""


class Telling:
    """What a node says on the channels beside those that its members are in."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._counting: dict[str, asyncio.TimerHandle] = {}
        self._large: set[str] = set()  # channels of which only counts are told
        self._closed = False

    async def announce(self, what: str, member: Member) -> None:
        """Say what happened; what cannot be said now is made up for by a count, after which the list is asked anew."""
        try:
            await self.tell(what, member)
        except TellwireError as exc:
            self._node.hub.report(
                "who is here could not be told; their number will be, as soon as that is possible", exc
            )
            self._count_soon(member.channel)

    async def tell(self, what: str, member: Member) -> None:
        """Say on the channel beside the member's what happened; of a large one only how many there are.

        One that has become small again goes on being counted until a count has told of that.
        """
        node = self._node
        channel = member.channel
        most = node.namespaces.of(channel).presence_max_members
        counts = await node.presence.count(channel)
        if counts.clients > most:
            self._large.add(channel)
        if channel in self._large or (what == "leave" and counts.clients == most):
            self._count_soon(channel)
            return
        shown = MemberView(member.client, member.user) if what == "leave" else view(member)
        await self._say(channel, what, msgspec.json.encode(shown))

    def _count_soon(self, channel: str) -> None:
        if channel not in self._counting and not self._closed:
            loop = asyncio.get_running_loop()
            self._counting[channel] = loop.call_later(COUNT_EVERY_S, self._count, channel)

    def _count(self, channel: str) -> None:
        del self._counting[channel]
        self._node.tasks.start(self._tell_count(channel))

    async def _tell_count(self, channel: str) -> None:
        node = self._node
        try:
            counts = await node.presence.count(channel)
            if counts.clients <= node.namespaces.of(channel).presence_max_members:
                self._large.discard(channel)
            await self._say(channel, "count", msgspec.json.encode(InternalCount(counts.clients, counts.users)))
        except TellwireError as exc:
            node.hub.report("how many are here could not be told; it is tried again", exc)
            self._count_soon(channel)

    async def _say(self, channel: str, what: str, data: bytes) -> None:
        await self._node.broker.append(Draft(PRESENCE + channel, data, event=what))

    def close(self) -> None:
        """Count no more; may be called twice."""
        self._closed = True
        for timer in self._counting.values():
            timer.cancel()


def view(member: Member, *, packed: bool = False) -> MemberView:
    """Return a member as the others see it; with its texts in MessagePack where `packed`."""

    def shown(text: bytes | None) -> Raw | UnsetType:
        return UNSET if text is None else Raw(to_packed(text) if packed else text)

    return MemberView(member.client, member.user, shown(member.info), shown(member.state), member.since)
