"""How messages look on each wire, so that a frame is made once and shared by every reader of its kind.

An encoding makes a *frame* of one message, and a *batch* of some frames: what a door writes in one go. Both are made
once per encoding, however many connections they go to; so nothing in them may be of one connection only.
"""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any

from tellwire.message import Message
from tellwire.protocol import sse
from tellwire.protocol.codecs import JSON, Codec
from tellwire.protocol.internal import event_name, is_internal
from tellwire.protocol.pushes import GapPush, Heartbeat, Push

Batch = Any
"""What an encoding joins frames into: bytes ready for a socket, or a tuple of payloads; only its doors look inside."""

DEFLATE_MIN_BYTES = 512
"""Payloads below it are sent as they are: DEFLATE without context saves nothing on them."""


class Encoding(ABC):
    """One way in which a stream of messages is written; there is one object for each, compared by identity."""

    key: str
    """Encodings with the same key make the same frames, and share them."""

    @abstractmethod
    def frame(self, message: Message, epoch: str) -> bytes:
        """Write one message."""

    @abstractmethod
    def push(self, push: Push) -> Batch:
        """Write something of the server's own, as a whole batch."""

    def join(self, frames: Sequence[bytes]) -> Batch:
        """Make one batch of frames, in their order."""
        return b"".join(frames)

    def beat(self, cursor: str) -> Batch:
        """Write the sign of life that goes to quiet readers."""
        return self.push(Heartbeat(cursor))


SHORT_BYTES = 126
"""Payloads below this have their length in the second byte of the frame (RFC 6455, section 5.2)."""


def websocket_frame(opcode: int, payload: bytes, *, rsv1: bool = False) -> bytes:
    """Write one unmasked, unfragmented frame (RFC 6455, section 5.2)."""
    first = 0x80 | (0x40 if rsv1 else 0) | opcode
    size = len(payload)
    if size < SHORT_BYTES:
        return struct.pack("!BB", first, size) + payload
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


TEXT, BINARY, PING = 0x1, 0x2, 0x9

PING_FRAME = websocket_frame(PING, b"")


class WebSocketEncoding(Encoding):
    """Frames of RFC 6455; with `window_bits`, compressed by RFC 7692 without context takeover.

    Without context (``server_no_context_takeover``) a compressed message depends on no other, so it is shared too.
    """

    def __init__(self, codec: Codec, window_bits: int = 0) -> None:
        self.codec = codec
        self.key = f"ws.{codec.name}.{window_bits}"
        self._opcode = BINARY if codec.binary else TEXT
        self._window_bits = window_bits
        self._heads = [websocket_frame(self._opcode, bytes(size))[:2] for size in range(SHORT_BYTES)]

    def frame(self, message: Message, epoch: str) -> bytes:
        return self.wrap(self.codec.message(message))

    def push(self, push: Push) -> bytes:
        return self.wrap(self.codec.encode(push))

    def wrap(self, payload: bytes) -> bytes:
        """Put a payload into a frame, compressed where that makes it smaller."""
        if len(payload) < SHORT_BYTES:  # most answers
            return self._heads[len(payload)] + payload
        return data_frame(self._opcode, payload, self._window_bits)

    def beat(self, cursor: str) -> bytes:
        return PING_FRAME + self.push(Heartbeat(cursor))


def data_frame(opcode: int, payload: bytes, window_bits: int) -> bytes:
    """Put a payload into a frame, compressed with `window_bits` (0: never) where that makes it smaller."""
    if window_bits and len(payload) >= DEFLATE_MIN_BYTES:
        deflate = zlib.compressobj(wbits=-window_bits)
        # RFC 7692, section 7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
        packed = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        if len(packed) < len(payload):
            return websocket_frame(opcode, packed, rsv1=True)
    return websocket_frame(opcode, payload)


class PayloadEncoding(Encoding):
    """Payloads for a WebSocket whose frames somebody else makes (plain ASGI): a batch is a tuple of them."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.key = f"payload.{codec.name}"

    def frame(self, message: Message, epoch: str) -> bytes:
        return self.codec.message(message)

    def push(self, push: Push) -> tuple[bytes, ...]:
        return (self.codec.encode(push),)

    def join(self, frames: Sequence[bytes]) -> tuple[bytes, ...]:
        return tuple(frames)


class Payload(bytes):
    """A message's payload that knows of which channel it is, and whether it is ephemeral."""

    channel: str
    ephemeral: bool


