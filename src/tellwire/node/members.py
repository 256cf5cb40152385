"""Who is here, and what they say to each other.

A member is held by the connections through which it entered, or for a while by a request (``presence_lease_s``). When
nothing holds it any more it stays for ``presence_grace_s``, so that a reload, or a change of wires, is neither a leave
nor a join. What happens is said on a channel of its own beside the one it is about, for whoever watches: a log like any
other, hence resumed, in order, and told of gaps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tellwire.errors import BadRequest, Forbidden, TellwireError, TooLarge, TooManyChannels, Unavailable
from tellwire.message import Position
from tellwire.names import check_channel
from tellwire.node.callers import Caller, caller_of
from tellwire.node.drafts import as_json
from tellwire.node.telling import Telling, view
from tellwire.presence import Member
from tellwire.protocol.commands import Presence as PresenceCommand
from tellwire.protocol.internal import INBOX, PRESENCE
from tellwire.protocol.pushes import GapPush, PresencePush, Unsubscribed
from tellwire.subscriber import Subscriber

if TYPE_CHECKING:
    from tellwire.hub import Placement
    from tellwire.node.steward import Node, SendPush

STATE_MAX_BYTES = 4096
"""Largest state of a member: every other member is given it."""

RETRY_S = 1.0
"""Seconds after which a member that should have left, and could not be taken out of the store, is tried again."""

Attendance = Literal["enter", "watch"]
"""What a reading request wants of presence: to be a member and hear of the others, or only the latter."""


class _Hold:
    """One member of this node, and what holds it: connections, or a lease until a time of the loop's clock."""

    __slots__ = ("caller", "holders", "lock", "state", "timer", "until")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.holders: set[Subscriber] = set()
        self.until = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.lock = asyncio.Lock()  # what is announced has to be in the order of what happened
        self.state: bytes | UnsetType | None = UNSET


