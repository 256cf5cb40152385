"""Members in plain dicts: what the memory store is, and what the SQLite store answers from."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import msgspec

from tellwire.presence.base import Counts, Member

Key = tuple[str, str]
"""Channel and client."""


class _Room:
    """One channel; ``users`` has how often each is here, ``anonymous`` those that name no user."""

    __slots__ = ("anonymous", "members", "users")

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.users: dict[str, int] = {}
        self.anonymous = 0

    def count_in(self, user: str | None) -> None:
        if user is None:
            self.anonymous += 1
        else:
            self.users[user] = self.users.get(user, 0) + 1

    def count_out(self, user: str | None) -> None:
        if user is None:
            self.anonymous -= 1
        elif self.users[user] == 1:
            del self.users[user]
        else:
            self.users[user] -= 1


class _Holder:
    """One node: when its lease is over, and what it holds."""

    __slots__ = ("held", "until_ms")

    def __init__(self) -> None:
        self.until_ms = 0
        self.held: dict[Key, None] = {}


class Table:
    """Members by channel and by node; every operation takes the same time however many there are."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._holders: dict[str, _Holder] = {}

    def renew(self, node: str, until_ms: int) -> bool:
        """Set when a node's lease is over; False if it was given up meanwhile, or is new."""
        holder = self._hold(node)
        kept = holder.until_ms > 0
        holder.until_ms = until_ms
        return kept

    def enter(self, member: Member) -> Member | None:
        """Put or replace a member; return what was there."""
        room = self._rooms.get(member.channel)
        if room is None:
            room = self._rooms[member.channel] = _Room()
        before = room.members.get(member.client)
        if before is not None:
            room.count_out(before.user)
            if before.node != member.node:
                del self._holders[before.node].held[member.channel, member.client]
            if before.since != member.since:
                member = msgspec.structs.replace(member, since=before.since)
        room.members[member.client] = member
        room.count_in(member.user)
        self._hold(member.node).held[member.channel, member.client] = None
        return before

    def leave(self, channel: str, client: str, node: str | None = None) -> Member | None:
        """Remove a member and return it; with `node` only if that node holds it."""
        member = self.find(channel, client)
        if member is None or (node is not None and member.node != node):
            return None
        room = self._rooms[channel]
        del room.members[client]
        room.count_out(member.user)
        if not room.members:
            del self._rooms[channel]
        del self._holders[member.node].held[channel, client]
        return member

    def members(self, channel: str, limit: int) -> list[Member]:
        """Return up to `limit` members in the order in which they entered."""
        room = self._rooms.get(channel)
        return [] if room is None else list(islice(room.members.values(), limit))

    def count(self, channel: str) -> Counts:
        """Count the members of a channel and their users."""
        room = self._rooms.get(channel)
        if room is None:
            return Counts(0, 0)
        return Counts(len(room.members), len(room.users) + room.anonymous)

    def find(self, channel: str, client: str) -> Member | None:
        """Return one member."""
        room = self._rooms.get(channel)
        return None if room is None else room.members.get(client)

    def lapsed(self, now_ms: int, own: str) -> list[str]:
        """Return the nodes whose lease is over, but for one's own."""
        return [node for node, holder in self._holders.items() if holder.until_ms <= now_ms and node != own]

    def held(self, nodes: Iterable[str], limit: int) -> list[tuple[str, str, str]]:
        """Return channel, client and node of up to `limit` members of these nodes."""
        return list(islice(((*key, node) for node in nodes for key in self._holders[node].held), limit))

    def give_up(self, nodes: Iterable[str]) -> None:
        """Take the lease from nodes, so that they are told at their next beat."""
        for node in nodes:
            holder = self._holders.get(node)
            if holder is not None:
                holder.until_ms = 0

    def forget(self, nodes: Iterable[str]) -> None:
        """Drop nodes that hold nothing."""
        for node in nodes:
            holder = self._holders.get(node)
            if holder is not None and not holder.held:
                del self._holders[node]

    def _hold(self, node: str) -> _Holder:
        holder = self._holders.get(node)
        if holder is None:
            # Without a lease until it beats: what an unknown node enters can be swept.
            holder = self._holders[node] = _Holder()
        return holder
