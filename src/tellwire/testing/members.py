"""The suite that every store of presence passes.

A store of one's own is held to it by one fixture::

    from tellwire.testing.members import MakePresence, PresenceContract

    class TestMine(PresenceContract):
        @pytest.fixture
        def make_presence(self, tmp_path) -> MakePresence:
            def make(*, clock=None, store="main"):
                return MyPresence(...)
            return make

``members_left`` has the tests of stores that outlive their process, or that several nodes have open at once;
``members_model`` a property test (needs hypothesis).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import pytest

from tellwire.errors import Unavailable
from tellwire.presence.base import Counts, Member, Presence
from tellwire.testing.harness import Clock, on_loop

LEASE_S = 30.0


class MakePresence(Protocol):
    """Makes a store that is not opened yet; what the fixture ``make_presence`` returns."""

    def __call__(self, *, clock: Callable[[], int] | None = None, store: str = "main") -> Presence:
        """Make a store.

        Args:
            clock: Milliseconds since 1970; None means the machine's.
            store: Names where the members live. In one test, a store that lasts or is shared finds under the same name
                what another one put there; a new name is empty.
        """


def member(
    channel: str,
    client: str,
    user: str | None = None,
    *,
    node: str = "n1",
    since: int = 1,
    info: bytes | None = None,
    state: bytes | None = None,
) -> Member:
    """Make a member of node ``n1``."""
    return Member(channel, client, user, info, state, node, since)


@asynccontextmanager
async def opened(presence: Presence, node: str = "n1") -> AsyncIterator[Presence]:
    """Open a store as a node, and close it at the end."""
    try:
        await presence.open(node, LEASE_S)
        yield presence
    finally:
        await presence.aclose()


async def sweep_all(presence: Presence, limit: int = 1000) -> list[Member]:
    """Sweep until it brings nothing."""
    swept: list[Member] = []
    while found := await presence.sweep(limit):
        assert len(found) <= limit
        swept += found
    return swept


class PresenceContract:
    """The tests of `tellwire.presence.base.Presence`; a subclass gives the fixture ``make_presence``."""

    @pytest.fixture
    def make_presence(self) -> MakePresence:
        """Return what makes the stores under test, not yet opened; to be overridden."""
        pytest.fail(f"{type(self).__name__} has to override the fixture make_presence; see {__name__}")

    @on_loop
    async def test_presence_enter_find_leave(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            alice = member("room", "c1", "alice", info=b'{"name":"A"}', state=b"7")
            assert await presence.enter(alice) is None
            assert await presence.find("room", "c1") == alice
            assert await presence.members("room", 10) == [alice]
            assert await presence.find("room", "c2") is None
            assert await presence.find("other", "c1") is None
            assert await presence.leave("room", "c2") is None
            assert await presence.leave("other", "c1") is None
            assert await presence.leave("room", "c1") == alice
            assert await presence.leave("room", "c1") is None
            assert await presence.find("room", "c1") is None
            assert await presence.members("room", 10) == []
            assert await presence.count("room") == Counts(0, 0)

    @on_loop
    async def test_presence_entering_again_replaces_all_but_since(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            first = member("room", "c1", "alice", since=5, state=b"1", info=b"2")
            again = member("room", "c1", "bob", since=9)
            await presence.enter(first)
            assert await presence.enter(again) == first
            kept = member("room", "c1", "bob", since=5)
            assert await presence.find("room", "c1") == kept
            assert await presence.count("room") == Counts(1, 1)
            assert await presence.leave("room", "c1") == kept
            assert await presence.enter(again) is None
            assert await presence.find("room", "c1") == again

    @on_loop
    async def test_presence_counts_users_and_those_without(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            for client, user in [("c1", "alice"), ("c2", "alice"), ("c3", None), ("c4", None), ("c5", "bob")]:
                await presence.enter(member("room", client, user))
            await presence.enter(member("other", "c1", "carol"))
            assert await presence.count("room") == Counts(5, 4)
            await presence.leave("room", "c1")
            assert await presence.count("room") == Counts(4, 4)
            await presence.enter(member("room", "c3", "bob"))
            assert await presence.count("room") == Counts(4, 3)
            await presence.enter(member("room", "c2", None))
            assert await presence.count("room") == Counts(4, 3)
            await presence.leave("room", "c2")
            await presence.leave("room", "c4")
            assert await presence.count("room") == Counts(2, 1)
            assert await presence.count("other") == Counts(1, 1)

    @on_loop
    async def test_presence_lists_the_oldest_first(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            for since, client in enumerate("dbacfe"):
                await presence.enter(member("room", client, since=since))
            await presence.enter(member("room", "d", since=100))  # it stays where it is
            await presence.leave("room", "b")
            await presence.enter(member("room", "b", since=101))  # it is new
            assert [found.client for found in await presence.members("room", 100)] == list("dacfeb")
            assert [found.client for found in await presence.members("room", 2)] == list("da")
            assert await presence.members("room", 0) == []

    @pytest.mark.parametrize(
        ("channel", "client", "user"),
        [
            ("", "c", None),
            ("room", "", ""),
            ("a\0b", "c\0d", "e\0f"),
            ("é:*'%", "'; --", "🦉"),
            ("x" * 255, "y" * 64, "z"),
        ],
    )
    @on_loop
    async def test_presence_takes_names_as_they_come(
        self, make_presence: MakePresence, channel: str, client: str, user: str | None
    ) -> None:
        async with opened(make_presence()) as presence:
            entered = member(channel, client, user, info=b"\xff\0", state=b"")
            await presence.enter(entered)
            await presence.enter(member("a", "c", "e"))
            assert await presence.find(channel, client) == entered
            assert await presence.count(channel) == Counts(1, 1)
            assert await presence.leave(channel, client) == entered

    @on_loop
    async def test_presence_leave_with_a_node_takes_only_its_own(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            entered = member("room", "c1")
            await presence.enter(entered)
            assert await presence.leave("room", "c1", node="n2") is None
            assert await presence.find("room", "c1") == entered
            assert await presence.leave("room", "c1", node="n1") == entered

    @on_loop
    async def test_presence_refuses_to_enter_for_another_node(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            with pytest.raises(ValueError, match="'n2'"):
                await presence.enter(member("room", "c1", node="n2"))
            assert await presence.count("room") == Counts(0, 0)

    @on_loop
    async def test_presence_hands_a_member_to_one_of_many_leaves(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            entered = [member("room", f"c{number}", since=number) for number in range(100)]
            await asyncio.gather(*map(presence.enter, entered))
            leaves = [presence.leave("room", each.client) for each in entered for _ in range(5)]
            gone = [left for left in await asyncio.gather(*leaves) if left is not None]
            assert sorted(gone, key=lambda each: each.since) == entered
            assert await presence.count("room") == Counts(0, 0)

    @on_loop
    async def test_presence_takes_changes_of_a_member_in_order(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            states = [member("room", "c1", since=7, state=b"%d" % number) for number in range(50)]
            enters = [asyncio.ensure_future(presence.enter(each)) for each in states]
            left = asyncio.ensure_future(presence.leave("room", "c1"))
            again = asyncio.ensure_future(presence.enter(states[0]))
            assert await asyncio.gather(*enters) == [None, *states[:-1]]
            assert await left == states[-1]
            assert await again is None
            assert await presence.members("room", 10) == [states[0]]

    @on_loop
    async def test_presence_keeps_what_a_cancelled_caller_began(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            enter = asyncio.ensure_future(presence.enter(member("room", "c1")))
            await asyncio.sleep(0)  # it has begun
            enter.cancel()
            await presence.enter(member("room", "c2"))
            assert await presence.count("room") == Counts(2, 2)

    @on_loop
    async def test_presence_never_sweeps_its_own(self, make_presence: MakePresence) -> None:
        clock = Clock()
        async with opened(make_presence(clock=clock)) as presence:
            await presence.enter(member("room", "c1"))
            assert await presence.sweep() == []
            assert await presence.beat() is True
            clock.advance(10 * LEASE_S)
            assert await presence.sweep() == []
            assert await presence.count("room") == Counts(1, 1)

    @on_loop
    async def test_presence_is_used_between_open_and_close(self, make_presence: MakePresence) -> None:
        presence = make_presence()
        with pytest.raises(Unavailable, match="not open"):
            await presence.enter(member("room", "c1"))
        async with opened(presence):
            await presence.enter(member("room", "c1"))
            with pytest.raises(Unavailable, match="opened before"):
                await presence.open("n2", LEASE_S)
            await asyncio.gather(presence.aclose(), presence.aclose())
            for operation in (
                presence.enter(member("room", "c1")),
                presence.leave("room", "c1"),
                presence.members("room", 1),
                presence.count("room"),
                presence.find("room", "c1"),
                presence.beat(),
                presence.sweep(),
            ):
                with pytest.raises(Unavailable, match="not open"):
                    await operation
            with pytest.raises(Unavailable, match="opened before"):
                await presence.open("n2", LEASE_S)
        await make_presence(store="never opened").aclose()

    @on_loop
    async def test_presence_close_finishes_what_was_begun(self, make_presence: MakePresence) -> None:
        async with opened(make_presence()) as presence:
            enters = [asyncio.ensure_future(presence.enter(member("room", f"c{number}"))) for number in range(300)]
            await asyncio.sleep(0)
            await presence.aclose()
            assert await asyncio.gather(*enters) == [None] * 300
