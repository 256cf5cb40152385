"""Doors without a network: sockets that take what they are told to, and read back what they were given."""

from __future__ import annotations

import asyncio
import struct
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any

import msgspec

from tellwire.errors import CloseCode
from tellwire.hub import Placement
from tellwire.names import Policy
from tellwire.node import OPEN, Caller, Node
from tellwire.protocol.codecs import JSON, Codec
from tellwire.protocol.commands import OnGap
from tellwire.protocol.encodings import Batch, Encoding, event_stream, lines, payload_encoding, websocket_encoding
from tellwire.protocol.pushes import Closing, GapPush, Push
from tellwire.protocol.session import Session
from tellwire.protocol.sse import EventParser
from tellwire.subscriber import Subscriber
from tellwire.transports.conversation import Conversation
from tellwire.transports.polling import PollDoor
from tellwire.transports.requests import Answer

Seen = dict[str, Any]
"""A push as a client sees it; what came as an SSE event has its ``id`` as ``cursor``."""


class Decoder(ABC):
    """Reads a stream back into pushes."""

    @abstractmethod
    def feed(self, data: bytes) -> list[Seen]:
        """Take some bytes; return the pushes that are whole by now."""


class LineDecoder(Decoder):
    """Reads NDJSON."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Seen]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [msgspec.json.decode(line) for line in whole if line]


class EventDecoder(Decoder):
    """Reads Server-Sent Events with envelopes."""

    def __init__(self) -> None:
        self._parser = EventParser()

    def feed(self, data: bytes) -> list[Seen]:
        return [{**msgspec.json.decode(event.data), "cursor": event.id} for event in self._parser.feed(data)]


class FrameDecoder(Decoder):
    """Reads a server's uncompressed WebSocket frames (RFC 6455, section 5.2), of one codec."""

    def __init__(self, codec: Codec) -> None:
        self._decode = msgspec.msgpack.decode if codec.binary else msgspec.json.decode
        self._rest = b""

    def feed(self, data: bytes) -> list[Seen]:
        rest = self._rest + data
        seen = []
        while (sizes := _frame_sizes(rest)) is not None and len(rest) >= sum(sizes):
            head, size = sizes
            if rest[0] & 0xF in (1, 2):
                seen.append(self._decode(rest[head : head + size]))
            rest = rest[head + size :]
        self._rest = rest
        return seen


def _frame_sizes(data: bytes) -> tuple[int, int] | None:
    """Return the bytes of a frame's head and of its payload, if the head is whole."""
    if len(data) < 2:
        return None
    head = {126: 4, 127: 10}.get(data[1], 2)
    if len(data) < head:
        return None
    return head, data[1] if head == 2 else struct.unpack("!H" if head == 4 else "!Q", data[2:head])[0]


def somebody(session: str | None = None) -> Caller:
    """Return who may do everything."""
    return Caller(OPEN, "fake", "", session)


class FakeDoor(ABC):
    """What the doors here have in common: a subscriber, and an end."""

    hears = False

    def __init__(self, node: Node, encoding: Encoding, decoder: Decoder | None, session: str | None) -> None:
        self.writable = True
        self.closed_with: CloseCode | None = None
        self.encoding = encoding
        self._node = node
        self._decoder = decoder
        self.subscriber: Subscriber = node.admit(self, encoding, somebody(session))

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Send a batch, as a door does."""

    @abstractmethod
    def drain(self, count: int | None = None) -> list[Seen]:
        """Let the peer take up to `count` bytes, None for all there are just now; return what it can read by then."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether the peer has taken everything."""

    def send(self, push: Push) -> None:
        """Send something of the server's own."""
        self.write(self.encoding.push(push))

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        """Say why and end the reading; the peer may still take what was written."""
        if self.closed_with is None:
            self.closed_with = code
            self.end()
            self.send(Closing(code, reason, reconnect_in_ms))
            self.writable = False

    def end(self) -> None:
        """Let go of the reading."""
        self._node.dismiss(self.subscriber)

    def cut(self) -> None:
        """Lose the connection, and whatever the peer has not taken."""
        self.closed_with = self.closed_with or CloseCode.GOING_AWAY
        self.writable = False
        self.end()

    def _taken(self) -> None:
        """Note that nothing waits: the door may be written to again."""
        if not self.writable and self.closed_with is None:
            self.writable = True
            self.subscriber.advance()


class SocketDoor(FakeDoor):
    """A socket of `capacity` bytes that the peer drains on command; beyond them it is not writable."""

    def __init__(
        self, node: Node, encoding: Encoding, decoder: Decoder, *, capacity: int = 1 << 30, session: str | None = None
    ) -> None:
        self._capacity = capacity
        self._sent = bytearray()
        self._waiting = bytearray()
        super().__init__(node, encoding, decoder, session)

    @property
    def waiting_bytes(self) -> int:
        """What the socket has not taken."""
        return len(self._waiting)

    def is_empty(self) -> bool:
        return not self._sent and not self._waiting

    def write(self, batch: bytes) -> None:
        self._waiting += batch
        self._fill()
        if self._waiting:
            self.writable = False

    def drain(self, count: int | None = None) -> list[Seen]:
        assert self._decoder is not None
        count = len(self._sent) if count is None else count
        taken = bytes(self._sent[:count])
        del self._sent[:count]
        self._fill()
        seen = self._decoder.feed(taken)
        if not self._waiting:
            self._taken()
        return seen

    def _fill(self) -> None:
        room = max(0, self._capacity - len(self._sent))
        self._sent += self._waiting[:room]
        del self._waiting[:room]


