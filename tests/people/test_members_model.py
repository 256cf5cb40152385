"""Whoever keeps a list of members as the protocol says it is done has the right one, whatever happens."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tellwire.limits import Limits
from tellwire.message import Draft
from tellwire.names import Namespace, Namespaces
from tellwire.node import Node
from tellwire.node.callers import client_name
from tellwire.presence import Member
from tellwire.presence.memory import MemoryPresence
from tellwire.presence.table import Table
from tellwire.protocol.internal import PRESENCE
from tellwire.testing.doors import Seen, Talk, settle, socket_talk, somebody
from tellwire.testing.faulty import FaultyBroker
from tellwire.testing.harness import Clock

T = TypeVar("T")

CHANNELS = ("room", "crowd:a", "old:a")
SESSIONS = ("s0", "s1", "s2", "s3")
CROWD = 2
"""Members up to which those of ``crowd`` are listed."""

NAMESPACES = Namespaces(
    [
        Namespace("crowd", presence_max_members=CROWD),
        Namespace("$presence", history_messages=6),
    ]
)
LIMITS = Limits(presence_grace_s=3, presence_lease_s=60, node_lease_s=15)
STEP_S = 0.5
QUIET_STEPS = 3
"""Steps without anything new after which nothing is put off any more."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0
        super().__init__(selectors.SelectSelector())

    def time(self) -> float:
        return self.now


class Watcher:
    """A client that keeps the list of one channel (spec, section 15.3), on connections that come and go."""

    def __init__(self, node: Node, channel: str) -> None:
        self._node = node
        self.channel = channel
        self.members: dict[str, Any] | None = None
        self.cursor: str | None = None
        self._talk: Talk | None = None
        self._asked = 0
        self._look_again = False
        self.come_back()

    def come_back(self) -> None:
        """Connect; with a cursor go on with the list that is there, else ask for it."""
        self._talk = socket_talk(self._node)
        self._ask(watch=True, since=self.cursor)
        self._keeps = self.cursor is not None

    def _ask(self, **fields: Any) -> None:
        assert self._talk is not None
        self._asked += 1
        self._talk.say(type="presence", ref=self._asked, channel=self.channel, **fields)

    def go(self) -> None:
        """Lose the connection, after what it has brought was taken."""
        if self._talk is not None:
            self.take()
            self._talk.door.cut()
            self._talk = None
            self._asked += 1  # an answer that was under way is lost

    @property
    def is_here(self) -> bool:
        return self._talk is not None

    def take(self) -> None:
        """Take what has come; ask again where that is to be done."""
        if self._talk is None:
            return
        for push in self._talk.door.drain():
            self._take(push)
        if self._look_again:
            self._look_again = False
            self._ask()

    def _take(self, push: Seen) -> None:
        kind = push["type"]
        if kind == "presence":
            if push["ref"] == self._asked and not self._keeps:
                listed = push["members"]
                self.members = None if listed is None else {each["client"]: each for each in listed}
                self.cursor = push["cursor"]
            self._keeps = False
            return
        if kind == "gap":
            assert push["channels"] == [PRESENCE + self.channel]
            self._ask_again()
            return
        assert kind in ("join", "update", "leave", "count"), push
        assert push["channel"] == self.channel
        epoch, _, seq = (self.cursor or self._node.hub.epoch + ".0").rpartition(".")
        if push["seq"] <= int(seq):
            return
        self.cursor = f"{epoch}.{push['seq']}"
        if kind == "count":
            self._ask_again()
        elif self.members is not None:
            member = push["member"]
            if kind == "leave":
                self.members.pop(member["client"], None)
            else:
                self.members[member["client"]] = member

    def _ask_again(self) -> None:
        self.members = None
        self._look_again = True


