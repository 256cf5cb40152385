"""The node itself: connections come and go, commands are carried out."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

from tellwire.auth import Access, Identity, Operation
from tellwire.brokers.base import Broker
from tellwire.counters import Counters
from tellwire.errors import (
    BadRequest,
    CloseCode,
    Draining,
    Forbidden,
    RateLimited,
    Unauthorized,
)
from tellwire.hooks import Hooks
from tellwire.hub import WHEEL_SLOTS, Hub
from tellwire.ice import IceServers
from tellwire.limits import Bucket, Buckets, Limits, Network, Turnstile
from tellwire.message import Appended, Draft, Position
from tellwire.names import Namespaces, Policy, check_channel
from tellwire.node.callers import Caller, caller_of
from tellwire.node.calls import call, publish_as_asked
from tellwire.node.control import Control
from tellwire.node.departures import Departures
from tellwire.node.drafts import check_session, make_draft
from tellwire.node.entrance import OPEN, Entrance
from tellwire.node.leases import keep_lease, sweep
from tellwire.node.lifetimes import Lifetimes, expires_in_ms
from tellwire.node.members import Members
from tellwire.node.operating import answer_questions
from tellwire.node.reading import Reading
from tellwire.node.roster import Roster, Title, own_title
from tellwire.node.signals import send
from tellwire.presence import Presence, make_presence
from tellwire.protocol.commands import (
    COMMANDS,
    AnyCommand,
    Call,
    Connect,
    Ping,
    Publish,
    Refresh,
    Send,
    Subscribe,
    Unsubscribe,
)
from tellwire.protocol.commands import Presence as PresenceCommand
from tellwire.protocol.encodings import Encoding
from tellwire.protocol.pushes import Connected, Pong, Published, Push, Refreshed, Subscribed, Unsubscribed
from tellwire.subscriber import Door, Subscriber
from tellwire.tasks import Tasks

DRAIN_SLOTS = 100
"""Into how many slots the connections are spread while a node drains."""

DRAIN_PACE_S = 0.005
"""Seconds that each connection adds to the drain, until ``drain_s`` is reached: a few need no spreading."""

_NAMES = {command: str(command.__struct_config__.tag) for command in COMMANDS}

SendPush = Callable[[Push], None]


class Node:
    """One Tellwire process: everything that a transport needs to serve its clients.

    Args:
        broker: Where the log is; opened and closed by the node.
        namespaces: Settings of the channels.
        limits: Bounds on what peers can do.
        access: Which origins may come in.
        entrance: Who may come in; by default everybody may do everything.
        hooks: The application's handlers.
        presence: Where it is kept who is here; opened and closed by the node.
        counters: Where all this is counted.
        trusted_proxies: Whose word is taken for the address of a client.
        revocation_s: Seconds for which a revocation is kept.
        title: What operators call it.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        namespaces: Namespaces | None = None,
        limits: Limits | None = None,
        access: Access | None = None,
        entrance: Entrance | None = None,
        hooks: Hooks | None = None,
        presence: Presence | None = None,
        counters: Counters | None = None,
        trusted_proxies: Collection[Network] = (),
        revocation_s: float = 86_400.0,
        ice: IceServers | None = None,
        title: Title | None = None,
    ) -> None:
        self.name = secrets.token_urlsafe(9)
        self.broker = broker
        self.namespaces = namespaces or Namespaces()
        self.limits = limits or Limits()
        self.access = access or Access()
        self.hooks = hooks or Hooks()
        self.entrance = entrance or Entrance(self.hooks, everyone=OPEN)
        self.presence = presence or make_presence("memory://")
        self.counters = counters or Counters()
        self.trusted_proxies = trusted_proxies
        self.ice = ice or IceServers()
        self.turnstile = Turnstile(self.limits, self.counters)
        self.tasks = Tasks()
        self.hub = Hub(
            broker,
            self.tasks,
            tail_max_bytes=self.limits.tail_max_bytes,
            read_bite_bytes=self.limits.read_bite_bytes,
            counters=self.counters,
        )
        self.members = Members(self)
        self.reading = Reading(self)
        self.lifetimes = Lifetimes(self.limits, self.counters)
        self.departures = Departures(self)
        self.control = Control(self, revocation_s)
        self.roster = Roster(self, title or own_title())
        answer_questions(self.roster)
        self.ready = False
        self.draining = False
        self.turns_away = False
        """Whether new connections are refused."""
        self.on_stop: Callable[[bool], None] = self._stop_by_itself
        """Begins to stop the process of this node, or with True the whole server that it is a worker of."""
        self._commands = Buckets(self.limits.commands_per_s, self.limits.commands_per_s)
        self._publishes = Buckets(self.limits.publishes_per_s, self.limits.publishes_per_s)
        self._clock = time.monotonic

    async def open(self) -> None:
        """Open the broker and begin to serve."""
        await self.hub.open()
        await self.presence.open(self.name, self.limits.node_lease_s)
        await self.control.open()
        await self.roster.open()
        self.tasks.start(self.roster.beat())
        self.tasks.start(self._beat())
        self.tasks.start(keep_lease(self))
        self.tasks.start(sweep(self))
        self.ready = True

    async def aclose(self) -> None:
        """Close every connection that is left, then the broker; may be called twice."""
        self.ready = False
        self.turns_away = True
        for subscriber in list(self.hub.subscribers):
            subscriber.door.close(CloseCode.GOING_AWAY, "the server stops")
        await self.departures.finish()
        self.members.close()
        await self.roster.leave()
        self.control.close()
        await self.tasks.aclose()
        await self.hooks.aclose()
        await self.entrance.aclose()
        await self.presence.aclose()
        await self.broker.aclose()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        period = self.limits.heartbeat_s / 2 / WHEEL_SLOTS
        due = loop.time()
        while True:
            due += period
            if loop.time() - due > self.limits.heartbeat_s / 2:
                # This process stood still. What it missed is not made up for at once: nobody could answer in time.
                due = loop.time()
            await asyncio.sleep(max(0.0, due - loop.time()))
            self.hub.tick()

    def retire(self) -> None:
        """Say that this node is going away, to whoever asks; what comes is still served. May be called twice."""
        if not self.draining:
            self.ready = False
            self.draining = True
            self.tasks.start(self.roster.tell_soon())

    async def drain(self) -> None:
        """Close every connection in a slot of its own, telling it to come back at once, within ``drain_s``.

        From here on new connections are refused, so that they find another node.
        """
        if self.turns_away:
            return
        self.turns_away = True
        self.retire()
        self.members.close()
        waiting = list(self.hub.subscribers)
        window_s = min(self.limits.drain_s, len(waiting) * DRAIN_PACE_S)
        slots = min(DRAIN_SLOTS, len(waiting))
        for slot in range(slots):
            for subscriber in waiting[slot::slots]:
                subscriber.door.close(CloseCode.SERVICE_RESTART, "this node is going away", 0)
            await asyncio.sleep(window_s / slots)

    def _stop_by_itself(self, whole: bool) -> None:
        """Drain, where nobody has said how the process is stopped: it goes on, without connections."""
        self.tasks.start(self.drain())

    # Connections

    def admit(self, door: Door, encoding: Encoding, caller: Caller, *, beats: bool = True) -> Subscriber:
        """Let a connection in; raises Draining while the node is going away, TooManyConnections.

        One that has not said who it is has ``connect_s`` to do so.
        """
        self.check_room(caller)
        if caller.session is None:
            caller.become(caller.identity, secrets.token_urlsafe(16))
        subscriber = Subscriber(self.hub, door, encoding, caller)
        caller.since = time.time()
        if caller.identity is not None:
            self._settle(subscriber, caller.identity)
            if self.entrance.revocations.concern(caller.identity, caller.known):
                # It was on its way in when the others were cut.
                asyncio.get_running_loop().call_soon(door.close, CloseCode.REVOKED, "revoked")
        else:
            self.lifetimes.wait_for_token(subscriber)
        self.hub.enter(subscriber, beats=beats)
        return subscriber

    def check_room(self, caller: Caller) -> None:
        """Return if a connection of this caller could be let in now; else raise Draining or TooManyConnections."""
        if self.turns_away:
            raise Draining("this node is going away; connect again")
        user = caller.user
        if user is not None:
            self.turnstile.check_user(user)

    def dismiss(self, subscriber: Subscriber, code: CloseCode | None = None, reason: str = "") -> None:
        """Let go of a connection; may be called twice. `code` is what the server closed it with, if it did."""
        if subscriber.closed:
            return
        self.hub.leave(subscriber)
        caller = caller_of(subscriber)
        if code is not None:
            self.counters.closes[code] += 1
        caller.stop_timer()
        if caller.counted is not None:
            self.turnstile.leave_user(caller.counted)
            caller.counted = None
        self.members.release(subscriber)
        self.departures.note_end(caller, code, reason)

    def _settle(self, subscriber: Subscriber, identity: Identity) -> None:
        """Count a connection for its user, and see that it ends when its token does."""
        caller = caller_of(subscriber)
        if identity.user is not None and caller.counted != identity.user:
            self.turnstile.enter_user(identity.user)
            if caller.counted is not None:
                self.turnstile.leave_user(caller.counted)
            caller.counted = identity.user
        self.lifetimes.watch(subscriber)
        self.departures.note_begin(caller)

    def greet(self, subscriber: Subscriber, ref: Any = None) -> Connected:
        """Make the push that tells a client who and where it is."""
        caller = caller_of(subscriber)
        return Connected(
            caller.client,
            self.hub.epoch,
            str(Position(self.hub.epoch, self.hub.head)),
            math.ceil((caller.heartbeat_s or self.limits.heartbeat_s) * 1000),
            caller.session,
            ref,
            caller.user,
            expires_in_ms(caller.identity),
        )

    # Who may, and how much

    async def allow(self, caller: Caller, operation: Operation, names: Iterable[str]) -> None:
        """Return if a caller may do something with all of these; else raise Forbidden, with the first they may not."""
        identity = caller.identity
        if identity is None:
            raise Unauthorized("say who you are first: connect with a token")
        hooks = self.hooks
        for name in names:
            may: bool | None = None
            if hooks.authorize is not None:
                may = await hooks.ask_authorize(caller.view(), operation, name)
            if may is None:
                may = identity.grants.may(operation, name)
            if not may:
                raise Forbidden(_refusal(operation, name))

    def own_channels(self, caller: Caller) -> Sequence[str]:
        """Return the channels that a caller's token subscribes by itself."""
        return caller.identity.channels if caller.identity is not None else ()

    def throttle(self, caller: Caller, *, lasts: bool, publish: bool = False) -> None:
        """Count a command, or a publish; raise RateLimited for what is too much.

        A connection that `lasts` has buckets of its own; requests are counted under their user or address.
        """
        now = self._clock()
        limits = self.limits
        if publish:
            if lasts:
                bucket = caller.publishes
                if bucket is None:
                    bucket = caller.publishes = Bucket(limits.publishes_per_s, limits.publishes_per_s)
                wait_s = bucket.take(1, now)
            else:
                wait_s = self._publishes.take(caller.key, 1, now)
        elif lasts:
            bucket = caller.commands
            if bucket is None:
                bucket = caller.commands = Bucket(limits.commands_per_s, limits.commands_per_s)
            wait_s = bucket.take(1, now)
        else:
            wait_s = self._commands.take(caller.key, 1, now)
        if wait_s:
            what, name = ("publishes", "publishes_per_s") if publish else ("commands", "commands_per_s")
            self.counters.limit_hit(name)
            raise RateLimited(f"too many {what}: at most {getattr(limits, name):g} a second are taken", wait_s)

    # Commands

    @property
    def publishes_wait(self) -> bool:
        """Whether the application is asked before a message gets its place; then they have to queue for the order."""
        return self.hooks.publish is not None or self.hooks.authorize is not None

    async def handle(self, subscriber: Subscriber, command: AnyCommand, reply: SendPush, *, packed: bool) -> None:
        """Carry out one command of a connection, and answer it; raises TellwireError where it fails.

        `packed` tells that the command came in MessagePack, and so did the data in it.
        """
        caller = caller_of(subscriber)
        self.counters.commands[_NAMES[type(command)]] += 1
        if caller.identity is None and type(command) is not Connect:
            raise Unauthorized("say who you are first: connect with a token")
        if type(command) is not Publish:
            self.throttle(caller, lasts=True)
        match command:
            case Publish():
                appended = await self.publish(command, caller, packed=packed, lasts=True)
                position = str(appended.position) if appended.position else None
                reply(Published(position, appended.duplicate, command.ref))
            case Subscribe():
                await self._subscribe(subscriber, command, reply)
            case Unsubscribe():
                if not self.hub.unsubscribe(subscriber, check_channel(command.channel)):
                    raise BadRequest(f"unsubscribe: this connection does not read {command.channel}")
                reply(Unsubscribed(command.channel, command.ref))
            case PresenceCommand() | Send() | Call():
                await self.carry_out(caller, command, reply, subscriber, packed=packed)
            case Connect():
                await self._connect(subscriber, command, reply)
            case Refresh():
                await self._refresh(subscriber, command, reply)
            case Ping():
                reply(Pong(command.ref))

    async def carry_out(
        self,
        caller: Caller,
        command: PresenceCommand | Send | Call,
        reply: SendPush,
        subscriber: Subscriber | None = None,
        *,
        packed: bool,
    ) -> None:
        """Carry out a command that needs no connection, and answer it; else as `handle`."""
        match command:
            case PresenceCommand():
                await self.members.handle(caller, command, reply, subscriber, packed=packed)
            case Send():
                reply(await send(self, caller, command, packed=packed))
            case Call():
                reply(await call(self, caller, command, packed=packed))

    async def _connect(self, subscriber: Subscriber, command: Connect, reply: SendPush) -> None:
        caller = caller_of(subscriber)
        session = check_session(command.session)
        if command.token is not None:
            identity = await self.entrance.verify(command.token)
        elif caller.identity is not None:
            identity = caller.identity
        else:
            raise Unauthorized("connect: this server wants a token; give it as token")
        if subscriber.closed:
            return
        if identity.user is not None and identity.user != caller.counted:
            self.turnstile.check_user(identity.user)
        if caller.visit is not None:
            caller.visit.known()
            caller.visit = None
        caller.become(identity, session)
        self._settle(subscriber, identity)
        reply(self.greet(subscriber, command.ref))
        await self.subscribe_own(subscriber, command.since, reply)

    async def subscribe_own(self, subscriber: Subscriber, since: str | int | None, reply: SendPush) -> None:
        """Begin to read the channels that a token subscribes by itself, and tell the client so."""
        names = [name for name in self.own_channels(caller_of(subscriber)) if name not in subscriber.channels]
        for name in names:
            await self._subscribe(subscriber, Subscribe(channel=name, since=since), reply)

    async def _refresh(self, subscriber: Subscriber, command: Refresh, reply: SendPush) -> None:
        caller = caller_of(subscriber)
        identity = await self.entrance.verify(command.token)
        if identity.user != caller.user:
            raise BadRequest("refresh: this token is of another user; connect anew with it")
        if subscriber.closed:
            return
        caller.identity = identity
        # What the fresh token no longer allows is not read on, nor is anybody a member by it.
        for name in [name for name in subscriber.channels if not name.startswith("$")]:
            try:
                await self.reading.allow(caller, [name])
            except Forbidden as exc:
                if self.hub.unsubscribe(subscriber, name):
                    reply(Unsubscribed(name, None, exc.code))
        await self.members.recheck(subscriber, reply)
        if not subscriber.closed:
            self._settle(subscriber, identity)
            reply(Refreshed(expires_in_ms(identity), command.ref))

    async def _subscribe(self, subscriber: Subscriber, command: Subscribe, reply: SendPush) -> None:
        channel = command.channel
        if channel in subscriber.channels:
            raise BadRequest(f"subscribe: this connection reads {channel} already")
        # What may be lost on its way is not worth waiting for, either: who lags gets the newest.
        policy: Policy | None = "latest" if command.unreliable else command.policy
        wanted = self.reading.wanted([channel], policy, have=len(subscriber.channels))
        await self.reading.allow(caller_of(subscriber), wanted)
        placement = await self.reading.place(wanted, command.since, command.last, command.on_gap)
        if command.unreliable:
            subscriber.unreliable = (subscriber.unreliable or set()) | {channel}
        reply(Subscribed(channel, str(placement.cursor), placement.gap, command.ref))
        self.hub.join(subscriber, placement)

    async def publish(self, command: Publish, caller: Caller, *, packed: bool, lasts: bool = False) -> Appended:
        """Append a message, or hand an ephemeral one on; done once it is in the log."""
        began = time.perf_counter()
        self.throttle(caller, lasts=lasts, publish=True)
        channel = check_channel(command.channel)
        if self.hooks.authorize is None:
            if caller.identity is None or not caller.identity.grants.may("publish", channel):
                raise Forbidden(_refusal("publish", channel))
        else:
            await self.allow(caller, "publish", [channel])
        draft = make_draft(command, self.namespaces.of(channel), caller.session, packed=packed)
        if self.hooks.publish is not None:
            draft = await publish_as_asked(self, caller.view(), draft)
        appended = await self._append(draft)
        self.counters.published(began, len(draft.data), duplicate=appended.duplicate)
        return appended

    async def publish_own(self, command: Publish, *, packed: bool = False) -> Appended:
        """Publish for the operator or the application itself: checked, but neither refused nor asked about."""
        began = time.perf_counter()
        draft = self.draft(command, None, packed=packed)
        appended = await self._append(draft)
        self.counters.published(began, len(draft.data), duplicate=appended.duplicate)
        return appended

    def _append(self, draft: Draft) -> Awaitable[Appended]:
        tracer = self.hub.tracer
        return self.broker.append(draft) if tracer is None else tracer.publish(draft, self.broker.append)

    def draft(self, command: Publish, session: str | None, *, packed: bool) -> Draft:
        """Check a publish and make a draft of it; raises RequestError."""
        return make_draft(command, self.namespaces.of(check_channel(command.channel)), session, packed=packed)


def _refusal(operation: str, name: str) -> str:
    verbs = {
        "subscribe": "read", "publish": "publish to", "presence": "see who is in", "call": "call",
        "admin": "do this as an operator:",
    }  # fmt: skip
    return f"you may not {verbs[operation]} {name}"
