"""Whatever happens on the way: every message once and in order, and every publish in the log once."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tellwire.client import TransportName, Uncertain
from tellwire.client.messages import ORDER
from tests.client.virtual_time import run
from tests.client.world import World

CHANNELS = ("a", "b", "c")

EVERY: tuple[TransportName, ...] = ("webrtc", *ORDER)
"""Those that a fake server has: every one with a session or requests, on one address."""


@pytest.mark.parametrize(("name", "binary"), [("websocket", False), *((name, True) for name in EVERY)])
def test_cut_at_every_event_of_a_conversation(name: TransportName, binary: bool) -> None:
    for at in range(1, 70):

        async def test(at: int = at) -> None:
            async with World((name,), binary=binary) as world:
                server, client = world.server, world.client
                for number in range(3):
                    server.publish("a", f"old {number}")
                world.collect("a", since="earliest")
                world.collect("b", last=5)
                server.fuse = at
                await asyncio.sleep(3)
                answers = []
                for number in range(8):
                    answers.append(asyncio.create_task(client.publish("a", f"mine {number}")))
                    server.publish("b", f"theirs {number}")
                    if number % 3 == 0:
                        await asyncio.sleep(0.7)
                await asyncio.sleep(60)
                await asyncio.gather(*answers)
                for channel in "ab":
                    assert world.had[channel] == server.log.data(channel), f"cut at {at}"
                mine = [data for data in server.log.data("a") if data.startswith("mine")]
                assert mine == [f"mine {number}" for number in range(8)], f"cut at {at}"

        run(test)


kinds = st.sampled_from([*EVERY, "post"])
steps = st.one_of(
    st.tuples(st.just("theirs"), st.sampled_from(CHANNELS)),
    st.tuples(st.just("mine"), st.sampled_from(CHANNELS)),
    st.tuples(st.just("burst"), st.sampled_from(CHANNELS)),
    st.tuples(st.just("sleep"), st.floats(0, 20)),
    st.tuples(st.just("sleep"), st.floats(0, 0.5)),
    st.tuples(st.sampled_from(["fuse", "refuse"]), st.integers(1, 20)),
    st.tuples(st.just("block"), st.tuples(kinds, st.sampled_from(["refuse", "hang", "buffer"]))),
    st.tuples(st.sampled_from(["cut", "hole", "speak", "down", "up", "open"]), st.none()),
    st.tuples(st.sampled_from(["busy", "free", "look away", "look"]), st.none()),
)


def carry_out(world: World, what: str, how: Any, number: int) -> None:
    """Do one step, but for publishing and sleeping."""
    server = world.server
    if what == "theirs":
        server.publish(how, f"theirs {number}")
    elif what == "cut":
        server.cut()
    elif what == "fuse":
        server.fuse = how
    elif what == "hole":
        server.black_hole()
    elif what == "speak":
        server.is_silent = False
    elif what == "down":
        server.is_down = True
        server.cut()
    elif what == "up":
        server.is_down = False
    elif what == "busy":
        server.is_busy = True
    elif what == "free":
        server.is_busy = False
    elif what == "refuse":
        server.patience = how
    elif what == "look away":
        world.reads.clear()
    elif what == "look":
        world.reads.set()
    elif what == "block":
        server.blocked = dict([how])
    else:
        server.blocked = {}


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=5, max_size=120), st.sampled_from([0.0, 0.03]))
def test_anything_at_any_time_on_any_transport(script: list[tuple[str, Any]], latency_s: float) -> None:
    async def test() -> None:
        async with World(EVERY, upgrade_after_s=5.0, queue_max_messages=5) as world:
            server, client = world.server, world.client
            server.latency_s = latency_s
            for channel in CHANNELS:
                world.collect(channel, since="earliest")
            answers = []
            for number, (what, how) in enumerate(script):
                if what in ("mine", "burst"):
                    for each in range(5 if what == "burst" else 1):
                        answers.append(asyncio.create_task(client.publish(how, f"mine {number:04}.{each}")))
                        await asyncio.sleep(0)
                elif what == "sleep":
                    await asyncio.sleep(how)
                else:
                    carry_out(world, what, how, number)
            server.is_down = server.is_silent = server.is_busy = False
            server.blocked = {}
            server.fuse = server.patience = math.inf
            world.reads.set()
            await asyncio.sleep(1500)
            results = await asyncio.gather(*answers, return_exceptions=True)
            for channel in CHANNELS:
                assert world.had[channel] == server.log.data(channel)
                assert world.gaps[channel] == []
            mine = [each["data"] for each in server.log.messages if each["data"].startswith("mine")]
            assert len(mine) == len(set(mine)), "twice"
            assert mine == sorted(mine), "out of order"
            failed = [result for result in results if isinstance(result, BaseException)]
            assert all(isinstance(error, Uncertain) for error in failed)
            assert len(mine) >= len(results) - len(failed), "acknowledged, but not in the log"
            assert client.state.transport == "webrtc"

    run(test)


@pytest.mark.parametrize("name", EVERY)
def test_log_that_is_lost_is_told_and_read_from_its_beginning(name: TransportName) -> None:
    async def test() -> None:
        async with World((name,)) as world:
            world.collect("a", since="earliest")
            world.collect("b", since="earliest")
            for number in range(5):
                world.server.publish("a", number)
            await asyncio.sleep(5)
            world.server.wipe("bbbb")
            world.server.publish("a", "new")
            await asyncio.sleep(10)
            world.server.publish("b", "newer")
            await asyncio.sleep(10)
            assert world.had == {"a": [0, 1, 2, 3, 4, "new"], "b": ["newer"]}
            assert [(gap.reason, gap.to) for gap in world.gaps["a"]] == [("epoch", "bbbb.0")]
            assert world.subscriptions["a"].cursor in ("bbbb.1", "bbbb.2")

    run(test)


@pytest.mark.parametrize("name", EVERY)
def test_history_that_is_trimmed_is_told(name: TransportName) -> None:
    """Also where the connection is cut at any event of the coming back; then it may be told twice."""

    async def test(fuse: float) -> None:
        async with World((name,)) as world:
            server = world.server
            server.log.history = 3
            world.collect("a", since="earliest")
            world.collect("b", since="earliest")
            server.publish("a", 0)
            server.publish("b", "quiet")
            await asyncio.sleep(5)
            server.is_down = True
            server.cut()
            for number in range(1, 10):
                server.publish("a", number)
            await asyncio.sleep(5)
            server.is_down = False
            server.fuse = fuse
            await asyncio.sleep(100)
            assert world.had == {"a": [0, 7, 8, 9], "b": ["quiet"]}, f"cut at {fuse}"
            told = [gap.reason for gap in world.gaps["a"]]
            assert told == ["trimmed"] or (told == ["trimmed"] * 2 and fuse < math.inf), f"cut at {fuse}"
            assert world.gaps["b"] == []

    for fuse in (math.inf, *range(1, 12)):
        run(partial(test, fuse))
