"""Everything at once, in any order, against a plain list: nothing lost, doubled or reordered, or a gap says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tellwire.brokers.memory import MemoryBroker
from tellwire.errors import Conflict
from tellwire.hub import WHEEL_SLOTS
from tellwire.limits import Limits
from tellwire.message import Position
from tellwire.names import Namespace, Namespaces, Policy
from tellwire.node import Node
from tellwire.protocol.commands import OnGap, Publish
from tellwire.testing.doors import SocketDoor, settle, somebody
from tellwire.testing.faulty import FaultyBroker
from tellwire.testing.harness import Clock
from tests.model.connections import KINDS, TALKS, Connection, Start
from tests.model.expected import Client, History, Item

T = TypeVar("T")

BITE_BYTES = 700
TAIL_BYTES = 6_000
CHANNELS = ("a", "b", "short:a", "short:b", "old:a", "small:a", "small:b", "cut:a", "newest:a", "fleeting:a")
SESSIONS = ("s0", "s1", "s2")
BURST_MAX = 8
WAITING_MAX_BYTES = 40_000
"""More than any rule here makes a door hold that is written to only when it is writable."""

ROUNDS_MAX = 2_000
"""More than it takes to read everything through the smallest socket."""

NAMESPACES = Namespaces(
    [
        Namespace("short", history_messages=3),
        Namespace("old", history_age_s=30),
        Namespace("small", history_bytes=2_500),
        Namespace("cut", policy="disconnect"),
        Namespace("newest", policy="latest", history_messages=20),
        Namespace("fleeting", ephemeral=True),
    ]
)

publishes = st.fixed_dictionaries(
    {
        "channel": st.sampled_from(CHANNELS),
        "size": st.sampled_from([0, 0, 40, 400]),
        "key": st.sampled_from([None, None, "k1", "k2"]),
        "ephemeral": st.sampled_from([False, False, False, True]),
        "skip": st.sampled_from(["", "", "", *SESSIONS]),
        "given": st.sampled_from([None, None, None, "x", "y"]),
        "expect": st.sampled_from([None, None, None, "right", "wrong"]),
    }
)
starts = st.one_of(
    st.sampled_from([("now", 0), ("earliest", 0), ("foreign", 0), ("shards", 0), ("ahead", 3), ("lost", 2)]),
    st.tuples(st.sampled_from(["last", "back", "back", "integer"]), st.integers(0, 30)),
)
policies = st.sampled_from([None, None, "catch_up", "latest", "disconnect"])
gap_choices = st.sampled_from(["oldest", "oldest", "newest"])
capacities = st.sampled_from([80, 300, 1_500, 1 << 30])
channel_sets = st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=4, unique=True)
picks = st.integers(0, 100)


class Everything(RuleBasedStateMachine):
    """Publishers, readers over every door, cuts, resumes, trims, lost logs, slow sockets and slow reads."""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.broker = FaultyBroker(NAMESPACES, clock=self.clock)
        self.node = Node(
            self.broker,
            namespaces=NAMESPACES,
            limits=Limits(tail_max_bytes=TAIL_BYTES, read_bite_bytes=BITE_BYTES),
        )
        self.history = History()
        self.connections: list[Connection] = []
        self.cut_off: list[Connection] = []
        self.published = 0
        self.lost_epochs: list[Position] = []
        self.holds = False
        self._on_loop(self.node.hub.open())

    def _on_loop(self, coro: Coroutine[Any, Any, T]) -> T:
        async def run() -> T:
            result = await coro
            await settle()
            return result

        return self.loop.run_until_complete(run())

    def _do(self, what: Any, *args: Any) -> None:
        """Call something that is plain but needs the loop running, and what comes of it."""

        async def call() -> None:
            what(*args)

        self._on_loop(call())

    # Publishing

    @rule(burst=st.lists(publishes, min_size=1, max_size=BURST_MAX), pause=st.booleans())
    def publish(self, burst: list[dict[str, Any]], pause: bool) -> None:
        async def all_of_them() -> None:
            for each in burst:
                await self._publish(**each)
                if pause:
                    await settle()

        self._on_loop(all_of_them())

    async def _publish(
        self,
        channel: str,
        size: int,
        key: str | None,
        ephemeral: bool,
        skip: str,
        given: str | None,
        expect: str | None,
    ) -> None:
        self.published += 1
        epoch = self.broker.head.epoch
        of_channel = self.history.channels[epoch, channel]
        newest = of_channel[-1].seq if of_channel else 0
        data = json.dumps({"n": self.published, "pad": "x" * size}).encode()
        command = Publish(
            channel=channel,
            data=msgspec.Raw(data),
            id=given,
            key=key,
            ephemeral=ephemeral,
            echo=not skip,
            expect=None if expect is None else f"{epoch}.{newest if expect == 'right' else newest + 1}",
        )
        after = self.broker.head.seq
        try:
            appended = await self.node.publish(command, somebody(skip or None), packed=False)
        except Conflict:
            assert expect == "wrong" or channel.startswith("small")  # an emptied channel has forgotten its newest
            return
        if appended.duplicate:
            assert given is not None
            return
        assert ephemeral or channel.startswith("fleeting") or expect != "wrong"
        seq = appended.position.seq if appended.position else 0
        self.history.add(Item(self.published, channel, seq, epoch, key, skip, after))

    # Reading

    def _start(self, start: tuple[str, int]) -> Start:
        word, count = start
        head = self.broker.head
        match word:
            case "now" | "earliest":
                return {"since": word}
            case "last":
                return {"last": count}
            case "foreign":
                return {"since": "zzzzzzzz.5"}
            case "shards":
                return {"since": f"{head},{head}"}
            case "ahead":
                return {"since": str(Position(head.epoch, head.seq + count))}
            case "lost" if self.lost_epochs:
                return {"since": str(self.lost_epochs[-1])}
            case "integer":
                return {"since": max(0, head.seq - count)}
        return {"since": str(Position(head.epoch, max(0, head.seq - count)))}

    @precondition(lambda self: len(self.connections) < 6)
    @rule(
        kind=st.sampled_from(KINDS),
        channels=channel_sets,
        start=starts,
        policy=policies,
        on_gap=gap_choices,
        capacity=capacities,
        session=st.sampled_from(SESSIONS),
    )
    def connect(
        self,
        kind: str,
        channels: list[str],
        start: tuple[str, int],
        policy: Policy | None,
        on_gap: OnGap,
        capacity: int,
        session: str,
    ) -> None:
        client = Client(self.history, session, self.broker.head.epoch)
        connection = Connection(self.node, client, kind, capacity, policy, on_gap)
        self.connections.append(connection)
        self._do(connection.open, dict.fromkeys(channels, self._start(start)))

    def _pick(self, pick: int) -> Connection:
        return self.connections[pick % len(self.connections)]

    @precondition(lambda self: self.connections)
    @rule(pick=picks, channel=st.sampled_from(CHANNELS), start=starts)
    def subscribe(self, pick: int, channel: str, start: tuple[str, int]) -> None:
        connection = self._pick(pick)
        if connection.talk is not None and channel not in connection.wanted | connection.leaving:
            self._do(connection.subscribe, channel, self._start(start))

    @precondition(lambda self: self.connections)
    @rule(pick=picks, which=picks, again=st.none() | starts)
    def unsubscribe(self, pick: int, which: int, again: tuple[str, int] | None) -> None:
        connection = self._pick(pick)
        channels = sorted(set(connection.client.readings) - connection.leaving)
        if connection.talk is not None and channels:
            channel = channels[which % len(channels)]
            self._do(connection.unsubscribe, channel)
            if again is not None:
                self._do(connection.subscribe, channel, self._start(again))

    @precondition(lambda self: self.connections)
    @rule(pick=picks, count=st.sampled_from([50, 500, 5_000, None]))
    def drain(self, pick: int, count: int | None) -> None:
        self._do(self._pick(pick).drain, count)

    @precondition(lambda self: self.connections)
    @rule(pick=picks)
    def poll_again(self, pick: int) -> None:
        connection = self._pick(pick)
        self._do(connection.drain)
        self._do(connection.poll_again)

    @precondition(lambda self: self.connections)
    @rule(pick=picks)
    def end_wait(self, pick: int) -> None:
        self._do(self._pick(pick).end_wait)

    @precondition(lambda self: self.connections)
    @rule(pick=picks)
    def cut(self, pick: int) -> None:
        connection = self._pick(pick)
        self._cut(connection)
        self.cut_off.append(connection)

    def _cut(self, connection: Connection) -> None:
        self.connections.remove(connection)
        self._do(connection.cut)

    @precondition(lambda self: self.connections or self.cut_off)
    @rule(pick=picks, kind=st.sampled_from(KINDS), by_channel=st.booleans(), capacity=capacities, on_gap=gap_choices)
    def resume(self, pick: int, kind: str, by_channel: bool, capacity: int, on_gap: OnGap) -> None:
        everyone = self.connections + self.cut_off
        before = everyone[pick % len(everyone)]
        if before in self.connections:
            self._cut(before)
        else:
            self.cut_off.remove(before)
        client = before.client
        if not client.readings:
            return
        places = {name: Position(reading.epoch, reading.has) for name, reading in client.readings.items()}
        if not by_channel or kind not in TALKS:
            if len({place.epoch for place in places.values()}) > 1:
                return  # only a place for each channel says where they stand
            cursor = min(places.values()) if client.cursor is None else Position.parse(client.cursor)
            assert {place.epoch for place in places.values()} == {cursor.epoch}
            client.epoch = cursor.epoch
            places = dict.fromkeys(places, cursor)
        connection = Connection(self.node, client, kind, capacity, before.policy, on_gap)
        client.cursor = None
        self.connections.append(connection)
        self._do(connection.open, {name: {"since": str(place)} for name, place in places.items()})

    # What goes wrong

    @rule(seconds=st.integers(1, 40))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def heartbeats(self) -> None:
        def whole_round() -> None:
            for _ in range(2 * WHEEL_SLOTS):
                self.node.hub.tick()

        self._do(whole_round)

    @rule(late=st.booleans())
    def hold_reads(self, late: bool) -> None:
        if not self.holds:
            self.holds = True
            self.broker.hold_reads(late=late)

    @rule()
    def release_a_read(self) -> None:
        self._do(self.broker.release_read)

    @rule()
    def release_reads(self) -> None:
        self.holds = False
        self._do(self.broker.release_reads)

    @precondition(lambda self: self.published)
    @rule(rarely=st.integers(0, 2))
    def lose_log(self, rarely: int) -> None:
        if not rarely:
            self.lost_epochs.append(self.broker.head)
            self._do(self.broker.lose_log)

    # What holds

    @rule()
    def catch_up(self) -> None:
        """Take everything: whoever is connected is then at the head."""
        self.release_reads()
        self._on_loop(self._take_everything())
        self._do(self.node.hub.flush)
        for connection in list(self.connections):
            self._check_at_head(connection)

    async def _take_everything(self) -> None:
        moved, rounds = True, 0
        while moved:
            moved, rounds = False, rounds + 1
            assert rounds < ROUNDS_MAX, [(each.kind, each.client.cursor) for each in self.connections]
            for connection in self.connections:
                cursor = connection.client.cursor
                connection.drain()
                connection.poll_again()
                moved |= not self._is_still(connection) or connection.client.cursor != cursor
            if not moved:
                await settle()
                moved = not all(map(self._is_still, self.connections))

    def _is_still(self, connection: Connection) -> bool:
        if connection.door is not None:
            return connection.door.is_empty()
        return connection.kind == "poll" or (connection.poll is not None and connection.poll.page is None)

    def _check_at_head(self, connection: Connection) -> None:
        door, head = connection.door, self.broker.head
        if door is not None and door.closed_with is not None:
            return
        if connection.client.readings:
            connection.client.claim(str(head))
        if door is not None and connection.client.readings:
            subscriber = door.subscriber
            assert set(subscriber.channels) == set(connection.client.readings)
            assert subscriber.live
            assert not subscriber.joining
            assert not subscriber.reading
            assert subscriber.cursor == head
        if connection.talk is not None:
            assert not connection.talk.is_paused

    @invariant()
    def sockets_hold_little(self) -> None:
        for connection in getattr(self, "connections", ()):
            self._merge(connection)
            if isinstance(connection.door, SocketDoor):
                assert connection.door.waiting_bytes < WAITING_MAX_BYTES

    def _merge(self, connection: Connection) -> None:
        connection.merge_caught_up()

    @invariant()
    def gaps_are_told_where_something_is_missing(self) -> None:
        for connection in getattr(self, "connections", ()):
            gaps, connection.client.gaps = connection.client.gaps, []
            for gap in gaps:
                if gap["reason"] != "epoch" and gap["from"].startswith(self.broker.head.epoch):
                    self._check_is_due(gap, connection.on_gap)

    def _check_is_due(self, gap: dict[str, Any], on_gap: OnGap) -> None:
        start = Position.parse(gap["from"])

        async def is_trimmed(channel: str) -> bool:
            return (await MemoryBroker.read(self.broker, (channel,), start, 1)).gap is not None

        trimmed = [self._on_loop(is_trimmed(channel)) for channel in gap["channels"]]
        assert any(trimmed) if on_gap == "newest" else all(trimmed), gap

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.catch_up()
            for connection in list(self.connections):
                self._cut(connection)
            hub = self.node.hub
            assert not hub.subscribers
            assert not any(hub._wheel)
            assert not len(hub.tails)
            assert not len(self.node.tasks)
            assert not +self.broker.followed
            assert hub.tails.size <= TAIL_BYTES
        finally:
            self._on_loop(self.broker.aclose())
            self.loop.close()


def profile(examples: int, steps: int, *, is_random: bool) -> settings:
    """Say how much is tried; what `make test` tries is the same each time."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=not is_random,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def test_readers_lose_nothing_whatever_happens() -> None:
    run_state_machine_as_test(Everything, settings=profile(250, 60, is_random=False))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_readers_lose_nothing_whatever_happens_for_long() -> None:
    run_state_machine_as_test(Everything, settings=profile(5_000, 150, is_random=True))
