"""One connection both ways: commands up, replies and pushes down (spec, sections 6, 7 and 10)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from tellwire.client.failures import Failure, as_failure, closed_with, lost, told
from tellwire.client.host import DEAD_AFTER, Host, Transport
from tellwire.client.http import bearer
from tellwire.client.messages import Published, TransportName
from tellwire.client.outbox import Answer
from tellwire.client.place import split
from tellwire.client.presence import Presence
from tellwire.client.sockets import Socket
from tellwire.client.subscription import Subscription
from tellwire.client.wire import JSON, PACKED, Incoming, Language
from tellwire.message import Gap
from tellwire.protocol import commands
from tellwire.protocol.commands import Call, Command, Publish, Send
from tellwire.protocol.data import to_json

Take = Callable[[Incoming], None]

REFRESH_AHEAD_S = 15.0
"""How long before its end a token is renewed; after half of its time where that is later."""


class _Reading:
    """A channel that is read, and whether the server said so yet."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.is_live = False


class WebSocketTransport(Transport):
    """A WebSocket that was opened by the client."""

    name: TransportName = "websocket"
    batches: int = 16

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._language: Language = PACKED if host.settings.binary else JSON
        self._read: dict[str, _Reading] = {}
        # Channels that the server reads for this connection by itself.
        self._own: set[str] = set()
        self._pending: dict[int, tuple[asyncio.Future[Incoming], Take | None]] = {}
        self._ref = 0
        self._epoch = ""
        self._socket: Socket | None = None
        self._outgoing: deque[bytes | str] = deque()
        self._has_outgoing = asyncio.Event()
        self._is_open = False
        self._heard_at = 0.0
        # What the server said before it closed.
        self._said: Failure | None = None

    async def open(self) -> None:
        host = self.host
        token = await host.tokens.get()
        # In the handshake whoever decides about it sees the token.
        fields = bearer(token)
        self._socket = await self._open_socket(fields)
        self._heard_at = asyncio.get_running_loop().time()
        self.spawn(self._write(self._socket))
        self.spawn(self._receive_all(self._socket))
        connected = await self._command(commands.Connect(session=host.session, in_order=True), self._connected)
        self.spawn(self._listen())
        if connected.expires_in_ms is not None and host.tokens.can_renew:
            self.spawn(self._refresh(connected.expires_in_ms / 1000))
        tasks = self._subscribe_missing()
        self._is_open = True
        if tasks:
            await asyncio.wait(tasks)
        if self.lost.done():
            raise self.lost.result()

    async def _open_socket(self, fields: dict[str, str]) -> Socket:
        return await self.host.open_socket(self.host.http.websocket_url(), self._language.subprotocol, fields)

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            if self._socket is not None:
                await self._socket.aclose()

    def end(self, failure: Failure) -> None:
        if self.lost.done():
            return
        if failure.close_code == 1009:
            self.host.outbox.refuse_largest()
        super().end(failure)
        pending, self._pending = self._pending, {}
        for future, _ in pending.values():
            if not future.done():
                # Before it is open, whoever opens it has to know why; later a command only knows that it is over.
                future.set_exception(lost(failure.error.detail) if self._is_open else failure)
                future.exception()

    def sync(self) -> None:
        if self._is_open and not self.lost.done():
            self._subscribe_missing()

    def _subscribe_missing(self) -> list[asyncio.Task[None]]:
        """Read what is wanted now, and no more; return what waits for the answers."""
        wanted = self.host.readings()
        for channel, reading in list(self._read.items()):
            if wanted.get(channel) is not reading.subscription:
                del self._read[channel]
                self._command(commands.Unsubscribe(channel=channel))
        return [self._subscribe(each) for channel, each in wanted.items() if channel not in self._read]

    def _subscribe(self, subscription: Subscription) -> asyncio.Task[None]:
        reading = self._read[subscription.channel] = _Reading(subscription)

        def take(reply: Incoming) -> None:
            if self._read.get(subscription.channel) is not reading:
                return
            reading.is_live = True
            self._gap(reply.gap)
            place = split(reply.cursor)
            self._epoch = place.epoch if place else self._epoch
            subscription.place.at(reply.cursor)
            subscription.began()

        command = commands.Subscribe(
            channel=subscription.channel,
            policy=subscription.policy,
            on_gap=subscription.on_gap,
            unreliable=subscription.unreliable,
            **subscription.wish,
        )
        return self.spawn(self._subscribed(reading, self._command(command, take)))

    async def _subscribed(self, reading: _Reading, reply: asyncio.Future[Incoming]) -> None:
        channel = reading.subscription.channel
        try:
            await reply
        except Failure as failure:
            if self.lost.done():
                return  # whoever opened the connection, or lost it, knows
            if failure.is_busy or failure.code == "internal":
                # A server that is busy has said nothing about the channel.
                self.end(failure)
            elif channel in self._own:
                # The token has it read by itself, but from another place.
                self._own.discard(channel)
                self._command(commands.Unsubscribe(channel=channel))
                if self._read.get(channel) is reading:
                    self._subscribe(reading.subscription)
            elif self._read.get(channel) is reading:
                del self._read[channel]
                reading.subscription.end(failure.error)

    async def publish(self, publishes: Sequence[Publish]) -> list[Answer]:
        replies = [self._command(publish) for publish in publishes]
        answers: list[Answer] = []
        for reply in replies:
            try:
                published = await reply
            except Exception as exc:
                answers.append(as_failure(exc))
            else:
                answers.append(Published(published.position, published.duplicate))
        return answers

    async def request(self, command: Send | Call, timeout_s: float) -> tuple[Incoming, Language]:
        return await self._command(command), self._language

    async def present(self, room: Presence, *, is_watched: bool) -> tuple[Incoming | None, Language]:
        wish = room.wish
        command = commands.Presence(watch=is_watched, since=self.host.inbox.cursor, **wish)
        return await self._command(command), self._language

    def _command(self, command: Command, take: Take | None = None) -> asyncio.Future[Incoming]:
        """Send a command now; `take` is called with its reply, before anything that comes after that."""
        future: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()
        if self.lost.done():
            future.set_exception(lost("there is no connection"))
            future.exception()
            return future
        self._ref += 1
        self._pending[self._ref] = (future, take)
        self._outgoing.append(self._written(command, self._ref))
        self._has_outgoing.set()
        return future

    def _written(self, command: Command, ref: int | None) -> bytes | str:
        """Write a command, whose data is MessagePack, in the language of this connection."""
        changes: dict[str, Any] = {"ref": ref}
        for name in ("data", "state"):
            if not self._language.packed and isinstance(packed := getattr(command, name, None), Raw):
                changes[name] = Raw(to_json(bytes(packed)))
        return self._language.encode(msgspec.structs.replace(command, **changes))

    async def _write(self, socket: Socket) -> None:
        while True:
            await self._has_outgoing.wait()
            while self._outgoing:
                await socket.send(self._next_frame())
            self._has_outgoing.clear()

    def _next_frame(self) -> bytes | str:
        return self._outgoing.popleft()

    async def _receive_all(self, socket: Socket) -> None:
        try:
            while True:
                frame = await socket.receive()
                self._heard_at = asyncio.get_running_loop().time()
                self._take_frame(frame)
        except Failure as failure:
            self.end(self._why(failure))

    def _take_frame(self, frame: bytes | str) -> None:
        self._take(self._language.decode(frame))

    def _why(self, failure: Failure) -> Failure:
        """Return why the connection is over: what the server said last before it closed."""
        said = self._said
        if said is None or said.close_code is not None:
            return said or failure
        # An error came, and then the close frame or none.
        return Failure(said.error, retry_ms=said.retry_ms, close_code=failure.close_code)

    def _take(self, push: Incoming) -> None:
        if push.type not in ("closing", "error"):
            self._said = None
        if isinstance(push.ref, int):
            future, take = self._pending.pop(push.ref, (None, None))
            if future is None or future.done():
                return
            if push.type == "error":
                future.set_exception(push.failure)
                future.exception()  # not every command is waited for
            else:
                if take is not None:
                    take(push)
                future.set_result(push)
        elif push.type == "message":
            reading = self._read.get(push.channel)
            self.progress()
            if reading is not None and reading.is_live:
                is_current = self.host.is_current(self)
                reading.subscription.feed(push, self._epoch, self._language, is_current=is_current)
        elif push.type == "heartbeat":
            for reading in self._read.values():
                if reading.is_live:
                    reading.subscription.place.at(push.cursor)
            self.host.inbox.at(push.cursor)
        else:
            self._take_rare(push)

    def _take_rare(self, push: Incoming) -> None:
        if push.type == "gap":
            self._gap(push.as_gap)
        elif push.type == "closing":
            code = push.code if isinstance(push.code, int) else 1011
            closing = closed_with(code, push.reason, push.reconnect_in_ms)
            if self._said is not None:
                closing = Failure(self._said.error, retry_ms=push.reconnect_in_ms, close_code=code)
            self._said = closing
        elif push.type == "error":
            self._said = push.failure
        elif push.type == "subscribed":
            self._own.add(push.channel)
        elif push.type == "unsubscribed":
            reading = self._read.pop(push.channel, None)
            if reading is not None:
                why = f"the server ended the reading of {push.channel}"
                reading.subscription.end(told(str(push.code or "forbidden"), why).error)
        else:
            self.host.take_push(push, self._epoch, self._language)

    def _gap(self, gap: Gap | None) -> None:
        if gap is None:
            return
        if gap.reason == "epoch" and (place := split(gap.to)):
            self._epoch = place.epoch
        for reading in list(self._read.values()):
            if reading.is_live:
                reading.subscription.tell(gap)
        self.host.take_gap(gap)

    def _connected(self, reply: Incoming) -> None:
        host = self.host
        self._epoch = reply.epoch
        host.heartbeat_s = reply.heartbeat_ms / 1000
        host.client = reply.client
        if host.inbox.cursor is None:
            host.inbox.at(reply.cursor)

    async def _listen(self) -> None:
        """Take the connection for dead when nothing was heard for too long."""
        patience_s = self.host.heartbeat_s * DEAD_AFTER
        now = asyncio.get_running_loop().time
        while (rest_s := self._heard_at + patience_s - now()) > 0:  # noqa: ASYNC110  # it waits for silence
            await asyncio.sleep(rest_s)
        self.end(lost(f"nothing was heard of the server for {patience_s:g} s", close_code=4000))

    async def _refresh(self, expires_in_s: float | None) -> None:
        """Get a fresh token shortly before each one is over."""
        tokens = self.host.tokens
        while expires_in_s is not None:
            await asyncio.sleep(max(expires_in_s - REFRESH_AHEAD_S, expires_in_s / 2))
            tokens.forget()
            try:
                reply = await self._command(commands.Refresh(token=await tokens.get() or ""))
            except Failure:
                return  # the server closes when it is over, and then another try is made
            expires_in_s = None if reply.expires_in_ms is None else reply.expires_in_ms / 1000
