"""What newer NATS servers refuse that 2.9 does not, answered in the place of one of any version."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import pytest

from tellwire.brokers.nats import NatsBroker
from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import Conflict
from tellwire.message import Draft, Position
from tellwire.testing.harness import Opened, on_loop, opened, placed, publish, read_to_head
from tests.nats_servers import (
    IN_THE_WAY,
    NO_PEERS,
    OVERRUN,
    SAME_ID,
    FeedCable,
    NatsServer,
    Refusal,
    nats_server,
    needs_nats,
)
from tests.publishers import told

pytestmark = needs_nats


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[FeedCable]:
    with nats_server(tmp_path) as server, closing(FeedCable(server)) as cable:
        yield cable


def node(at: FeedCable | NatsServer, timeout_s: float = 20.0) -> AbstractAsyncContextManager[Opened]:
    """Open a node that follows a channel."""
    return opened(NatsBroker(NatsPlace.parse(f"nats://127.0.0.1:{at.port}?timeout={timeout_s}")), "a")


@on_loop
async def test_nats_that_refuses_for_the_moment_is_asked_again(cable: FeedCable) -> None:
    async with node(cable, 8.0) as (far, feed):
        (last,) = await publish(far, "a")
        for number, refusals in enumerate(([IN_THE_WAY] * 3, [SAME_ID] * 2, [IN_THE_WAY, SAME_ID])):
            cable.refusals = iter([*refusals, *[OVERRUN] * (number > 1)])
            appended = await far.append(Draft("a", b"on", expect=last, id=f"on-{number}"))
            assert (appended.duplicate, placed(appended).seq) == (False, last.seq + 1)
            cable.refusals = iter(refusals)
            with pytest.raises(Conflict) as caught:
                await far.append(Draft("a", b"late", expect=last))
            last = placed(appended)
            assert caught.value.head == last
            cable.refusals = iter(refusals)
            (last,) = await publish(far, "a")
        assert [message.seq for message in told(feed)] == list(range(1, 8))
        assert (await read_to_head(far, ["a"])).messages == told(feed)
        assert far.figures()["reconnects"] == 0


@on_loop
async def test_nats_condition_that_messages_outran_is_not_asked_for_again(cable: FeedCable) -> None:
    async with node(cable) as (far, _), node(cable.server) as (near, _):
        (first,) = await publish(far, "a")
        cable.refusals = itertools.repeat(IN_THE_WAY)
        late = asyncio.ensure_future(far.append(Draft("a", b"late", expect=first)))
        with pytest.raises(Conflict) as caught:
            await asyncio.gather(late, near.append(Draft("a", b"first")))
        assert caught.value.head == Position(first.epoch, 2)


@on_loop
async def test_nats_conflict_tells_the_newest_message(cable: FeedCable) -> None:
    """What was the newest when NATS refused may have been left behind since, or never have got into the log."""
    async with node(cable) as (far, _):
        first, second, newest = await publish(far, "a", 3)
        cable.refusals = iter([Refusal(400, 10071, f"wrong last sequence: {second.seq}")])
        with pytest.raises(Conflict) as caught:
            await far.append(Draft("a", b"late", expect=first))
        assert caught.value.head == newest


@on_loop
@pytest.mark.parametrize(
    "requests",
    [[("STREAM.CREATE", NO_PEERS)], [("CONSUMER.CREATE", None)], [("CONSUMER.CREATE", None)] * 3],
    ids=["no peers", "a lost answer", "several in a row"],
)
async def test_nats_that_is_not_so_far_at_the_start_is_asked_again(
    cable: FeedCable, requests: list[tuple[str, Refusal | None]]
) -> None:
    """A cluster that has just started may lose answers, and not know its servers; a feed it may have the dead make."""
    cable.requests = [*requests]
    async with node(cable, 15.0) as (far, feed):
        await publish(far, "a")
        assert feed.seqs == [1]
    assert not cable.requests
