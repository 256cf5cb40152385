"""The steward: where a command meets the checks, the broker and the hub."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Callable, Collection, Iterable
from typing import Any

from msgspec import UnsetType

from tellwire.auth import Access
from tellwire.brokers.base import Broker, Slice
from tellwire.errors import BadRequest, CloseCode, Draining, TooLarge, TooManyChannels
from tellwire.hub import WHEEL_SLOTS, Hub, Placement
from tellwire.limits import Limits
from tellwire.message import Appended, Draft, Gap, Position, parse_since
from tellwire.names import Namespaces, Policy, check_channel
from tellwire.protocol.commands import (
    EVENT_MAX_CHARS,
    ID_MAX_CHARS,
    KEY_MAX_CHARS,
    SESSION_MAX_CHARS,
    AnyCommand,
    Connect,
    OnGap,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
)
from tellwire.protocol.data import check_data
from tellwire.protocol.encodings import Encoding
from tellwire.protocol.pushes import Connected, Pong, Published, Push, Subscribed, Unsubscribed
from tellwire.runs import take_bite
from tellwire.subscriber import Door, Subscriber
from tellwire.tasks import Tasks

_log = logging.getLogger("tellwire")

RESERVED_EVENTS = frozenset({"open", "error", "gap", "closing"})
"""Event names that an EventSource dispatches for other reasons than a message."""

LAST_MAX = 10_000
"""Largest ``last`` and ``limit``: these are read in one piece; a cursor is the way to more."""

DRAIN_SLOTS = 100
"""Into how many slots the connections are spread while a node drains."""

DRAIN_PACE_S = 0.005
"""Seconds that each connection adds to the drain, until ``drain_s`` is reached: a few need no spreading."""

SendPush = Callable[[Push], None]


class Node:
    """One Tellwire process: everything that a transport needs to serve its clients.

    Args:
        broker: Where the log is; opened and closed by the node.
        namespaces: Settings of the channels.
        limits: Bounds on what peers can do.
        access: Which origins may come in.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        namespaces: Namespaces | None = None,
        limits: Limits | None = None,
        access: Access | None = None,
    ) -> None:
        self.broker = broker
        self.namespaces = namespaces or Namespaces()
        self.limits = limits or Limits()
        self.access = access or Access()
        self.tasks = Tasks()
        self.hub = Hub(
            broker,
            self.tasks,
            tail_max_bytes=self.limits.tail_max_bytes,
            read_bite_bytes=self.limits.read_bite_bytes,
        )
        self.ready = False
        self._draining = False

    async def open(self) -> None:
        """Open the broker and begin to serve."""
        await self.hub.open()
        self.tasks.start(self._beat())
        self.ready = True

    async def aclose(self) -> None:
        """Close every connection that is left, then the broker; may be called twice."""
        self.ready = False
        for subscriber in list(self.hub.subscribers):
            subscriber.door.close(CloseCode.GOING_AWAY, "the server stops")
        await self.tasks.aclose()
        await self.broker.aclose()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        period = self.limits.heartbeat_s / 2 / WHEEL_SLOTS
        due = loop.time()
        while True:
            due += period
            await asyncio.sleep(max(0.0, due - loop.time()))
            self.hub.tick()

    async def drain(self) -> None:
        """Close every connection in a slot of its own, telling it to come back at once, within ``drain_s``.

        From here on new connections are refused, so that they find another node.
        """
        if self._draining:
            return
        self.ready = False
        self._draining = True
        waiting = list(self.hub.subscribers)
        window_s = min(self.limits.drain_s, len(waiting) * DRAIN_PACE_S)
        slots = min(DRAIN_SLOTS, len(waiting))
        for slot in range(slots):
            for subscriber in waiting[slot::slots]:
                subscriber.door.close(CloseCode.SERVICE_RESTART, "this node is going away", 0)
            await asyncio.sleep(window_s / slots)

    # Connections

    def admit(
        self, door: Door, encoding: Encoding, transport: str, session: str | None = None, *, beats: bool = True
    ) -> Subscriber:
        """Let a connection in; raises Draining while the node is going away."""
        if self._draining:
            raise Draining("this node is going away; connect again")
        subscriber = Subscriber(
            self.hub,
            door,
            encoding,
            client=secrets.token_urlsafe(9),
            session=check_session(session) or secrets.token_urlsafe(16),
            transport=transport,
        )
        self.hub.enter(subscriber, beats=beats)
        return subscriber

    def dismiss(self, subscriber: Subscriber) -> None:
        """Let go of a connection; may be called twice."""
        self.hub.leave(subscriber)

    def greet(self, subscriber: Subscriber, ref: Any = None) -> Connected:
        """Make the push that tells a client who and where it is."""
        cursor = Position(self.hub.epoch, self.hub.head)
        heartbeat_ms = math.ceil(self.limits.heartbeat_s * 1000)
        return Connected(subscriber.client, self.hub.epoch, str(cursor), heartbeat_ms, subscriber.session, ref)

    # Commands

    async def handle(self, subscriber: Subscriber, command: AnyCommand, reply: SendPush, *, packed: bool) -> None:
        """Carry out one command of a connection, and answer it; raises TellwireError where it fails.

        `packed` tells that the command came in MessagePack, and so did the data in it.
        """
        match command:
            case Publish():
                appended = await self.publish(command, subscriber.session, packed=packed)
                position = str(appended.position) if appended.position else None
                reply(Published(position, appended.duplicate, command.ref))
            case Subscribe():
                await self._subscribe(subscriber, command, reply)
            case Unsubscribe():
                if not self.hub.unsubscribe(subscriber, check_channel(command.channel)):
                    raise BadRequest(f"unsubscribe: this connection does not read {command.channel}")
                reply(Unsubscribed(command.channel, command.ref))
            case Connect():
                subscriber.session = check_session(command.session) or subscriber.session
                reply(self.greet(subscriber, command.ref))
            case Ping():
                reply(Pong(command.ref))

    async def _subscribe(self, subscriber: Subscriber, command: Subscribe, reply: SendPush) -> None:
        channel = command.channel
        if channel in subscriber.channels:
            raise BadRequest(f"subscribe: this connection reads {channel} already")
        wanted = self.wanted([channel], command.policy, have=len(subscriber.channels))
        placement = await self.place(wanted, command.since, command.last, command.on_gap)
        reply(Subscribed(channel, str(placement.cursor), placement.gap, command.ref))
        self.hub.join(subscriber, placement)

    def wanted(self, channels: Iterable[str], policy: Policy | None, *, have: int = 0) -> dict[str, Policy]:
        """Check the channels that somebody wants to read; return each with its policy."""
        wanted = {check_channel(name): policy or self.namespaces.of(name).policy for name in channels}
        most = self.limits.channels_per_connection
        if have + len(wanted) > most:
            raise TooManyChannels(f"one connection reads at most {most} channels")
        return wanted

    async def place(
        self, wanted: dict[str, Policy], since: str | int | None, last: int | None, on_gap: OnGap
    ) -> Placement:
        """Find where a reading begins (see Hub.place); `since` and `last` are as the client gave them."""
        if last is not None:
            _check_last(last, since)
        return await self.hub.place(wanted, parse_since(since), last, on_gap)

    async def publish(self, command: Publish, session: str | None, *, packed: bool) -> Appended:
        """Append a message, or hand an ephemeral one on; done once it is in the log.

        `session` is the publisher's own, left out of the readers where ``echo`` is false.
        """
        return await self.broker.append(self.draft(command, session, packed=packed))

    def draft(self, command: Publish, session: str | None, *, packed: bool) -> Draft:
        """Check a publish and make a draft of it; raises RequestError."""
        channel = check_channel(command.channel)
        namespace = self.namespaces.of(channel)
        if isinstance(command.data, UnsetType):
            raise BadRequest("publish: data is missing; give null to publish nothing but an event")
        data = bytes(command.data)
        if len(data) > namespace.message_max_bytes:
            raise TooLarge(
                f"data has {len(data)} bytes; messages of the namespace {namespace.name} "
                f"have at most {namespace.message_max_bytes}"
            )
        if command.id is not None:
            _check_text("id", command.id, ID_MAX_CHARS)
        if command.key is not None:
            _check_text("key", command.key, KEY_MAX_CHARS)
        if command.event != "message":
            _check_text("event", command.event, EVENT_MAX_CHARS)
            if command.event in RESERVED_EVENTS:
                raise BadRequest(f"publish: the event name {command.event!r} is taken by the transports themselves")
        skip = ""
        if not command.echo:
            skip = check_session(command.session) or session or ""
            if not skip:
                raise BadRequest("publish: echo=false leaves out the publisher's own readers; give their session")
        return Draft(
            channel,
            check_data(data, packed=packed),
            packed,
            command.id,
            command.event,
            command.key,
            skip,
            command.ephemeral or namespace.ephemeral,
            None if command.expect is None else Position.parse(command.expect),
        )

    # Polling

    async def read(
        self,
        channels: Collection[str],
        since: str | int | None,
        *,
        limit: int,
        last: int | None = None,
        on_gap: OnGap = "oldest",
    ) -> Slice:
        """Read what comes after a cursor, at most `limit` messages, without waiting for more."""
        wanted = self.wanted(channels, None)
        limit_bytes = self.limits.request_max_bytes
        if last is not None:
            newest = await self.broker.read_back(wanted, None, _check_last(last, since))
            messages, more = take_bite(newest.messages, 0, limit_bytes, limit)
            return Slice(messages, Position(newest.position.epoch, messages[-1].seq), newest.gap) if more else newest
        start = parse_since(since)
        if start == "now":
            return Slice([], self.broker.head, None)
        slice_ = await self.broker.read(wanted, self.hub.resolve(start), limit_bytes, limit)
        gap = slice_.gap
        if gap is not None and on_gap == "newest":
            head = self.broker.head
            return Slice([], head, Gap(gap.from_, str(head), gap.reason, tuple(wanted)))
        return slice_

    async def read_back(self, channels: Collection[str], before: str, *, limit: int) -> Slice:
        """Read the newest `limit` messages before a position."""
        start = parse_since(before)
        if start == "earliest":
            return Slice([], self.broker.head, None)
        position = None if start == "now" else self.hub.resolve(start)
        slice_ = await self.broker.read_back(self.wanted(channels, None), position, limit)
        newest_first, _ = take_bite(slice_.messages[::-1], 0, self.limits.request_max_bytes)
        return Slice(newest_first[::-1], slice_.position, slice_.gap)


def check_count(name: str, count: int, least: int = 0) -> int:
    """Return a count that a client gave; raise BadRequest where it is out of range."""
    if not least <= count <= LAST_MAX:
        raise BadRequest(f"{name}={count} is out of range; it is between {least} and {LAST_MAX}")
    return count


def _check_last(last: int, since: str | int | None) -> int:
    if since is not None:
        raise BadRequest("since and last exclude each other: give the one or the other")
    return check_count("last", last)


def _check_text(name: str, value: str, most: int) -> None:
    if not 1 <= len(value) <= most or not value.isprintable():
        raise BadRequest(f"publish: {name} has 1 to {most} printable characters; got {value[:40]!a}")


def check_session(session: str | None) -> str | None:
    """Return a session that a client gave, None for none; raise BadRequest where it cannot be one."""
    if not session:
        return None
    if len(session) > SESSION_MAX_CHARS or not (session.isascii() and session.isprintable()):
        raise BadRequest(f"session has 1 to {SESSION_MAX_CHARS} printable ASCII characters")
    return session