class ChannelEncoding(PayloadEncoding):
    """Payloads for data channels, of which some may go over one that loses them (spec, section 17.5)."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self.key = f"channel.{codec.name}"

    def frame(self, message: Message, epoch: str) -> Payload:
        payload = Payload(self.codec.message(message))
        payload.channel = message.channel
        payload.ephemeral = not message.seq
        return payload


class _HttpEncoding(Encoding):
    """A stream in an HTTP body; `chunked` adds HTTP/1.1's framing (RFC 9112, section 7.1) to each batch."""

    def __init__(self, *, chunked: bool) -> None:
        self._chunked = chunked

    def join(self, frames: Sequence[bytes]) -> bytes:
        return self.seal(b"".join(frames))

    def seal(self, body: bytes) -> bytes:
        """Make a batch of a piece of the body."""
        return b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body


class EventStreamEncoding(_HttpEncoding):
    """Server-Sent Events: ``id`` is the cursor, ``data`` what was published or, with `envelope`, the message push."""

    def __init__(self, *, envelope: bool, chunked: bool) -> None:
        super().__init__(chunked=chunked)
        self.key = "sse.envelope" if envelope else "sse"
        self._envelope = envelope

    def frame(self, message: Message, epoch: str) -> bytes:
        if is_internal(message.channel):
            return sse.write_event(JSON.message(message), event_name(message.channel), f"{epoch}.{message.seq}")
        data = JSON.message(message) if self._envelope else JSON.data(message)
        # JSON as it is kept has no line ends, so that one data field carries it.
        head = f"id: {epoch}.{message.seq}\n" if message.seq else ""
        # The envelope holds the name. An EventSource drops, without a word, what has a name that it does not listen to.
        if message.event != "message" and not self._envelope:
            head += f"event: {message.event}\n"
        return b"%bdata: %b\n\n" % (head.encode(), data)

    def push(self, push: Push) -> bytes:
        name = str(push.__struct_config__.tag)
        # A gap of another epoch moves the reader's cursor: EventSource would else come back with the old one for ever.
        moved = push.to if isinstance(push, GapPush) and push.reason == "epoch" else None
        return self.seal(sse.write_event(JSON.encode(push), name, moved))

    def beat(self, cursor: str) -> bytes:
        return self.seal(sse.KEEP_ALIVE)


class LinesEncoding(_HttpEncoding):
    """NDJSON: every push as one line; an empty line is the sign of life."""

    def __init__(self, *, chunked: bool) -> None:
        super().__init__(chunked=chunked)
        self.key = "lines"

    def frame(self, message: Message, epoch: str) -> bytes:
        return JSON.message(message) + b"\n"

    def push(self, push: Push) -> bytes:
        return self.seal(JSON.encode(push) + b"\n")

    def beat(self, cursor: str) -> bytes:
        return self.seal(b"\n")


class ObjectsEncoding(Encoding):
    """Message objects for the list in a polling answer: a batch is a tuple of them, or a gap for its field."""

    key = "objects"

    def frame(self, message: Message, epoch: str) -> bytes:
        return JSON.message(message)

    def push(self, push: Push) -> tuple[bytes, ...] | GapPush:
        return push if isinstance(push, GapPush) else ()

    def join(self, frames: Sequence[bytes]) -> tuple[bytes, ...]:
        return tuple(frames)


class ProcessEncoding(Encoding):
    """Messages as they are, for readers in this process: a batch is a tuple of them, or a push."""

    key = "process"

    def frame(self, message: Message, epoch: str) -> Any:
        return (message,)  # what it weighs is counted with its entry already

    def push(self, push: Push) -> Push:
        return push

    def join(self, frames: Sequence[Any]) -> tuple[Message, ...]:
        return tuple(message for (message,) in frames)


@cache
def websocket_encoding(codec: Codec, window_bits: int) -> WebSocketEncoding:
    """Return the one encoding of WebSockets that negotiated this."""
    return WebSocketEncoding(codec, window_bits)


@cache
def payload_encoding(codec: Codec) -> PayloadEncoding:
    """Return the one encoding of WebSockets whose frames somebody else makes."""
    return PayloadEncoding(codec)


@cache
def channel_encoding(codec: Codec) -> ChannelEncoding:
    """Return the one encoding of data channels in this language."""
    return ChannelEncoding(codec)


@cache
def event_stream(*, envelope: bool, chunked: bool) -> EventStreamEncoding:
    """Return the one encoding of SSE streams of this kind."""
    return EventStreamEncoding(envelope=envelope, chunked=chunked)


@cache
def lines(*, chunked: bool) -> LinesEncoding:
    """Return the one encoding of NDJSON streams of this kind."""
    return LinesEncoding(chunked=chunked)


OBJECTS = ObjectsEncoding()

PROCESS = ProcessEncoding()
"""The one encoding of readers in this process."""
