"""Messages as they lie in a stream of JetStream, and the subjects that they have there."""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec

from tellwire.errors import InvalidData
from tellwire.message import Draft, Message

_UNSAFE = re.compile(r"[^A-Za-z0-9_:/@=+~#$!-]", re.ASCII)


class Body(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a stream holds of a message.

    ``id`` None stands for the message's position. What JetStream stored after ``until`` (ms since 1970 by its clock; 0:
    never) is not in the log: its publisher was told so.
    """

    token: str
    """Name of the append that it came from."""
    before: int
    """Place of the channel's message before this one, as far as its node knew; 0 where there never was one."""
    until: int
    time: int
    id: str | None
    data: bytes
    packed: bool
    event: str
    key: str | None
    skip: str
    trace: str

    def placed(self, channel: str, epoch: str, seq: int) -> Message:
        """Make the message; `seq` 0 makes an ephemeral one."""
        id_ = self.id if self.id is not None else f"{epoch}.{seq}" if seq else ""
        return Message(
            channel, seq, id_, self.time, self.data, self.packed, self.event, self.key, self.skip, self.trace
        )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Body)


def body_of(draft: Draft, token: str, before: int, until: int, time: int) -> Body:
    """Make what a stream is to hold of a message."""
    return Body(
        token, before, until, time, draft.id, draft.data, draft.packed, draft.event, draft.key, draft.skip, draft.trace
    )


def encode(body: Body) -> bytes:
    """Write it; raises InvalidData."""
    try:
        return _encoder.encode(body)
    except UnicodeEncodeError as exc:
        raise InvalidData(f"a text of this message holds half a surrogate pair and cannot be kept: {exc}") from exc


def decode(payload: bytes) -> Body:
    """Read what `encode` made; raises `msgspec.MsgspecError`."""
    return _decoder.decode(payload)


def token_of(channel: str) -> str:
    """Write a channel as one token of a subject: what NATS gives a meaning to becomes %XX; raises InvalidData.

    NATS subjects are tokens joined by full stops, in which spaces, ``*`` and ``>`` cannot be.
    """
    try:
        return _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), channel)
    except UnicodeEncodeError as exc:
        raise InvalidData(f"a channel holds half a surrogate pair and cannot be kept: {exc}") from exc


def channel_of(token: str) -> str:
    """Read what `token_of` wrote."""
    return unquote(token)
