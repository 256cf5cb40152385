"""The six ways to read, with one face: what is published has to come the same way over each."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Self
from urllib.parse import urlencode

from tellwire.protocol.sse import Event, EventParser
from tests.wires import Address, Closed, Http, Refused, WebSocket

PRESENCE = ("join", "update", "leave", "count")
"""Pushes that tell who comes and goes."""


class Reader(ABC):
    """A reader of some channels; what it is given by keyword are the parameters of the reading.

    ``cursor`` is where it goes on; for polls it is that of the whole page. A reader is there once it was constructed.
    With ``presence`` it watches, or enters, too, as with the parameter of that name.
    """

    cursor: str

    @abstractmethod
    def __init__(self, server: Address, *channels: str, **parameters: Any) -> None: ...

    @classmethod
    def open(cls, server: Address, *channels: str, **parameters: Any) -> Self:
        """Make one, for a server that may not let it read: nothing stays open then."""
        reader = cls.__new__(cls)
        try:
            cls.__init__(reader, server, *channels, **parameters)
        except BaseException:
            if hasattr(reader, "wire"):
                reader.close()
            raise
        return reader

    @abstractmethod
    def read(self) -> dict[str, Any]:
        """Read the next message, gap or closing push; raises Closed at the end."""

    def read_messages(self, count: int) -> list[dict[str, Any]]:
        """Read just messages."""
        messages = [self.read() for _ in range(count)]
        assert all(message["type"] == "message" for message in messages), messages
        return messages

    def read_data(self, count: int) -> list[Any]:
        """Read messages, and return what they carry."""
        return [message["data"] for message in self.read_messages(count)]

    def read_gap(self) -> dict[str, Any]:
        """Read a gap."""
        push = self.read()
        assert push["type"] == "gap", push
        return push

    @abstractmethod
    def close(self) -> None:
        """Go away."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def target(path: str, channels: tuple[str, ...], parameters: dict[str, Any]) -> str:
    """Write a path with its query; parameters that are None are left out."""
    pairs = [("channel", channel) for channel in channels]
    pairs += [(name, str(value)) for name, value in parameters.items() if value is not None]
    return f"{path}?{urlencode(pairs)}"


class SocketReader(Reader):
    """Over WebSocket, in JSON."""

    packed = False

    def __init__(
        self,
        server: Address,
        *channels: str,
        session: str | None = None,
        token: str | None = None,
        presence: str | None = None,
        **parameters: Any,
    ) -> None:
        self.wire = WebSocket(server, packed=self.packed)
        self.pushes: deque[dict[str, Any]] = deque()
        connected = self.wire.ask(type="connect", session=session, token=token)
        assert connected["type"] == "connected", connected
        self.epoch = connected["epoch"]
        for channel in channels:
            subscribed = self.wire.ask(type="subscribe", channel=channel, **parameters)
            assert subscribed["type"] == "subscribed", subscribed
            self.cursor = subscribed["cursor"]
            if subscribed["gap"] is not None:
                self.pushes.append({"type": "gap", **subscribed["gap"]})
            if presence is not None:
                enter, since = presence == "enter" or None, parameters.get("since", self.cursor)
                there = self.wire.ask(type="presence", channel=channel, watch=True, enter=enter, since=since)
                assert there["type"] == "presence", there

    def read(self) -> dict[str, Any]:
        push = self.pushes.popleft() if self.pushes else self.wire.read()
        if push.get("seq"):
            self.cursor = f"{self.epoch}.{push['seq']}"
        elif push["type"] == "gap" and push["reason"] == "epoch":
            self.cursor = push["to"]
        return push

    def close(self) -> None:
        self.wire.close()


class PackedSocketReader(SocketReader):
    """Over WebSocket, in MessagePack."""

    packed = True


