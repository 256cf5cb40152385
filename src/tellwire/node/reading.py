"""Reading: which channels, from where on, and what a request that does not wait is answered."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from tellwire.brokers.base import Slice
from tellwire.errors import BadRequest, TooManyChannels
from tellwire.hub import Placement
from tellwire.message import Gap, Position, parse_since
from tellwire.names import Policy, check_channel
from tellwire.node.callers import Caller
from tellwire.node.drafts import check_count
from tellwire.node.members import Attendance
from tellwire.protocol.commands import OnGap
from tellwire.runs import take_bite

if TYPE_CHECKING:
    from tellwire.node.steward import Node


class Reading:
    """What a node has its clients read."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def allow(self, caller: Caller, wanted: Collection[str]) -> None:
        """Return if a caller may read all of these channels; else raise Forbidden, with the first they may not."""
        await self._node.allow(caller, "subscribe", wanted)
        if self._node.hooks.subscribe is not None:
            for name in wanted:
                await self._node.hooks.ask_subscribe(caller.view(), name)

    def wanted(self, channels: Iterable[str], policy: Policy | None, *, have: int = 0) -> dict[str, Policy]:
        """Check the channels that somebody wants to read; return each with its policy."""
        wanted = {check_channel(name): policy or self._node.namespaces.of(name).policy for name in channels}
        self.check_count(have + len(wanted))
        return wanted

    def check_count(self, count: int) -> None:
        """Return if a connection may read so many channels, those of the server's own among them."""
        most = self._node.limits.channels_per_connection
        if count > most:
            self._node.counters.limit_hit("channels_per_connection")
            raise TooManyChannels(
                f"one connection reads at most {most} channels, what it watches and its inbox included"
            )

    async def wanted_of(
        self, caller: Caller, channels: Collection[str], policy: Policy | None, attendance: Attendance | None
    ) -> dict[str, Policy]:
        """Check the channels that a request wants to read, and that it may; return each with its policy.

        With an `attendance` those of the server's own that tell of presence are among them.
        """
        wanted = self.wanted(channels, policy)
        await self.allow(caller, wanted)
        if attendance is not None:
            await self._node.allow(caller, "presence", wanted)
            own: Policy = "catch_up"
            wanted.update(dict.fromkeys(self._node.members.channels(caller, channels, attendance), own))
            self.check_count(len(wanted))
        return wanted

    async def place(
        self, wanted: dict[str, Policy], since: str | int | None, last: int | None, on_gap: OnGap
    ) -> Placement:
        """Find where a reading begins (see Hub.place); `since` and `last` are as the client gave them."""
        if last is not None:
            _check_last(last, since)
        return await self._node.hub.place(wanted, parse_since(since), last, on_gap)

    async def read(
        self,
        channels: Collection[str],
        since: str | int | None,
        *,
        limit: int,
        last: int | None = None,
        on_gap: OnGap = "oldest",
    ) -> Slice:
        """Read what comes after a cursor, at most `limit` messages, without waiting for more.

        The channels were checked by `wanted`, or are the server's own.
        """
        limit_bytes = self._node.limits.request_max_bytes
        if last is not None:
            newest = await self._node.broker.read_back(channels, None, _check_last(last, since))
            messages, more = take_bite(newest.messages, 0, limit_bytes, limit)
            return Slice(messages, Position(newest.position.epoch, messages[-1].seq), newest.gap) if more else newest
        start = parse_since(since)
        if start == "now":
            return Slice([], self._node.broker.head, None)
        slice_ = await self._node.broker.read(channels, self._node.hub.resolve(start), limit_bytes, limit)
        gap = slice_.gap
        if gap is not None:
            self._node.counters.gaps[gap.reason] += 1
            if on_gap == "newest":
                head = self._node.broker.head
                return Slice([], head, Gap(gap.from_, str(head), gap.reason, tuple(channels)))
        return slice_

    async def read_back(self, channels: Collection[str], before: str, *, limit: int) -> Slice:
        """Read the newest `limit` messages before a position; the channels as for `read`."""
        start = parse_since(before)
        if start == "earliest":
            return Slice([], self._node.broker.head, None)
        position = None if start == "now" else self._node.hub.resolve(start)
        slice_ = await self._node.broker.read_back(channels, position, limit)
        newest_first, _ = take_bite(slice_.messages[::-1], 0, self._node.limits.request_max_bytes)
        return Slice(newest_first[::-1], slice_.position, slice_.gap)


def _check_last(last: int, since: str | int | None) -> int:
    if since is not None:
        raise BadRequest("since and last exclude each other: give the one or the other")
    return check_count("last", last)
