"""What comes down is read in lanes, by one kind of request or another; what goes up are requests of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, Raw

from tellwire.client.failures import told
from tellwire.client.host import Host, Transport, stop
from tellwire.client.lane import Attendance, Lane, LaneKey, ReadTurn
from tellwire.client.messages import Published, TransportName
from tellwire.client.outbox import Answer
from tellwire.client.presence import Presence
from tellwire.client.subscription import Subscription
from tellwire.client.wire import JSON, Incoming, Language
from tellwire.protocol.commands import Call, Publish, Send
from tellwire.protocol.data import to_json


class HttpTransport(Transport):
    """Server-Sent Events, long polls or short polls, by what `read_turn` does."""

    batches = 1

    def __init__(self, host: Host, name: TransportName, read_turn: ReadTurn) -> None:
        super().__init__(host)
        self.name = name
        self._read_turn = read_turn
        self._lanes: dict[LaneKey, Lane] = {}
        self._is_open = False

    async def open(self) -> None:
        lanes = self._make_missing()
        for lane in lanes:
            self.spawn(lane.run())
        live = [asyncio.ensure_future(lane.live.wait()) for lane in lanes]
        try:
            while not all(each.done() for each in live):
                ends: set[asyncio.Future[Any]] = {self.lost, *live}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if self.lost.done():
                    raise self.lost.result()
        finally:
            await stop(*live)
        self._is_open = True
        self.sync()

    def key_of(self, channel: str, subscription: Subscription | None) -> LaneKey:
        """Return by which lane a channel is read, and who is there watched."""
        room = self.host.rooms.get(channel)
        # Until it is known who is there, nobody can say since when to watch.
        attendance: Attendance = (
            None if room is None or room.place.cursor is None else "enter" if room.is_in else "watch"
        )
        if subscription is None:
            return LaneKey(attendance, None, "oldest")
        return LaneKey(attendance, subscription.policy, subscription.on_gap)

    def reads_inbox(self, lane: Lane) -> bool:
        """Tell whether a lane says up to where this client had its signals.

        A member hears only by the lane that enters, also before that is there.
        """
        return lane.key.attendance == "enter" or not any(room.is_in for room in self.host.rooms.values())

    def _make_missing(self) -> list[Lane]:
        """Make the lanes that are missing, and return them; end those that have nothing to do."""
        readings = self.host.readings()
        needed = {self.key_of(channel, readings.get(channel)) for channel in (*readings, *self.host.rooms)}
        needed = needed or {LaneKey(None, None, "oldest")}
        for key in self._lanes.keys() - needed:
            self._lanes.pop(key).close()
        made = [Lane(self, key, self._read_turn) for key in sorted(needed - self._lanes.keys(), key=str)]
        self._lanes.update((lane.key, lane) for lane in made)
        return made

    def sync(self) -> None:
        if self.lost.done():
            return
        for lane in self._lanes.values():
            lane.sync()
        if self._is_open:
            for lane in self._make_missing():
                self.spawn(lane.run())

    async def publish(self, publishes: Sequence[Publish]) -> list[Answer]:
        body = [_fields(publish) for publish in publishes]
        answers = await self.host.http.json_list(
            "v1/messages", body=body, timeout_s=self.host.settings.request_timeout_s
        )
        return [_answer(answer) for answer in answers]

    async def request(self, command: Send | Call, timeout_s: float) -> tuple[Incoming, Language]:
        path = "v1/send" if isinstance(command, Send) else "v1/call"
        return await self._post(path, _fields(command), timeout_s), JSON

    async def _post(self, path: str, fields: dict[str, Any], timeout_s: float | None = None) -> Incoming:
        return await self.host.http.json(
            path,
            body={"session": self.host.session, **fields},
            timeout_s=timeout_s or self.host.settings.request_timeout_s,
        )

    async def present(self, room: Presence, *, is_watched: bool) -> tuple[Incoming | None, Language]:
        host = self.host
        fields = _fields_of(room.wish)
        if fields.get("enter") and host.inbox.cursor is None:
            # What is said to this client from its entry on is not to be missed. Others may look, and enter, meanwhile.
            cursor = (await self._look(room.channel)).cursor
            if host.inbox.cursor is None:
                host.inbox.at(cursor)
        if "enter" in fields:
            return await self._post("v1/presence", fields), JSON
        return (await self._look(room.channel) if is_watched else None), JSON

    async def _look(self, channel: str) -> Incoming:
        query = [("channel", channel), ("session", self.host.session)]
        return await self.host.http.json("v1/presence", query=query, timeout_s=self.host.settings.request_timeout_s)


def _fields(command: Publish | Send | Call) -> dict[str, Any]:
    return _fields_of({name: getattr(command, name) for name in command.__struct_fields__ if name != "ref"})


def _fields_of(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are set, with data from MessagePack to JSON."""
    return {
        name: Raw(to_json(bytes(value))) if isinstance(value, Raw) else value
        for name, value in given.items()
        if value is not None and value is not UNSET
    }


def _answer(answer: Incoming) -> Answer:
    error = answer.error
    if error is None:
        return Published(answer.position, answer.duplicate)
    return told(error.code, error.message, head=error.head, retry_after_ms=error.retry_after_ms)
