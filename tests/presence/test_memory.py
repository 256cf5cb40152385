"""Presence in memory: the contract, and that it never waits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tellwire.presence import make_presence as make_presence_of
from tellwire.presence.base import Presence
from tellwire.presence.memory import MemoryPresence
from tellwire.presence.table import Table
from tellwire.testing.harness import on_loop
from tellwire.testing.members import (
    LEASE_S,
    MakePresence,
    PresenceContract,
    member,
    opened,
)
from tellwire.testing.members_left import LastingPresenceContract, SharedPresenceContract
from tellwire.testing.members_model import PresenceModelContract


class TestMemoryPresence(PresenceContract, LastingPresenceContract, SharedPresenceContract, PresenceModelContract):
    """The contract, over tables that are found again by their names."""

    nodes_at_once = 3

    @pytest.fixture
    def make_presence(self) -> MakePresence:
        tables: defaultdict[str, Table] = defaultdict(Table)

        def make(*, clock: Callable[[], int] | None = None, store: str = "main") -> Presence:
            return MemoryPresence(tables[store]) if clock is None else MemoryPresence(tables[store], clock=clock)

        return make


@on_loop
async def test_memory_presence_has_a_table_of_its_own() -> None:
    one, two = make_presence_of("memory://"), make_presence_of("memory://?anything=1")
    async with opened(one), opened(two, "n2"):
        await one.enter(member("room", "c1"))
        assert await two.find("room", "c1") is None


def test_memory_presence_never_waits() -> None:
    presence = MemoryPresence()
    operations: list[Coroutine[Any, Any, object]] = [
        presence.open("n1", LEASE_S),
        presence.enter(member("room", "c1")),
        presence.find("room", "c1"),
        presence.members("room", 10),
        presence.count("room"),
        presence.beat(),
        presence.sweep(),
        presence.leave("room", "c1"),
        presence.aclose(),
    ]
    for operation in operations:
        with pytest.raises(StopIteration):
            operation.send(None)


def test_table_forgets_channels_users_and_nodes_that_are_gone() -> None:
    table = Table()
    table.renew("n1", 10)
    for number in range(100):
        table.enter(member(f"room{number}", "c1", f"u{number}"))
        table.leave(f"room{number}", "c1")
    table.forget(["n1"])
    assert (table._rooms, table._holders) == ({}, {})
