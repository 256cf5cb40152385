"""What travels: messages, and the places in a log that they and their readers have.

A *position* is one place in one log, written ``epoch.seq`` (spec, section 2). A *cursor* is what a reader
holds: "I have everything up to here on the channels I read". It has one position per shard of the log,
joined by commas, so its size does not grow with the number of channels.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import msgspec

from tellwire.errors import InvalidCursor

CURSOR_MAX_BYTES = 512
"""Longest cursor that is read; a sharded log with more components than fit is refused at start-up."""

SEQ_MAX = 2**63 - 1
"""Largest ``seq``: what SQLite's and Redis' integers hold."""

_POSITION = re.compile(r"([A-Za-z0-9]{1,32})\.(0|[1-9][0-9]{0,18})", re.ASCII)
_INTEGER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Position(msgspec.Struct, frozen=True, order=True, gc=False):
    """One place in one log: its epoch and the ``seq`` of a message in it.

    ``seq`` 0 is the place before the first message.
    """

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read ``epoch.seq``; raise InvalidCursor with what is wrong."""
        match = _POSITION.fullmatch(text) if len(text) <= CURSOR_MAX_BYTES else None
        if match is None or (seq := int(match[2])) > SEQ_MAX:
            raise InvalidCursor(f"{_shown(text)} is not a position; one looks like k3f9q2ab.1042")
        return cls(match[1], seq)


class Cursor(NamedTuple):
    """What a reader has: one position per shard of the log, in the order of the shards."""

    parts: tuple[Position, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.parts))

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read positions joined by commas; raise InvalidCursor with what is wrong."""
        if len(text) > CURSOR_MAX_BYTES:
            raise InvalidCursor(f"a cursor has at most {CURSOR_MAX_BYTES} bytes; this one has {len(text)}")
        return cls(tuple(Position.parse(part) for part in text.split(",")))


Since = Cursor | int | Literal["now", "earliest"]
"""Where a reader wants to begin: a cursor, a ``seq`` in the present epoch, or a word."""


def parse_since(text: str | int | None) -> Since:
    """Read what a client gave as ``since`` (spec, section 2.3); None means ``now``."""
    if text is None or text == "now":
        return "now"
    if text == "earliest":
        return "earliest"
    if isinstance(text, int):
        if not 0 <= text <= SEQ_MAX:
            raise InvalidCursor(f"since={_shown(str(text))} is out of range; a seq is between 0 and {SEQ_MAX}")
        return text
    if _INTEGER.fullmatch(text):
        return parse_since(int(text))
    try:
        return Cursor.parse(text)
    except InvalidCursor as exc:
        raise InvalidCursor(f"{exc.detail}; besides cursors, an integer, 'now' and 'earliest' are understood") from None


def _shown(text: str) -> str:
    """Return `text` safe and short enough for an error message."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")


_TRACE = re.compile(r"(?!ff)[0-9a-f]{2}(-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?", re.ASCII)

TRACE_CHARS = 55
"""How long a trace context is."""


def trace_of(text: str) -> str:
    """Return a trace context as messages carry it, empty where `text` is none (W3C Trace Context, section 3.2).

    One that cannot be read is left out and no error: a publish does not fail over how it is watched. Of a version newer
    than 00 what is understood is kept.
    """
    match = _TRACE.fullmatch(text) if len(text) <= 512 else None
    return "" if match is None or (match[2] and text.startswith("00")) else f"00{match[1]}"


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message as its log holds it.

    ``data`` is the text of a JSON value or, where ``packed``, a MessagePack object, just as it was published.
    ``time`` is in milliseconds since 1970 by the clock of the node that appended it. ``skip`` names the session
    that does not get this message (``echo: false``). ``seq`` is 0 for ephemeral messages, which no log holds.
    ``trace`` is the publisher's trace context (W3C Trace Context, ``traceparent``), empty where it gave none.
    """

    channel: str
    seq: int
    id: str
    time: int
    data: bytes
    packed: bool = False
    event: str = "message"
    key: str | None = None
    skip: str = ""
    trace: str = ""

    @property
    def size(self) -> int:
        """Bytes that this message counts for in every bound: its texts and a flat 120 for keeping it."""
        key = self.key
        texts = len(self.channel) + len(self.id) + len(self.event) + len(self.trace) + (len(key) if key else 0)
        return len(self.data) + texts + 120


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A message on its way into a log; the fields as in Message.

    ``id`` makes it idempotent. ``expect`` lets it in only if the channel's newest message is still that one.
    """

    channel: str
    data: bytes
    packed: bool = False
    id: str | None = None
    event: str = "message"
    key: str | None = None
    skip: str = ""
    ephemeral: bool = False
    expect: Position | None = None
    trace: str = ""


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The answer to a publish: its place (None for ephemeral messages), and whether it was there already."""

    position: Position | None
    duplicate: bool = False


GapReason = Literal["trimmed", "epoch", "slow"]


class Gap(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """What a reader is told where something may be missing (spec, section 5).

    Between ``from_`` and ``to`` messages of ``channels`` may be missing; up to ``to`` and beyond nothing else is.
    ``trimmed``: history no longer reaches back to the cursor. ``epoch``: the cursor is of another log.
    ``slow``: the reader was connected, but fell off the tail.
    """

    from_: str
    to: str
    reason: GapReason
    channels: tuple[str, ...]
