"""The contract of members that are left behind: by a process that ended, by a node that died beside others."""

from __future__ import annotations

import asyncio

from tellwire.presence.base import Counts
from tellwire.testing.harness import Clock, on_loop
from tellwire.testing.members import LEASE_S, MakePresence, member, opened, sweep_all


class LastingPresenceContract:
    """What a store that outlives its process promises besides."""

    @on_loop
    async def test_presence_of_a_former_node_is_swept_once_its_lease_is_over(self, make_presence: MakePresence) -> None:
        clock = Clock()
        left = [member("room", f"c{number}", f"u{number % 3}", since=number, state=b"1") for number in range(10)]
        async with opened(make_presence(clock=clock)) as presence:
            for each in left:
                await presence.enter(each)
            clock.advance(LEASE_S / 3)
            assert await presence.beat() is True
        clock.advance(LEASE_S - 1)
        async with opened(make_presence(clock=clock), "n2") as presence:
            assert await presence.sweep() == []
            assert await presence.members("room", 100) == left
            assert await presence.count("room") == Counts(10, 3)
            clock.advance(1)
            assert sorted(await sweep_all(presence, 3), key=lambda each: each.since) == left
            assert await presence.count("room") == Counts(0, 0)
        clock.advance(LEASE_S)
        async with opened(make_presence(clock=clock), "n3") as presence:
            assert await presence.sweep() == []

    @on_loop
    async def test_presence_that_comes_back_is_taken_over(self, make_presence: MakePresence) -> None:
        clock = Clock()
        async with opened(make_presence(clock=clock)) as presence:
            for client in ("c1", "c2", "c3"):
                await presence.enter(member("room", client, "alice", since=5))
        async with opened(make_presence(clock=clock), "n2") as presence:
            assert await presence.enter(member("room", "c1", "bob", node="n2", since=9)) == member(
                "room", "c1", "alice", since=5
            )
            taken = member("room", "c1", "bob", node="n2", since=5)
            assert await presence.leave("room", "c1", node="n1") is None
            assert await presence.leave("room", "c2") == member("room", "c2", "alice", since=5)
            clock.advance(LEASE_S)
            await presence.beat()
            assert await sweep_all(presence) == [member("room", "c3", "alice", since=5)]
            assert await presence.members("room", 10) == [taken]
        clock.advance(LEASE_S)
        async with opened(make_presence(clock=clock), "n3") as presence:
            assert await sweep_all(presence) == [taken]

    @on_loop
    async def test_presence_of_several_former_nodes_goes_lease_by_lease(self, make_presence: MakePresence) -> None:
        clock = Clock()
        for number in (1, 2, 3):
            async with opened(make_presence(clock=clock), f"n{number}") as presence:
                await presence.enter(member("room", f"c{number}", node=f"n{number}"))
            clock.advance(LEASE_S / 6)
        async with opened(make_presence(clock=clock), "n4") as presence:
            clock.advance(LEASE_S / 2)
            assert [each.client for each in await sweep_all(presence)] == ["c1"]
            clock.advance(LEASE_S / 3)
            assert sorted(each.client for each in await sweep_all(presence)) == ["c2", "c3"]

    @on_loop
    async def test_presence_order_is_kept_over_a_restart(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            for since, client in enumerate("cab"):
                await presence.enter(member("room", client, since=since))
        async with opened(make_presence(), "n2") as presence:
            await presence.enter(member("room", "d", node="n2", since=8))
            await presence.enter(member("room", "a", node="n2", since=9))
            assert [each.client for each in await presence.members("room", 10)] == list("cabd")


class SharedPresenceContract:
    """What a store promises that several nodes have open at once."""

    @on_loop
    async def test_presence_is_seen_by_every_node(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as one, opened(make_presence(), "n2") as two:
            await one.enter(member("room", "c1", "alice", since=1))
            await two.enter(member("room", "c2", "alice", node="n2", since=2))
            assert await one.members("room", 10) == await two.members("room", 10)
            assert await one.count("room") == Counts(2, 1)
            assert await two.leave("room", "c1") == member("room", "c1", "alice", since=1)
            assert await one.find("room", "c1") is None

    @on_loop
    async def test_presence_lives_as_long_as_its_node_beats(self, make_presence: MakePresence) -> None:
        clock = Clock()
        async with opened(make_presence(clock=clock)) as one, opened(make_presence(clock=clock), "n2") as two:
            await one.enter(member("room", "c1"))
            for _ in range(10):
                clock.advance(LEASE_S - 0.001)
                assert await two.sweep() == []
                assert await one.beat() is True
                assert await two.beat() is True
            clock.advance(LEASE_S)
            assert await two.sweep() == [member("room", "c1")]
            assert await one.beat() is False
            assert await one.beat() is True
            assert await one.enter(member("room", "c1", since=9)) is None
            assert await two.sweep() == []

    @on_loop
    async def test_presence_node_back_in_the_middle_of_a_sweep_is_told(self, make_presence: MakePresence) -> None:
        clock = Clock()
        async with opened(make_presence(clock=clock)) as one, opened(make_presence(clock=clock), "n2") as two:
            for client in ("c1", "c2"):
                await one.enter(member("room", client))
            clock.advance(LEASE_S)
            swept = await two.sweep(1)
            assert len(swept) == 1
            assert await one.beat() is False
            assert await two.sweep(1) == []
            (left,) = await one.members("room", 10)
            assert {left.client, swept[0].client} == {"c1", "c2"}

    @on_loop
    async def test_presence_of_a_dead_node_goes_to_one_sweeper(self, make_presence: MakePresence) -> None:
        clock = Clock()
        entered = [member(f"room{number % 7}", f"c{number}", since=number) for number in range(200)]
        async with (
            opened(make_presence(clock=clock)) as one,
            opened(make_presence(clock=clock), "n2") as two,
            opened(make_presence(clock=clock), "n3") as three,
        ):
            await asyncio.gather(*map(one.enter, entered))
            clock.advance(LEASE_S)
            await asyncio.gather(two.beat(), three.beat())
            swept = await asyncio.gather(*(sweep_all(each, 30) for each in (two, three, two, three)))
            late = await asyncio.gather(*(one.leave(each.channel, each.client) for each in entered))
            assert late == [None] * 200
            assert sorted((each for part in swept for each in part), key=lambda each: each.since) == entered

    @on_loop
    async def test_presence_taken_over_stays_with_the_node_that_took_it(self, make_presence: MakePresence) -> None:
        clock = Clock()
        async with opened(make_presence(clock=clock)) as one, opened(make_presence(clock=clock), "n2") as two:
            await one.enter(member("room", "c1", since=3))
            assert await two.enter(member("room", "c1", node="n2", since=8)) == member("room", "c1", since=3)
            assert await one.leave("room", "c1", node="n1") is None
            clock.advance(LEASE_S)
            await two.beat()
            assert await two.sweep() == []
            assert await two.members("room", 10) == [member("room", "c1", node="n2", since=3)]

    @on_loop
    async def test_presence_entered_without_a_lease_can_be_swept(self, make_presence: MakePresence) -> None:
        clock = Clock()
        async with opened(make_presence(clock=clock)) as one, opened(make_presence(clock=clock), "n2") as two:
            clock.advance(LEASE_S)
            await two.beat()
            assert await two.sweep() == []  # nothing is left of the first node
            await one.enter(member("room", "c1"))
            assert await two.sweep() == [member("room", "c1")]
            await one.enter(member("room", "c1"))
            assert await one.beat() is False
            assert await two.sweep() == []