class People(RuleBasedStateMachine):
    """Clients with several connections, leases and another node; a log and a store that fail; watchers that resume."""

    @initialize()
    def start(self) -> None:
        self.loop = VirtualLoop()
        self.clock = Clock()
        self.broker = FaultyBroker(NAMESPACES, clock=self.clock)
        table = Table()
        self.presence = MemoryPresence(table, clock=self.clock)
        self.other = MemoryPresence(table, clock=self.clock)
        self.node = Node(self.broker, namespaces=NAMESPACES, limits=LIMITS, presence=self.presence)
        self.talks: dict[str, list[Talk]] = {session: [] for session in SESSIONS}
        self.held: dict[tuple[str, str], set[Talk]] = {}
        self.until: dict[tuple[str, str], float] = {}
        self.watchers: list[Watcher] = []
        self.holds = False
        self._run(self._open())

    async def _open(self) -> None:
        await self.node.hub.open()
        await self.presence.open(self.node.name, LIMITS.node_lease_s)
        await self.other.open("other", 1e9)

    def _run(self, coro: Coroutine[Any, Any, T]) -> T:
        async def run() -> T:
            result = await coro
            await self._settle()
            return result

        return self.loop.run_until_complete(run())

    async def _settle(self) -> None:
        for _ in range(4):
            await settle()
            for watcher in self.watchers:
                watcher.take()

    async def _nothing(self) -> None:
        pass

    # Clients

    def _talk(self, session: str, number: int) -> Talk:
        talks = self.talks[session]
        # While the log takes nothing, a connection's commands wait for each other, and not for another's.
        number = 0 if self.holds else number
        if number >= len(talks):
            talks.append(socket_talk(self.node, session=session))
        return talks[min(number, len(talks) - 1)]

    @rule(
        session=st.sampled_from(SESSIONS),
        channel=st.sampled_from(CHANNELS),
        number=st.integers(0, 1),
        state=st.sampled_from(["keep", None, 1, {"typing": True}]),
    )
    def enter(self, session: str, channel: str, number: int, state: Any) -> None:
        async def say() -> None:
            talk = self._talk(session, number)
            fields = {} if state == "keep" else {"state": state}
            talk.say(type="presence", channel=channel, enter=True, **fields)
            self.held.setdefault((channel, session), set()).add(talk)

        self._run(say())

    @rule(session=st.sampled_from(SESSIONS), channel=st.sampled_from(CHANNELS), number=st.integers(0, 1))
    def leave(self, session: str, channel: str, number: int) -> None:
        async def say() -> None:
            self._talk(session, number).say(type="presence", channel=channel, enter=False)
            self.held.pop((channel, session), None)
            self.until.pop((channel, session), None)

        self._run(say())

    @precondition(lambda self: not self.holds)
    @rule(session=st.sampled_from(SESSIONS), channel=st.sampled_from(CHANNELS))
    def enter_by_request(self, session: str, channel: str) -> None:
        async def attend() -> None:
            self.node.tasks.start(self.node.members.attend(somebody(session), [channel]))

        self._run(attend())
        self._keep_until((channel, session), LIMITS.presence_lease_s)

    def _keep_until(self, key: tuple[str, str], seconds: float) -> None:
        self.until[key] = max(self.until.get(key, 0.0), self.loop.now + seconds)

    @precondition(lambda self: not self.holds)
    @rule(session=st.sampled_from(SESSIONS), number=st.integers(0, 1))
    def cut(self, session: str, number: int) -> None:
        async def go() -> None:
            talks = self.talks[session]
            if talks:
                talk = talks.pop(min(number, len(talks) - 1))
                talk.door.cut()
                for key, holders in list(self.held.items()):
                    if talk in holders:
                        holders.discard(talk)
                        if not holders:
                            del self.held[key]
                            self._keep_until(key, LIMITS.presence_grace_s)

        self._run(go())

    @rule(channel=st.sampled_from(CHANNELS), comes=st.booleans())
    def change_elsewhere(self, channel: str, comes: bool) -> None:
        """Let another node have a member, or lose it, and tell."""

        async def change() -> None:
            member = Member(channel, "elsewhere", None, None, None, "other", 0)
            before = await self.other.leave(channel, "elsewhere")
            if comes:
                await self.other.enter(member)
            if (before is None) == comes:
                count = (await self.other.count(channel)).clients
                if count + (not comes) <= NAMESPACES.of(channel).presence_max_members:
                    what, data = ("join" if comes else "leave"), b'{"client":"elsewhere"}'
                else:
                    what, data = "count", b'{"clients":%d,"users":1}' % count
                await self.broker.append(Draft(PRESENCE + channel, data, event=what))

        if not self.holds:
            self.broker.fail_appends = self.broker.lose_answers = 0
            self._run(change())

    # Watchers

    @rule(channel=st.sampled_from(CHANNELS))
    def watch(self, channel: str) -> None:
        async def begin() -> None:
            self.watchers.append(Watcher(self.node, channel))

        if len(self.watchers) < 5:
            self._run(begin())

    @precondition(lambda self: self.watchers)
    @rule(number=st.integers(0, 4))
    def lose_or_resume_watcher(self, number: int) -> None:
        async def change() -> None:
            watcher = self.watchers[number % len(self.watchers)]
            if watcher.is_here:
                watcher.go()
            else:
                watcher.come_back()

        self._run(change())

    # Faults

    @rule(count=st.integers(1, 3), kind=st.sampled_from(["fail_appends", "lose_answers"]))
    def fail_log(self, count: int, kind: str) -> None:
        setattr(self.broker, kind, count)

    @rule()
    def hold_log(self) -> None:
        self.broker.hold()
        self.holds = True

    @precondition(lambda self: self.holds)
    @rule()
    def release_log(self) -> None:
        async def release() -> None:
            self.broker.release()

        self.holds = False
        self._run(release())

    @rule(seconds=st.sampled_from([0.4, 1.0, 3.0, 10.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        end = self.loop.now + seconds
        while self.loop.now < end:
            self.loop.now = min(end, self.loop.now + STEP_S)
            self._run(self._nothing())

    # What has to hold

    @rule()
    def be_quiet(self) -> None:
        """Once the log takes everything and what was put off is told, all lists are right."""
        self.broker.fail_appends = self.broker.lose_answers = 0
        if self.holds:
            self.release_log()
        since, seen = 0, self._run(self._state())
        while since < QUIET_STEPS:
            self.wait(STEP_S)
            before, seen = seen, self._run(self._state())
            since = since + 1 if seen == before else 0
        self._run(self._check())

    async def _state(self) -> object:
        """Return what is different after anything has happened."""
        return self.broker.head, [await self.presence.members(channel, 100) for channel in CHANNELS]

    async def _check(self) -> None:
        for channel in CHANNELS:
            look = await self.node.members.look(channel, "")
            listed = await self.presence.members(channel, 100)
            here = {each.client for each in listed if each.node == self.node.name}
            expected = {key for key in self.held if key[0] == channel}
            expected |= {key for key, until in self.until.items() if key[0] == channel and until > self.loop.now}
            assert here == {client_name(None, session) for _, session in expected}, channel
            for watcher in self.watchers:
                if watcher.channel == channel and watcher.is_here:
                    fresh = None if look.members is None else {each.client for each in look.members}
                    assert (None if watcher.members is None else set(watcher.members)) == fresh, channel
                    states = {each.client: json.loads(each.state or b"null") for each in listed}
                    for client, member in (watcher.members or {}).items():
                        assert member.get("state") == states[client]

    def teardown(self) -> None:
        try:
            self.be_quiet()
        finally:
            self.watchers.clear()
            self.loop.run_until_complete(self.node.aclose())
            self.loop.run_until_complete(self.other.aclose())
            self.loop.close()


def test_lists_are_right() -> None:
    run_state_machine_as_test(
        People,
        settings=settings(
            deadline=None,
            max_examples=150,
            stateful_step_count=40,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
