"""One reading request after the other, for all channels that want the same of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakSet

from tellwire.client.failures import Failure, lost, told
from tellwire.client.host import stop
from tellwire.client.http import Query
from tellwire.client.place import lowest, split
from tellwire.client.presence import Presence
from tellwire.client.subscription import OnGap, Subscription
from tellwire.client.wire import JSON, Incoming
from tellwire.message import Gap
from tellwire.names import Policy

if TYPE_CHECKING:
    from tellwire.client.requests import HttpTransport

ABOUT_A_CHANNEL = frozenset({"forbidden", "invalid_channel", "invalid_cursor", "bad_request"})
"""Codes of a reading request that are about one of its channels."""

LITTLE = 100
"""Fewer messages than that are read again rather than asked for again."""

PAGE_MESSAGES = 1000

Attendance = Literal["enter", "watch"] | None
"""What a reading request wants of presence, for all its channels alike; only one that enters hears signals."""


class LaneKey(NamedTuple):
    """What the channels of one lane have in common."""

    attendance: Attendance
    policy: Policy | None
    on_gap: OnGap


class Turn(NamedTuple):
    """One reading request."""

    channels: list[str]
    since: str | None


ReadTurn = Callable[["Lane", Turn], Awaitable[None]]
"""Makes one request and takes what it brings; tells `Lane.is_live` as soon as it is known to work."""


class Lane:
    """Reads until it is closed.

    A request begins at the place of the channel that is furthest behind; what the others have had they drop. A channel
    that has no place yet is first read by itself until it has one, while the others go on.
    """

    def __init__(self, transport: HttpTransport, key: LaneKey, read_turn: ReadTurn) -> None:
        self.transport = transport
        self.host = transport.host
        self.key = key
        self.round: dict[str, Subscription] = {}
        """What the request under way reads."""
        self.live = asyncio.Event()
        """Set when everything is being read."""
        self._read_turn = read_turn
        # Of which channels the request under way tells who is there.
        self._watched: list[Presence] = []
        self._stale = asyncio.Event()
        self._is_over = False
        self._run: asyncio.Task[None] | None = None
        # Those that were told that they are read.
        self._begun: WeakSet[Subscription] = WeakSet()

    async def run(self) -> None:
        """Read until closed; raises Failure."""
        self._run = asyncio.current_task()
        while not self._is_over:
            self._stale.clear()
            await self._prepare()
            self.round = {channel: each for channel, each in self._readings().items() if each.place.cursor is not None}
            if self.live.is_set():
                self._begin()
            try:
                await self._read()
            except Failure as failure:
                if not await self._blame(failure):
                    raise

    async def _read(self) -> None:
        """Make one request, until it is over or there is something else to read."""
        rooms = self._watched = self._rooms()
        channels = list(dict.fromkeys([*self.round, *(room.channel for room in rooms)]))
        readers: list[Subscription | Presence] = [*self.round.values(), *rooms]
        cursors = [each.place.cursor for each in readers]
        if self.key.attendance == "enter" and self.host.inbox.cursor is not None:
            cursors.append(self.host.inbox.cursor)
        since = lowest(cursors)
        if channels and since is None:
            await self._prepare()
            since = lowest(each.place.cursor for each in readers)
            if since is None:
                raise lost("the log was replaced")
        turn = asyncio.ensure_future(self._read_turn(self, Turn(channels, since)) if channels else self._idle())
        stale = asyncio.ensure_future(self._stale.wait())
        try:
            await asyncio.wait({turn, stale}, return_when=asyncio.FIRST_COMPLETED)
            while stale.done() and not turn.done():
                # What is read goes on being read while the new ones find their places.
                self._stale.clear()
                await self._prepare()
                if not self._stale.is_set():
                    return
            await turn
        finally:
            await stop(turn, stale)

    async def _idle(self) -> None:
        """There is nothing to read: only make sure that the server is there."""
        if not self.live.is_set():
            try:
                await self.page([])
            except Failure as failure:
                # It misses a channel, and so is there.
                if failure.code != "bad_request":
                    raise
            self.is_live()
        await asyncio.Event().wait()

    def close(self) -> None:
        """Read no more."""
        self._is_over = True
        if self._run is not None:
            self._run.cancel()

    def sync(self) -> None:
        """Take note that what is wanted has changed, perhaps for another lane."""
        wanted = self._readings()
        if wanted == self.round and self._rooms() == self._watched:
            return
        for channel, reading in list(self.round.items()):
            if wanted.get(channel) is not reading:
                del self.round[channel]
        self._stale.set()

    def is_live(self) -> None:
        """Take note that what is asked for is being read."""
        if not self.live.is_set():
            self.live.set()
            self._begin()
            self.sync()

    def _begin(self) -> None:
        for reading in self.round.values():
            if reading not in self._begun:
                self._begun.add(reading)
                reading.began()

    def _readings(self) -> dict[str, Subscription]:
        """Return what this lane is to read."""
        key_of = self.transport.key_of
        return {channel: each for channel, each in self.host.readings().items() if key_of(channel, each) == self.key}

    def _rooms(self) -> list[Presence]:
        if self.key.attendance is None:
            return []
        readings, key_of = self.host.readings(), self.transport.key_of
        rooms = self.host.rooms.items()
        return [room for channel, room in rooms if key_of(channel, readings.get(channel)) == self.key]

    def query(self, channels: Iterable[str], **more: str | int | None) -> Query:
        """Return the parameters of a reading request."""
        return [*(("channel", channel) for channel in channels), *more.items(), ("session", self.host.session)]

    def wishes(self) -> dict[str, str | None]:
        """Return the parameters that the channels of this lane have in common."""
        on_gap = self.key.on_gap if self.key.on_gap != "oldest" else None
        return {"presence": self.key.attendance, "policy": self.key.policy, "on_gap": on_gap}

    async def page(self, channels: Iterable[str], *, wait_s: int = 0, **more: Any) -> Incoming:
        """Poll."""
        query = self.query(channels, **more, wait=wait_s or None)
        timeout_s = self.host.settings.try_timeout_s + wait_s
        return await self.host.http.json("v1/messages", query=query, timeout_s=timeout_s)

    def take_page(self, page: Incoming, round_: Mapping[str, Subscription] | None = None) -> None:
        """Take what a page has, for the channels of a round."""
        place = split(page.cursor)
        self.tell(page.gap, round_)
        for raw in page.messages:
            self.push(JSON.decode(bytes(raw)), place.epoch if place else "", round_)
        self.reached(page.cursor, round_)

    def tell(self, gap: Gap | None, round_: Mapping[str, Subscription] | None = None) -> None:
        """Take a gap."""
        if gap is not None:
            for reading in list((self.round if round_ is None else round_).values()):
                reading.tell(gap)
            self.host.take_gap(gap)

    def push(self, push: Incoming, epoch: str, round_: Mapping[str, Subscription] | None = None) -> None:
        """Take a push."""
        reading = (self.round if round_ is None else round_).get(push.channel)
        if push.type == "unsubscribed":
            if reading is not None:
                why = f"the server ended the reading of {push.channel}"
                reading.end(told(str(push.code or "forbidden"), why).error)
            return
        if push.type != "message":
            self.host.take_push(push, epoch, JSON)
            return
        if reading is not None:
            reading.feed(push, epoch, JSON, is_current=self.host.is_current(self.transport))

    def reached(self, cursor: str, round_: Mapping[str, Subscription] | None = None) -> None:
        """Take note of a cursor: a request reads all its channels in order, each has had what is before."""
        for reading in (self.round if round_ is None else round_).values():
            if reading.is_wanted:
                reading.place.at(cursor)
        if round_ is None:
            for room in self._watched:
                if room.place.cursor is not None:  # else it is asked for anew who is there
                    room.place.at(cursor)
            if self.transport.reads_inbox(self):
                self.host.inbox.at(cursor)

    async def _prepare(self) -> None:
        """Give every channel a place from which one request can go on."""
        while begin := [each for each in self._readings().values() if each.begins_now]:
            # All that begin now begin together.
            try:
                page = await self.page([each.channel for each in begin])
            except Failure as failure:
                if not await self._blame(failure, begin):
                    raise
            else:
                for each in begin:
                    each.place.at(page.cursor)
        for each in self._readings().values():
            if each.place.cursor is None:
                await self._catch_up(each)
        # After the log was replaced, all of them have to be in the new one.
        readings = [each for each in self._readings().values() if each.place.cursor is not None]
        if readings and lowest(each.place.cursor for each in readings) is None:
            for each in readings:
                await self._catch_up(each)

    async def _catch_up(self, reading: Subscription) -> None:
        """Read one channel by itself, until there is little left."""
        count = LITTLE
        while reading.is_wanted and count >= LITTLE:
            wish = {"policy": reading.policy, "on_gap": reading.on_gap, **reading.wish}
            try:
                page = await self.page([reading.channel], **wish, limit=PAGE_MESSAGES)
            except Failure as failure:
                if not await self._blame(failure, [reading]):
                    raise
            else:
                self.take_page(page, {reading.channel: reading})
                count = len(page.messages)

    async def _blame(self, failure: Failure, among: Iterable[Subscription] | None = None) -> bool:
        """End the reading of the channel that an error is about; tell whether there is one."""
        if failure.code not in ABOUT_A_CHANNEL:
            return False
        suspects = list(self.round.values() if among is None else among)
        rooms = self._rooms() if among is None else []
        if len(suspects) == 1 and not rooms:
            suspects[0].end(failure.error)
            return True
        has_found = False
        for reading in suspects:
            try:
                await self.page([reading.channel], since=reading.place.cursor, limit=1)
            except Failure as asked:
                if asked.code not in ABOUT_A_CHANNEL:
                    raise
                reading.end(asked.error)
                has_found = True
        if not has_found:
            # Then it is about who is there.
            for room in rooms:
                room.fail(failure)
        return has_found or bool(rooms)