class SlotDoor(FakeDoor):
    """A door as plain ASGI has it: what was written waits in one slot until all of it is sent."""

    def __init__(
        self, node: Node, encoding: Encoding, decoder: Decoder | None = None, *, session: str | None = None
    ) -> None:
        self._slot: list[Any] = []
        super().__init__(node, encoding, decoder, session)

    def is_empty(self) -> bool:
        return not self._slot

    def write(self, batch: Batch) -> None:
        self._slot.append(batch)
        self.writable = False

    def drain(self, count: int | None = None) -> list[Seen]:
        slot, self._slot = self._slot, []
        if self._decoder is not None:
            seen = self._decoder.feed(b"".join(slot))
        else:
            seen = [msgspec.json.decode(payload) for batch in slot for payload in batch]
        self._taken()
        return seen


class Talk:
    """A conversation over a fake door, as a WebSocket has it."""

    def __init__(self, node: Node, door: FakeDoor, codec: Codec) -> None:
        self._codec = codec
        self.is_paused = False
        self.door = door
        self.writable = True
        self._conversation = Conversation(node, self, door.subscriber, Session(codec))
        door.end = self._conversation.end  # type: ignore[method-assign]  # a conversation that ends lets go by itself

    hears = False

    def write(self, batch: Batch) -> None:
        self.door.write(batch)

    def send(self, push: Push) -> None:
        if self.door.closed_with is None:
            self.door.send(push)

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        self.door.close(code, reason, reconnect_in_ms)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def say(self, **command: Any) -> None:
        """Say something as the client."""
        encode = msgspec.msgpack.encode if self._codec.binary else msgspec.json.encode
        self._conversation.receive(encode(command), binary=self._codec.binary)


class FakePoll(PollDoor):
    """A poll that keeps its answer."""

    page: Any = None

    def put(self, answer: Answer) -> None:
        assert self.page is None, "a poll is answered once"
        assert answer.status == 200, answer.body
        self.page = msgspec.json.decode(answer.body)


def socket_talk(node: Node, codec: Codec = JSON, *, capacity: int = 1 << 30, session: str | None = None) -> Talk:
    """Open a WebSocket-like connection on a socket."""
    door = SocketDoor(node, websocket_encoding(codec, 0), FrameDecoder(codec), capacity=capacity, session=session)
    return Talk(node, door, codec)


def slot_talk(node: Node, *, session: str | None = None) -> Talk:
    """Open a WebSocket-like connection as plain ASGI has it."""
    return Talk(node, SlotDoor(node, payload_encoding(JSON), session=session), JSON)


def event_door(node: Node, *, capacity: int = 1 << 30, session: str | None = None) -> SocketDoor:
    """Open an SSE-like stream on a socket."""
    encoding = event_stream(envelope=True, chunked=False)
    return SocketDoor(node, encoding, EventDecoder(), capacity=capacity, session=session)


def line_door(node: Node, *, capacity: int = 1 << 30, session: str | None = None) -> SocketDoor:
    """Open an NDJSON-like stream on a socket."""
    return SocketDoor(node, lines(chunked=False), LineDecoder(), capacity=capacity, session=session)


def line_slot(node: Node, *, session: str | None = None) -> SlotDoor:
    """Open an NDJSON-like stream as plain ASGI has it."""
    return SlotDoor(node, lines(chunked=False), LineDecoder(), session=session)


async def begin(
    node: Node,
    door: FakeDoor,
    channels: Collection[str],
    since: str | int | None = None,
    *,
    last: int | None = None,
    policy: Policy | None = None,
    on_gap: OnGap = "oldest",
) -> Placement:
    """Read all of `channels` over a door that was opened, as the streams do: the gap first, then what comes."""
    placement = await node.reading.place(node.reading.wanted(channels, policy), since, last, on_gap)
    if placement.gap is not None and not door.subscriber.closed:
        door.send(GapPush.of(placement.gap))
    node.hub.join(door.subscriber, placement)
    return placement


async def ask(
    node: Node,
    channels: Collection[str],
    since: str | int | None = None,
    *,
    wait: bool = True,
    limit: int = 1000,
    last: int | None = None,
    policy: Policy | None = None,
    on_gap: OnGap = "oldest",
    session: str | None = None,
) -> FakePoll:
    """Poll; with `wait` until something comes or the wait is ended by ``answer(())``."""
    placement = await node.reading.place(node.reading.wanted(channels, policy), since, last, on_gap)
    try:
        door = FakePoll(node, limit, placement, somebody(session), None)
    except BaseException:
        node.hub.let_go(placement.subscriptions)
        raise
    node.hub.join(door.subscriber, placement)
    door.wait(1e6 if wait else 0)
    return door


async def settle() -> None:
    """Let the loop run until nothing is ready; everything here that waits, waits for the test."""
    for _ in range(6):
        await asyncio.sleep(0)
