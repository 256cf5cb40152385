"""A client of the model with its present connection, over whichever fake door."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec

from tellwire.brokers.base import Broker
from tellwire.brokers.memory import MemoryBroker
from tellwire.hub import Placement
from tellwire.message import Cursor, Position, parse_since
from tellwire.names import Policy
from tellwire.node import Node
from tellwire.protocol.codecs import JSON, MSGPACK
from tellwire.protocol.commands import OnGap
from tellwire.testing.doors import (
    FakeDoor,
    FakePoll,
    Talk,
    ask,
    begin,
    event_door,
    line_door,
    line_slot,
    slot_talk,
    socket_talk,
)
from tellwire.transports.polling import write_slice
from tests.model.expected import Client, Reading

Start = dict[str, Any]
"""Where a reading begins: ``since`` or ``last``, as a client gives them; empty means now."""

TALKS: dict[str, Callable[[Node, str, int], Talk]] = {
    "websocket": lambda node, session, capacity: socket_talk(node, JSON, session=session, capacity=capacity),
    "msgpack": lambda node, session, capacity: socket_talk(node, MSGPACK, session=session, capacity=capacity),
    "asgi-websocket": lambda node, session, _: slot_talk(node, session=session),
}
STREAMS: dict[str, Callable[[Node, str, int], FakeDoor]] = {
    "sse": lambda node, session, capacity: event_door(node, session=session, capacity=capacity),
    "stream": lambda node, session, capacity: line_door(node, session=session, capacity=capacity),
    "asgi-stream": lambda node, session, _: line_slot(node, session=session),
}
POLLS = ("longpoll", "poll")
KINDS = (*TALKS, *STREAMS, *POLLS)


def floor_of(broker: Broker, channel: str) -> int:
    """Return the place up to which a log in memory has dropped something of a channel."""
    assert isinstance(broker, MemoryBroker)
    region, log = broker._used(channel)
    return log.floor if log is not None else region.floor


class Connection:
    """One connection of a client; `capacity` is its socket's. It is there once `is_begun`."""

    def __init__(
        self, node: Node, client: Client, kind: str, capacity: int, policy: Policy | None, on_gap: OnGap
    ) -> None:
        self.node = node
        self.client = client
        self.kind = kind
        self.policy = policy
        self.on_gap = on_gap
        self.talk: Talk | None = None
        self.door: FakeDoor | None = None
        self.poll: FakePoll | None = None
        self.polling = False
        self.is_begun = False
        self.is_over = False
        self._refs = itertools.count(1)
        self._asked: dict[int, tuple[str, Start]] = {}
        self._before: dict[str, Reading] = {}
        self.leaving: set[str] = set()
        if kind in TALKS:
            self.talk = TALKS[kind](node, client.session, capacity)
            self.door = self.talk.door
            self.is_begun = True
        elif kind in STREAMS:
            self.door = STREAMS[kind](node, client.session, capacity)
        client.newest = 0

    # Asking

    def open(self, starts: dict[str, Start]) -> None:
        """Begin to read channels; wires without commands need the same start for all of them."""
        self.client.is_whole = self.talk is None
        if self.talk is not None:
            self._before, self.client.readings = self.client.readings, {}
            for channel, start in starts.items():
                self.subscribe(channel, start)
            return
        (start,) = {str(start): start for start in starts.values()}.values()
        if self.door is not None:
            self.node.tasks.start(
                begin(self.node, self.door, list(starts), **start, policy=self.policy, on_gap=self.on_gap),
                lambda placement, exc: self._began(list(starts), start, placement, exc),
            )
        else:
            self._ask(list(starts), start)

    def subscribe(self, channel: str, start: Start) -> None:
        """Ask for one more channel."""
        assert self.talk is not None
        ref = next(self._refs)
        self._asked[ref] = channel, start
        self.talk.say(type="subscribe", ref=ref, channel=channel, policy=self.policy, on_gap=self.on_gap, **start)

    def unsubscribe(self, channel: str) -> None:
        """Ask for one channel less."""
        assert self.talk is not None
        self.leaving.add(channel)
        self.talk.say(type="unsubscribe", ref=next(self._refs), channel=channel)

    @property
    def wanted(self) -> set[str]:
        """The channels that are read, or asked for."""
        return {*self.client.readings, *(channel for channel, _ in self._asked.values())} - self.leaving

    def _began(self, channels: list[str], start: Start, placement: Placement | None, exc: BaseException | None) -> None:
        assert exc is None, exc
        assert placement is not None
        if not self.is_over:
            self.is_begun = True
            self._place(channels, start, placement.cursor)
            if self.kind == "sse" and placement.gap is None:
                self.client.cursor = str(placement.cursor)  # the id that an event stream begins with

    def _place(self, channels: list[str], start: Start, cursor: Position, *, is_joined: bool = True) -> None:
        """Note from where on everything has to come: from what was asked for, else from where the server began."""
        client = self.client
        since = parse_since(start.get("since"))
        if self.talk is not None:
            client.epoch = cursor.epoch
            client.cursor = None  # what it said, it did not say of this channel
            for channel in channels:
                if channel in self._before:
                    client.readings[channel] = self._before.pop(channel)
        elif not client.readings:
            client.epoch = cursor.epoch
            if isinstance(since, Cursor) and len(since.parts) == 1:
                client.epoch = since.parts[0].epoch
        has = cursor.seq
        if isinstance(since, int):
            has = since
        elif isinstance(since, Cursor) and since.parts[0].epoch == client.epoch and len(since.parts) == 1:
            has = since.parts[0].seq
        for channel in channels:
            latest = self.policy or self.node.namespaces.of(channel).policy
            client.read(channel, has, conflates=latest == "latest", is_joined=is_joined)
            if "last" in start or since == "earliest":  # what is not kept any more was not asked for
                client.readings[channel].excused.append((0, floor_of(self.node.broker, channel)))
        if is_joined:
            client.newest = 0

    # Polls

    def _ask(self, channels: list[str], start: Start) -> None:
        self.polling = True
        if self.kind == "poll":
            self.node.tasks.start(
                self.node.reading.read(
                    channels, start.get("since"), limit=5, last=start.get("last"), on_gap=self.on_gap
                ),
                lambda slice_, exc: self._read(channels, start, slice_, exc),
            )
            return
        self.node.tasks.start(
            ask(self.node, channels, **start, limit=5, policy=self.policy, on_gap=self.on_gap,
                session=self.client.session),
            lambda poll, exc: self._waits(channels, start, poll, exc),
        )  # fmt: skip

    def _read(self, channels: list[str], start: Start, slice_: Any, exc: BaseException | None) -> None:
        assert exc is None, exc
        if self.is_over:
            return
        self.is_begun, self.polling = True, False
        page = msgspec.json.decode(write_slice(slice_, slice_.gap, skip=self.client.session).body)
        first = slice_.messages[0].seq - 1 if slice_.messages and page["messages"] else slice_.position.seq
        self._page(channels, start, Position(slice_.position.epoch, first), page)

    def _waits(self, channels: list[str], start: Start, poll: FakePoll | None, exc: BaseException | None) -> None:
        assert exc is None, exc
        assert poll is not None
        self.poll = poll
        self.is_begun = True
        if self.is_over:
            poll.end()
            return
        self._again = channels, start, poll._start
        self._place(channels, start, poll._start)

    def _page(self, channels: list[str], start: Start, begun: Position, page: dict[str, Any]) -> None:
        self._place(channels, start, begun)
        if page["gap"] is not None:
            self.client.take({"type": "gap", **page["gap"]})
        for message in page["messages"]:
            self.client.take(message)
        self.client.claim(page["cursor"])

    def end_wait(self) -> None:
        """Let the wait of a long poll be over."""
        if self.poll is not None:
            self.poll.give_up()

    def poll_again(self) -> None:
        """Ask for what comes next, if no question is open."""
        if self.door is None and not self.polling and not self.is_over:
            assert self.client.cursor is not None
            self._ask(list(self.client.readings), {"since": self.client.cursor})

    # Taking

    def drain(self, count: int | None = None) -> int:
        """Take what came, up to so many bytes; return how many pushes or pages it was."""
        if self.door is None:
            if self.poll is None or self.poll.page is None:
                return 0
            poll, self.poll, self.polling = self.poll, None, False
            self._page(*self._again, poll.page)
            return 1
        if not self.is_begun:
            return 0
        seen = self.door.drain(count)
        for push in seen:
            self._take(push)
        return len(seen)

    def _take(self, push: dict[str, Any]) -> None:
        client = self.client
        match push["type"]:
            case "subscribed":
                channel, start = self._asked.pop(push["ref"])
                self._place([channel], start, Position.parse(push["cursor"]), is_joined=False)
                if push["gap"] is not None:
                    client.take({"type": "gap", **push["gap"]})
                assert Position.parse(push["cursor"]).epoch == client.epoch
            case "unsubscribed":
                del client.readings[push["channel"]]
                self.leaving.discard(push["channel"])
            case "heartbeat":
                if client.readings:
                    client.claim(push["cursor"])
            case "closing":
                assert self.door is not None
                assert push["code"] == self.door.closed_with
            case "error":
                raise AssertionError(push)
            case _:
                client.take(push)

    def merge_caught_up(self) -> None:
        """From here on messages of all channels come in one order, where nothing is on its way any more."""
        if self.door is not None and self.door.is_empty() and not self.door.subscriber.joining and not self._asked:
            for channel, reading in self.client.readings.items():
                if channel in self.door.subscriber.channels:
                    reading.is_joined = True

    # Going

    def cut(self) -> None:
        """Lose the connection and what was on its way."""
        self.is_over = True
        self._asked.clear()
        if self.door is not None:
            self.door.cut()
        if self.poll is not None:
            self.poll.end()
            self.poll = None
        if self._before:
            self.client.readings |= self._before
            self.client.cursor = None
        for channel in self.leaving:
            self.client.readings.pop(channel, None)
