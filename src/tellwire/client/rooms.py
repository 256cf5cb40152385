"""Who is there in all channels that are watched, and what is said to this client alone."""

from __future__ import annotations

import asyncio

from tellwire.client.backoff import Backoff
from tellwire.client.connection import Connection
from tellwire.client.failures import Failure, as_failure
from tellwire.client.feed import Feed
from tellwire.client.host import Host, Transport, stop
from tellwire.client.messages import Signal
from tellwire.client.presence import Presence
from tellwire.client.wire import Incoming, Language
from tellwire.errors import TellwireError
from tellwire.message import Gap


class Rooms:
    """Asks the server for members, with each connection anew, and hands out what comes of them."""

    def __init__(self, host: Host, connection: Connection) -> None:
        self._host = host
        self._connection = connection
        self._signals: set[Feed[Signal]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def presence(self, channel: str) -> Presence:
        """Return the presence of a channel, which is watched from now on."""
        room = self._host.rooms.get(channel)
        if room is None:
            room = self._host.rooms[channel] = Presence(channel, self)
            self.ask(room)
        return room

    def signals(self) -> Feed[Signal]:
        """Return what is said to this client alone, from now on."""
        feed: Feed[Signal] = Feed()
        self._signals.add(feed)
        return feed

    def ask_all(self) -> None:
        """Have the server asked for all members, as there is a new connection."""
        for room in self._host.rooms.values():
            self.ask(room)

    def end(self, error: TellwireError | None) -> None:
        """End everything, with an error where there is one."""
        for room in self._host.rooms.values():
            room.stop(error)
        for feed in self._signals:
            feed.end(error)

    async def aclose(self) -> None:
        """Wait until nothing runs any more, after `end`."""
        await stop(*self._tasks)

    def ended(self, room: Presence) -> None:
        """Take note that a channel is watched no more."""
        if self._host.rooms.get(room.channel) is room:
            del self._host.rooms[room.channel]
        self._connection.sync()

    def ask(self, room: Presence) -> None:
        """Have the server asked who is in a channel, now or with the next connection."""
        state = self._connection.state
        if state.name in ("failed", "closed"):
            room.stop(state.error)
        elif self._connection.current is not None:
            task = asyncio.create_task(self._present(room, self._connection.current))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def part_from(self, room: Presence) -> None:
        """Tell the server that a presence is over, if there is a connection."""
        transport = self._connection.current
        if transport is None:
            return
        try:
            async with asyncio.timeout(self._host.settings.request_timeout_s), room.asking:
                await transport.present(room, is_watched=False)
        except (Failure, TimeoutError):
            return  # with the connection, or with the lease, it ends too

    async def _present(self, room: Presence, transport: Transport) -> None:
        backoff = Backoff(self._host.settings.chance)
        while transport is self._connection.current:
            async with room.asking:
                failure = await self._ask_once(room, transport)
            if failure is None or not (failure.is_busy or failure.code in ("timeout", "disconnected")):
                return
            await asyncio.sleep(backoff.next_ms(failure.retry_ms) / 1000)

    async def _ask_once(self, room: Presence, transport: Transport) -> Failure | None:
        is_watched = self._host.rooms.get(room.channel) is room
        question = room.expect()
        try:
            async with asyncio.timeout(self._host.settings.request_timeout_s):
                reply, language = await transport.present(room, is_watched=is_watched)
        except Exception as exc:
            failure = as_failure(exc)
            room.fail(failure, question)
            return failure
        if reply is not None and reply.client:
            self._host.client = reply.client
        room.know(question, reply, language)
        self._connection.sync()
        return None

    def take_push(self, push: Incoming, epoch: str, language: Language) -> None:
        """Take what is no message, and is of the epoch."""
        if push.type == "signal":
            if not push.seq or self._host.inbox.take(epoch, push.seq):
                signal = language.signal(push)
                self._signals = {feed for feed in self._signals if not feed.is_ended}
                for feed in self._signals:
                    feed.put(signal)
        elif push.type in ("join", "update", "leave", "count"):
            room = self._host.rooms.get(push.channel)
            if room is not None:
                room.take_push(push, epoch, language)

    def take_gap(self, gap: Gap) -> None:
        """Take what a gap means but for messages."""
        if gap.reason == "epoch":
            self._host.inbox.gap(gap)
        for channel, room in self._host.rooms.items():
            if gap.reason == "epoch" or f"$presence:{channel}" in gap.channels:
                self.ask(room)
