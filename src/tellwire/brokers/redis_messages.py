"""Messages as they lie in Redis' streams and as they are announced."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tellwire.errors import InvalidData
from tellwire.message import Draft, Message


class _Body(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What Redis does not look into; ``id`` None stands for the message's position."""

    id: str | None
    data: bytes
    packed: bool
    event: str
    key: str | None
    skip: str
    trace: str


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


class Announced(NamedTuple):
    """What was announced: a message, and what there is to know if others were missed. Ephemeral ones have seq 0."""

    message: Message
    epoch: str
    previous: int
    """Place of the channel's message before this one."""
    origin: str
    """The node that an ephemeral message came from."""


def encode(draft: Draft) -> bytes:
    """Make the part of a message that Redis does not look into; raises InvalidData."""
    try:
        return _encoder.encode(
            _Body(draft.id, draft.data, draft.packed, draft.event, draft.key, draft.skip, draft.trace)
        )
    except UnicodeEncodeError as exc:
        raise InvalidData(f"a text of this message holds half a surrogate pair and cannot be kept: {exc}") from exc


def weigh(draft: Draft) -> int:
    """Return what a draft will count for as a message; an id that it is given counts besides."""
    return Message(
        draft.channel, 0, draft.id or "", 0, draft.data, draft.packed, draft.event, draft.key, draft.skip, draft.trace
    ).size


def place(draft: Draft, epoch: str, seq: int, time: int) -> Message:
    """Make the message that a draft became."""
    id_ = draft.id if draft.id is not None else f"{epoch}.{seq}" if seq else ""
    return Message(
        draft.channel, seq, id_, time, draft.data, draft.packed, draft.event, draft.key, draft.skip, draft.trace
    )


def announcement(draft: Draft, origin: str, time: int) -> bytes:
    """Make what is announced of an ephemeral message."""
    return f"- {origin} {time}\n".encode() + encode(draft)


def decode(channel: str, epoch: str, entry: bytes, value: bytes) -> Message:
    """Read an entry of a channel's stream."""
    head, _, body = value.partition(b"\n")
    return _message(channel, epoch, int(entry.partition(b"-")[0]), int(head.partition(b" ")[0]), body)


def announced(channel: str, payload: bytes) -> Announced:
    """Read what was announced on a channel."""
    head, _, body = payload.partition(b"\n")
    words = head.decode().split(" ")
    if words[0] == "-":
        return Announced(_message(channel, "", 0, int(words[2]), body), "", 0, words[1])
    epoch, seq, previous, time = words
    return Announced(_message(channel, epoch, int(seq), int(time), body), epoch, int(previous), "")


def _message(channel: str, epoch: str, seq: int, time: int, body: bytes) -> Message:
    had = _decoder.decode(body)
    id_ = had.id if had.id is not None else f"{epoch}.{seq}" if seq else ""
    return Message(channel, seq, id_, time, had.data, had.packed, had.event, had.key, had.skip, had.trace)
