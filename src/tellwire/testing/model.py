"""A property of every broker: whatever is done to it, it does what a plain list would do. Needs hypothesis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tellwire.brokers.base import Broker
from tellwire.message import Appended, Draft, Gap, Message, Position
from tellwire.names import Namespace, Namespaces
from tellwire.testing.harness import Clock, Collected, MakeBroker, on_loop, read_to_head

CHANNELS = ("a", "b", "c")
WINDOW_S = 30.0
FOREVER_S = 1e9
NO_BOUND = 1 << 40

_stores = itertools.count()


@dataclass(frozen=True)
class Publish:
    """Append a message; `id_` None gives it no id."""

    channel: str
    size: int
    id_: str | None


@dataclass(frozen=True)
class Read:
    """Read from the position `behind` messages before the newest, in pages."""

    channels: tuple[str, ...]
    behind: int
    limit_bytes: int
    limit: int


@dataclass(frozen=True)
class Wait:
    """Let time pass."""

    seconds: int


@dataclass(frozen=True)
class Reopen:
    """Close the broker and open another one on the same store."""


Step = Publish | Read | Wait | Reopen

_publishes = st.builds(
    Publish,
    st.sampled_from(CHANNELS),
    st.sampled_from([1, 50, 700]),
    st.none() | st.sampled_from(["x", "y", "z"]),
)
_reads = st.builds(
    Read,
    st.lists(st.sampled_from([*CHANNELS, "nothing"]), min_size=1, unique=True).map(tuple),
    st.integers(0, 12),
    st.sampled_from([1, 300, 100_000]),
    st.sampled_from([1, 3, 100]),
)
_steps = st.lists(_publishes | _reads | st.builds(Wait, st.integers(1, 20)) | st.just(Reopen()), max_size=40)
_namespaces = st.builds(
    Namespace,
    history_messages=st.integers(1, 6),
    history_age_s=st.sampled_from([15.0, FOREVER_S]),
    history_bytes=st.sampled_from([3_000, NO_BOUND]),
)


class BrokerModelContract:
    """Adds the property to a suite with the fixture ``make_broker``; `durable` lets it close and reopen, too."""

    durable = False

    @settings(
        deadline=None,
        max_examples=60,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,  # every example has a store of its own
            HealthCheck.differing_executors,  # several suites inherit it
            HealthCheck.too_slow,
        ],
    )
    @given(steps=_steps, namespace=_namespaces)
    def test_broker_does_what_a_list_does(
        self, make_broker: MakeBroker, steps: list[Step], namespace: Namespace
    ) -> None:
        on_loop(_compare)(make_broker, steps, namespace, self.durable)


@dataclass
class _Model:
    """All messages ever appended, and which of them a log of these bounds still has."""

    namespace: Namespace
    clock: Clock
    messages: list[Message] = field(default_factory=list)
    ids: dict[tuple[str, str], tuple[int, Position]] = field(default_factory=dict)

    def known(self, publish: Publish) -> Position | None:
        """Return the place that a message with this id has, if the id is remembered."""
        if publish.id_ is None:
            return None
        given, place = self.ids.get((publish.channel, publish.id_), (0, None))
        return place if self.clock.now_ms < given + WINDOW_S * 1000 else None

    def kept(self, channel: str) -> list[Message]:
        """Return what the bounds on number and age leave of a channel."""
        all_of_it = [message for message in self.messages if message.channel == channel]
        oldest = self.clock.now_ms - self.namespace.history_age_s * 1000
        return [message for message in all_of_it[-self.namespace.history_messages :] if message.time >= oldest]


async def _compare(make_broker: MakeBroker, steps: Sequence[Step], namespace: Namespace, durable: bool) -> None:
    clock = Clock()
    store = f"model-{next(_stores)}"
    model = _Model(namespace, clock)

    async def start() -> tuple[Broker, Collected]:
        broker = make_broker(Namespaces([namespace]), dedupe_window_s=WINDOW_S, clock=clock, store=store)
        feed = Collected()
        await broker.open(feed)
        for channel in CHANNELS:
            await broker.follow(channel)
        return broker, feed

    broker, feed = await start()
    try:
        for step in steps:
            if isinstance(step, Publish):
                await _publish(broker, feed, model, step)
            elif isinstance(step, Read):
                await _read(broker, model, step)
            elif isinstance(step, Wait):
                clock.advance(step.seconds)
            elif durable:
                head = broker.head
                await broker.aclose()
                broker, feed = await start()
                assert broker.head == head
        for channel in CHANNELS:
            await _read(broker, model, Read((channel,), len(model.messages), 100_000, 100))
    finally:
        await broker.aclose()


async def _publish(broker: Broker, feed: Collected, model: _Model, step: Publish) -> None:
    known = model.known(step)
    delivered = len(feed.messages)
    appended = await broker.append(Draft(step.channel, b"7" * step.size, id=step.id_))
    if known is not None:
        assert appended == Appended(known, duplicate=True)
        assert len(feed.messages) == delivered
        return
    assert appended == Appended(broker.head)
    (message,) = feed.messages[delivered:]
    assert (message.seq, message.channel, message.data) == (broker.head.seq, step.channel, b"7" * step.size)
    assert not model.messages or message.seq > model.messages[-1].seq
    model.messages.append(message)
    if step.id_ is not None:
        model.ids[step.channel, step.id_] = model.clock.now_ms, broker.head


async def _read(broker: Broker, model: _Model, step: Read) -> None:
    seqs = [0] * 13 + [message.seq for message in model.messages]
    after = Position(broker.head.epoch, seqs[-1 - step.behind])
    read = await read_to_head(broker, step.channels, after, limit_bytes=step.limit_bytes, limit=step.limit)
    had = read.messages
    for channel in step.channels:
        wanted = [message for message in model.messages if message.channel == channel and message.seq > after.seq]
        of_channel = [message for message in had if message.channel == channel]
        assert of_channel == wanted[len(wanted) - len(of_channel) :], "what is had is the newest, without a hole"
        _check_told(read.gaps, channel, wanted[: len(wanted) - len(of_channel)])
        if model.namespace.history_bytes == NO_BOUND:
            assert of_channel == [message for message in model.kept(channel) if message.seq > after.seq]
    assert [message.seq for message in had] == sorted(message.seq for message in had)
    if model.namespace.history_bytes == NO_BOUND and model.namespace.history_age_s == FOREVER_S:
        lost = [m for m in model.messages if m.channel in step.channels and m.seq > after.seq and m not in had]
        assert bool(read.gaps) == bool(lost), "a gap is told only where something is missing"
    everything = await read_to_head(broker, step.channels)
    assert everything.gaps == []
    older = [message for message in everything.messages if message.seq < after.seq]
    assert (await broker.read_back(step.channels, after, step.limit)).messages == older[-step.limit :]
    newest = await broker.read_back(step.channels, None, step.limit)
    assert newest == (everything.messages[-step.limit :], broker.head, None)


def _check_told(gaps: Sequence[Gap], channel: str, missing: Sequence[Message]) -> None:
    if missing:
        # Pages that end short of what was trimmed say it again: a broker does not know what its reader was told.
        assert {gap.reason for gap in gaps} == {"trimmed"}
        assert channel in gaps[0].channels
        assert Position.parse(gaps[0].to).seq >= missing[-1].seq
