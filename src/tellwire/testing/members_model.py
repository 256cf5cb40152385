"""A property of every store of presence: it does what a dict with leases would do. Needs hypothesis."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from tellwire.presence.base import Counts, Member, Presence
from tellwire.testing.harness import Clock
from tellwire.testing.members import LEASE_S, MakePresence, sweep_all

T = TypeVar("T")

CHANNELS = ("", "room", "hall")
CLIENTS = ("c1", "c2", "c3", "c4")
LEASE_MS = int(LEASE_S * 1000)

_stores = itertools.count()

_channels = st.sampled_from(CHANNELS)
_clients = st.sampled_from(CLIENTS)
_users = st.sampled_from([None, None, "alice", "bob"])
_states = st.sampled_from([None, b"1", b'{"typing":true}'])
_slots = st.integers(0, 2)


class PresenceModelContract:
    """Adds the property to a suite with the fixture ``make_presence``, of a store that outlives those who open it."""

    nodes_at_once = 1
    """How many have the store open at the same time, from one to three."""

    def test_presence_does_what_a_dict_with_leases_does(self, make_presence: MakePresence) -> None:
        nodes_at_once = self.nodes_at_once

        class Machine(_Machine):
            def __init__(self) -> None:
                super().__init__(make_presence, nodes_at_once)

        run_state_machine_as_test(
            Machine,
            settings=settings(
                deadline=None,
                max_examples=40,
                stateful_step_count=30,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )


class _Machine(RuleBasedStateMachine):
    """Nodes that come and go; what they were told is compared with a dict, step by step."""

    def __init__(self, make_presence: MakePresence, nodes_at_once: int) -> None:
        super().__init__()
        self.make_presence = make_presence
        self.store = f"model-{next(_stores)}"
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.names = (f"n{number}" for number in itertools.count())
        self.sinces = itertools.count(1)
        self.here: dict[tuple[str, str], Member] = {}
        self.until: dict[str, int] = {}
        self.robbed: set[str] = set()
        """Nodes whose members were swept since they last renewed their lease."""
        self.open: list[tuple[Presence, str]] = [self.opened() for _ in range(nodes_at_once)]

    def teardown(self) -> None:
        """Check that everything is handed out in the end, to those who come later."""
        try:
            for presence, _ in self.open:
                self.do(presence.aclose())
            self.clock.advance(LEASE_S)
            presence, node = self.opened()
            self.handed_out(self.do(sweep_all(presence, 3)), node)
            assert self.here == {}
            assert [self.do(presence.count(channel)) for channel in CHANNELS] == [Counts(0, 0)] * len(CHANNELS)
            self.do(presence.aclose())
        finally:
            self.runner.close()

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def opened(self) -> tuple[Presence, str]:
        presence, node = self.make_presence(clock=self.clock, store=self.store), next(self.names)
        self.do(presence.open(node, LEASE_S))
        self.until[node] = self.clock.now_ms + LEASE_MS
        return presence, node

    def at(self, slot: int) -> tuple[Presence, str]:
        return self.open[slot % len(self.open)]

    def handed_out(self, members: Iterable[Member], sweeper: str) -> None:
        """Take off what a sweep brought: only what was here, and not while its node lived."""
        for member in members:
            assert self.here.pop((member.channel, member.client), None) == member
            assert self.until[member.node] <= self.clock.now_ms, "a living node's member was swept"
            assert member.node != sweeper
            self.robbed.add(member.node)

    @rule(slot=_slots, channel=_channels, client=_clients, user=_users, state=_states)
    def enter(self, slot: int, channel: str, client: str, user: str | None, state: bytes | None) -> None:
        """Come in, again perhaps, and perhaps from where another node held it."""
        presence, node = self.at(slot)
        member = Member(channel, client, user, None, state, node, next(self.sinces))
        before = self.here.get((channel, client))
        assert self.do(presence.enter(member)) == before
        self.here[channel, client] = member if before is None else replace(member, since=before.since)

    @rule(slot=_slots, channel=_channels, client=_clients)
    def leave(self, slot: int, channel: str, client: str) -> None:
        """Go, whoever holds it."""
        presence, _ = self.at(slot)
        assert self.do(presence.leave(channel, client)) == self.here.pop((channel, client), None)

    @rule(slot=_slots, channel=_channels, client=_clients)
    def leave_own(self, slot: int, channel: str, client: str) -> None:
        """Go, unless another node has taken it over."""
        presence, node = self.at(slot)
        here = self.here.get((channel, client))
        left = self.do(presence.leave(channel, client, node=node))
        assert left == (here if here is not None and here.node == node else None)
        if left is not None:
            del self.here[channel, client]

    @rule(slot=_slots)
    def beat(self, slot: int) -> None:
        """Renew a lease, which may be over by now."""
        presence, node = self.at(slot)
        kept = self.do(presence.beat())
        assert kept is True or self.until[node] <= self.clock.now_ms
        assert kept is False or node not in self.robbed
        self.until[node] = self.clock.now_ms + LEASE_MS
        self.robbed.discard(node)

    @rule(slot=_slots, limit=st.sampled_from([1, 2, 1000]))
    def sweep(self, slot: int, limit: int) -> None:
        """Take those whose node is gone; nothing comes only where there is nothing."""
        presence, node = self.at(slot)
        gone = {key for key, member in self.here.items() if self.is_over(member.node, node)}
        swept = self.do(presence.sweep(limit))
        assert min(len(gone), 1) <= len(swept) <= limit
        self.handed_out(swept, node)

    @rule(channel=_channels, client=_clients)
    def race(self, channel: str, client: str) -> None:
        """Everybody sweeps and leaves at once."""

        async def race() -> tuple[list[Member | None], list[list[Member]]]:
            leaves = asyncio.gather(*(presence.leave(channel, client) for presence, _ in self.open * 2))
            sweeps = asyncio.gather(*(presence.sweep() for presence, _ in self.open * 2))
            return await leaves, await sweeps

        left, swept = self.do(race())
        for (_, node), members in zip(self.open * 2, swept, strict=True):
            self.handed_out(members, node)
        (*gone,) = (member for member in left if member is not None)
        here = self.here.pop((channel, client), None)
        assert gone == ([] if here is None else [here])

    @rule(seconds=st.sampled_from([1.0, LEASE_S / 3, LEASE_S]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule(slot=_slots)
    def restart(self, slot: int) -> None:
        """End a node, whose members stay, and begin another one."""
        slot %= len(self.open)
        self.do(self.open[slot][0].aclose())
        self.open[slot] = self.opened()

    def is_over(self, node: str, own: str) -> bool:
        return node != own and self.until[node] <= self.clock.now_ms

    @invariant()
    def everybody_sees_the_same(self) -> None:
        """Compare what every node reads with the dict."""
        self.do(self.compare())

    async def compare(self) -> None:
        for channel in CHANNELS:
            wanted = sorted((m for m in self.here.values() if m.channel == channel), key=lambda member: member.since)
            users = {member.user for member in wanted} - {None}
            counts = Counts(len(wanted), len(users) + sum(member.user is None for member in wanted))
            for presence, _ in self.open:
                assert await presence.members(channel, 100) == wanted
                assert await presence.members(channel, 2) == wanted[:2]
                assert await presence.count(channel) == counts
                assert await presence.find(channel, "c1") == self.here.get((channel, "c1"))