class Members:
    """The members that this node holds."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._holds: dict[tuple[str, str], _Hold] = {}
        self._held_by: dict[Subscriber, set[str]] = {}
        self._leased = 0  # members that no connection holds
        self.telling = Telling(node)
        self._closed = False

    # Commands

    async def handle(
        self,
        caller: Caller,
        command: PresenceCommand,
        reply: SendPush,
        subscriber: Subscriber | None = None,
        *,
        packed: bool,
    ) -> None:
        """Carry out a ``presence`` command, of a connection or of a request."""
        channel = check_channel(command.channel)
        if command.state is not UNSET and not command.enter:
            raise BadRequest("presence: a state is only a member's; say enter: true with it")
        await self._node.allow(caller, "presence", [channel])
        placements = []
        try:
            if subscriber is not None:
                wanted = [PRESENCE + channel] if command.watch else []
                wanted += [INBOX + caller.client] if command.enter else []
                wanted = [name for name in wanted if name not in subscriber.channels]
                self._node.reading.check_count(len(subscriber.channels) + len(wanted))
                for name in wanted:
                    since = command.since
                    placements.append(await self._node.reading.place({name: "catch_up"}, since, None, "oldest"))
                if command.watch is False:
                    self._node.hub.unsubscribe(subscriber, PRESENCE + channel)
            if command.enter:
                state = command.state
                checked = state if isinstance(state, UnsetType) else _state(state, packed=packed)
                await self.enter(caller, channel, checked, subscriber)
            elif command.enter is False:
                await self.leave(caller, channel)
            answer = await self.look(channel, caller.client, packed=packed)
        except BaseException:
            for placement in placements:
                self._node.hub.let_go(placement.subscriptions)
            raise
        answer.ref = command.ref
        reply(answer)
        if subscriber is not None:
            for placement in placements:
                self._join(subscriber, placement)

    def _join(self, subscriber: Subscriber, placement: Placement) -> None:
        if any(name in subscriber.channels for name in placement.subscriptions):
            self._node.hub.let_go(placement.subscriptions)
            return
        if placement.gap is not None and not subscriber.closed:
            subscriber.door.write(subscriber.encoding.push(GapPush.of(placement.gap)))
        self._node.hub.join(subscriber, placement)

    async def look(self, channel: str, client: str, *, packed: bool = False) -> PresencePush:
        """Return who is in a channel; `client` is who asks, in MessagePack where `packed`."""
        node = self._node
        node.hub.flush()
        cursor = str(Position(node.hub.epoch, node.hub.head))
        counts = await node.presence.count(channel)
        most = node.namespaces.of(channel).presence_max_members
        members = None
        if counts.clients <= most:
            members = [view(member, packed=packed) for member in await node.presence.members(channel, most)]
        return PresencePush(channel, client, members, counts.clients, counts.users, cursor)

    # Reading requests

    def channels(self, caller: Caller, channels: Iterable[str], attendance: Attendance) -> list[str]:
        """Return the channels of the server's own that a reading request reads besides."""
        names = [PRESENCE + channel for channel in channels]
        return [*names, INBOX + caller.client] if attendance == "enter" else names

    async def attend(
        self, caller: Caller, channels: Iterable[str], subscriber: Subscriber | None = None, wait_s: float = 0.0
    ) -> None:
        """Enter channels for a reading request, held by its connection, or for `wait_s` and a lease."""
        for channel in channels:
            await self.enter(caller, channel, UNSET, subscriber, wait_s)

    # Coming and going

    async def enter(
        self,
        caller: Caller,
        channel: str,
        state: bytes | UnsetType | None,
        subscriber: Subscriber | None,
        wait_s: float = 0.0,
    ) -> None:
        """Make a client a member, or replace its state; held by a connection, or by a lease."""
        # One that went while it waited does not enter: what it held from now on, nothing would ever let go of.
        while subscriber is None or not subscriber.closed:
            hold = self._hold(caller, channel, subscriber, wait_s)
            async with hold.lock:
                if self._is_current(hold, channel, caller.client):
                    await self._enter(hold, caller, channel, state)
                    return

    async def _enter(self, hold: _Hold, caller: Caller, channel: str, state: bytes | UnsetType | None) -> None:
        node = self._node
        identity = caller.identity
        assert identity is not None
        hold.caller = caller
        if isinstance(state, UnsetType):
            state = hold.state
        if isinstance(state, UnsetType):
            # It may have entered through another node, or before this one was started.
            found = await node.presence.find(channel, caller.client)
            kept = found.state if found is not None else None
        else:
            kept = state
        hold.state = kept
        since = int(time.time() * 1000)
        member = Member(channel, caller.client, identity.user, identity.info, kept, node.name, since)
        before = await node.presence.enter(member)
        node.counters.presence_enters += before is None
        if before is None:
            await self.telling.announce("join", member)
        elif (before.state, before.info) != (member.state, member.info):
            await self.telling.announce("update", msgspec.structs.replace(member, since=before.since))

    def _is_current(self, hold: _Hold, channel: str, client: str) -> bool:
        """Tell whether a hold that was waited for is still the one of its member."""
        return self._holds.get((channel, client)) is hold

    def _hold(self, caller: Caller, channel: str, subscriber: Subscriber | None, wait_s: float) -> _Hold:
        key = (channel, caller.client)
        node = self._node
        hold = self._holds.get(key)
        if subscriber is not None:
            held = self._held_by.setdefault(subscriber, set())
            if channel not in held and len(held) >= node.limits.channels_per_connection:
                node.counters.limit_hit("channels_per_connection")
                raise TooManyChannels(f"one connection enters at most {node.limits.channels_per_connection} channels")
        elif hold is None and self._leased >= node.limits.connections_max:
            node.counters.limit_hit("connections_max")
            raise Unavailable("as many clients are held by leases as may be; connect, or try again later")
        if hold is None:
            hold = self._new_hold(key, caller)
        if subscriber is not None:
            self._leased -= not hold.holders
            hold.holders.add(subscriber)
            held.add(channel)
        else:
            loop = asyncio.get_running_loop()
            hold.until = max(hold.until, loop.time() + wait_s + node.limits.presence_lease_s)
            if not hold.holders:
                self._arm(key, hold)
        return hold

    def _new_hold(self, key: tuple[str, str], caller: Caller) -> _Hold:
        hold = self._holds[key] = _Hold(caller)
        self._leased += 1
        return hold

    async def leave(self, caller: Caller, channel: str) -> None:
        """End a client's membership, however it is held."""
        key = (channel, caller.client)
        while True:
            # Also what another node holds is waited for in turn: one may be about to enter here.
            hold = self._holds.get(key) or self._new_hold(key, caller)
            async with hold.lock:
                if self._is_current(hold, *key):
                    await self._end(key, hold, None)
                    return

    async def recheck(self, subscriber: Subscriber, reply: SendPush) -> None:
        """End what a connection watches, and is a member of, where it may not any more."""
        caller = caller_of(subscriber)
        watched = [name.removeprefix(PRESENCE) for name in subscriber.channels if name.startswith(PRESENCE)]
        for channel in dict.fromkeys((*watched, *self._held_by.get(subscriber, ()))):
            try:
                await self._node.allow(caller, "presence", [channel])
            except Forbidden as exc:
                if self._node.hub.unsubscribe(subscriber, PRESENCE + channel):
                    reply(Unsubscribed(PRESENCE + channel, None, exc.code))
                await self._let_go(subscriber, channel)

    async def expel(self, subscriber: Subscriber, channel: str) -> None:
        """End what a connection watches of a channel, and that it is a member of it."""
        self._node.hub.unsubscribe(subscriber, PRESENCE + channel)
        await self._let_go(subscriber, channel)

    async def _let_go(self, subscriber: Subscriber, channel: str) -> None:
        """End a membership as far as one connection holds it."""
        hold = self._holds.get((channel, subscriber.client))
        if hold is None or subscriber not in hold.holders:
            return
        if len(hold.holders) == 1:
            await self.leave(caller_of(subscriber), channel)
        else:
            hold.holders.discard(subscriber)
            self._held_by[subscriber].discard(channel)

    def release(self, subscriber: Subscriber) -> None:
        """Hold nothing for a connection that is over."""
        for channel in self._held_by.pop(subscriber, ()):
            key = (channel, subscriber.client)
            hold = self._holds.get(key)
            if hold is None or subscriber not in hold.holders:
                continue
            hold.holders.discard(subscriber)
            if not hold.holders:
                self._leased += 1
                until = asyncio.get_running_loop().time() + self._node.limits.presence_grace_s
                hold.until = max(hold.until, until)
                self._arm(key, hold)

    def _arm(self, key: tuple[str, str], hold: _Hold) -> None:
        if hold.timer is None and not self._closed:
            hold.timer = asyncio.get_running_loop().call_at(hold.until, self._lapse, key, hold)

    def _lapse(self, key: tuple[str, str], hold: _Hold) -> None:
        hold.timer = None
        if hold.holders or self._holds.get(key) is not hold:
            return
        if asyncio.get_running_loop().time() < hold.until:
            self._arm(key, hold)
            return
        self._node.tasks.start(self._lapsed(key, hold))

    async def _lapsed(self, key: tuple[str, str], hold: _Hold) -> None:
        async with hold.lock:
            if hold.holders or not self._is_current(hold, *key) or asyncio.get_running_loop().time() < hold.until:
                return  # it came back while this waited
            await self._end(key, hold, self._node.name)

    async def _end(self, key: tuple[str, str], hold: _Hold, node: str | None) -> None:
        """End a membership, whose lock is held: until that is told, nobody enters anew."""
        try:
            member = await self._node.presence.leave(*key, node=node)
        except TellwireError:
            if not hold.holders:
                hold.until = asyncio.get_running_loop().time() + RETRY_S
                self._arm(key, hold)
            raise
        if member is not None:
            self._node.counters.presence_leaves += 1
            await self.telling.announce("leave", member)
        self._forget(key, hold)

    def _forget(self, key: tuple[str, str], hold: _Hold) -> None:
        del self._holds[key]
        self._leased -= not hold.holders
        for holder in hold.holders:
            self._held_by[holder].discard(key[0])
        hold.holders.clear()
        if hold.timer is not None:
            hold.timer.cancel()
            hold.timer = None

    async def enter_again(self) -> None:
        """Enter all members anew: the lease was over, and another node may have swept them."""
        for (channel, _), hold in list(self._holds.items()):
            if hold.caller.identity is not None:
                await self.enter(hold.caller, channel, UNSET, next(iter(hold.holders), None))
        self._node.departures.note_again()

    def close(self) -> None:
        """Let the store's members be: whoever comes back within the lease, to this node's successor, never left.

        May be called twice: what a node that goes away closes is no reason to leave.
        """
        self._closed = True
        for hold in self._holds.values():
            if hold.timer is not None:
                hold.timer.cancel()
        self.telling.close()


def _state(raw: Raw, *, packed: bool) -> bytes:
    state = bytes(raw)
    if len(state) > STATE_MAX_BYTES:
        raise TooLarge(f"presence: a state has at most {STATE_MAX_BYTES} bytes; this one has {len(state)}")
    return as_json(state, packed=packed)