class EventReader(Reader):
    """Over Server-Sent Events, with envelopes."""

    def __init__(self, server: Address, *channels: str, **parameters: Any) -> None:
        self.wire = Http(server)
        self.wire.send_request("GET", target("/v1/events", channels, {"envelope": 1, **parameters}))
        headers = self.wire.read_granted_head()
        assert headers["content-type"] == "text/event-stream"
        self.parser = EventParser()
        self.events: deque[Event] = deque()
        self.cursor = ""
        while not self.cursor:
            # Byte by byte, since what comes right behind the first id moves the parser's own on.
            for byte in self._piece():
                self.events += self.parser.feed(bytes((byte,)))
                self.cursor = self.cursor or self.parser.last_event_id

    def _piece(self) -> bytes:
        piece = self.wire.read_piece()
        if not piece:
            raise Closed
        return piece

    def read(self) -> dict[str, Any]:
        while not self.events:
            self.events += self.parser.feed(self._piece())
        event = self.events.popleft()
        self.cursor = event.id or self.cursor  # a gap comes before the first id
        push: dict[str, Any] = json.loads(event.data)
        kind = "presence" if push["type"] in PRESENCE else push["type"]
        assert event.event == kind, "with envelopes the names of messages' events are in the envelope alone"
        return push

    def close(self) -> None:
        self.wire.close()


class LineReader(Reader):
    """Over NDJSON."""

    def __init__(self, server: Address, *channels: str, **parameters: Any) -> None:
        self.wire = Http(server)
        self.wire.send_request("GET", target("/v1/stream", channels, parameters))
        headers = self.wire.read_granted_head()
        assert headers["content-type"] == "application/x-ndjson"
        self.rest = b""
        self.lines: deque[bytes] = deque()
        connected = self.read()
        assert connected["type"] == "connected", connected
        self.epoch, self.cursor = connected["epoch"], connected["cursor"]

    def read(self) -> dict[str, Any]:
        while not self.lines:
            piece = self.wire.read_piece()
            if not piece:
                raise Closed
            *lines, self.rest = (self.rest + piece).split(b"\n")
            self.lines += [line for line in lines if line]
        push: dict[str, Any] = json.loads(self.lines.popleft())
        if push.get("seq"):
            self.cursor = f"{self.epoch}.{push['seq']}"
        elif push["type"] == "gap" and push["reason"] == "epoch":
            self.cursor = push["to"]
        return push

    def close(self) -> None:
        self.wire.close()


class LongPollReader(Reader):
    """Over long polling: each answer's cursor goes into the next question."""

    wait: float = 30

    def __init__(
        self,
        server: Address,
        *channels: str,
        session: str | None = None,
        token: str | None = None,
        presence: str | None = None,
        **parameters: Any,
    ) -> None:
        self.wire = Http(server)
        self.channels = channels
        self.standing = {"session": session, "token": token, "presence": presence}
        self.pushes: deque[dict[str, Any]] = deque()
        # Asks without waiting first, so that there is a cursor.
        self._ask({**parameters, "wait": 0})

    def _ask(self, parameters: dict[str, Any]) -> None:
        answer = self.wire.get(target("/v1/messages", self.channels, {**self.standing, **parameters}))
        if answer.status != 200:
            raise Refused(answer)
        page = answer.json()
        self.cursor = page["cursor"]
        if page["gap"] is not None:
            self.pushes.append({"type": "gap", **page["gap"]})
        self.pushes += page["messages"]

    def read(self) -> dict[str, Any]:
        while not self.pushes:
            self._ask({"since": self.cursor, "wait": self.wait})
        return self.pushes.popleft()

    def close(self) -> None:
        self.wire.close()


class ShortPollReader(LongPollReader):
    """Over short polling."""

    wait = 0


READERS: dict[str, type[Reader]] = {
    "websocket": SocketReader,
    "msgpack": PackedSocketReader,
    "sse": EventReader,
    "stream": LineReader,
    "longpoll": LongPollReader,
    "poll": ShortPollReader,
}
"""Every way to read, by name."""

PUSHED = ("websocket", "msgpack", "sse", "stream")
"""Those that stay connected."""
