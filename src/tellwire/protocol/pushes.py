"""What the server says: replies to commands, and pushes that come by themselves (spec, sections 6 and 7)."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from tellwire.message import Gap, GapReason
from tellwire.protocol.commands import Ref


class Push(msgspec.Struct, tag_field="type", omit_defaults=True):
    """What everything that the server says has: its ``type``."""


class Connected(Push, tag="connected"):
    """Answers ``connect``, and opens an NDJSON stream.

    ``cursor`` is the newest position of the log; ``session`` the text that ``echo: false`` knows the client by.
    """

    client: str
    epoch: str
    cursor: str
    heartbeat_ms: int
    session: str | None = None
    ref: Ref = None


class Subscribed(Push, tag="subscribed"):
    """Answers ``subscribe``. ``cursor`` is where the reading stands: everything after it is going to come."""

    channel: str
    cursor: str
    gap: Gap | None
    ref: Ref = None


class Unsubscribed(Push, tag="unsubscribed"):
    """Answers ``unsubscribe``; without a ``ref`` the server ended the reading, and ``code`` says why."""

    channel: str
    ref: Ref = None
    code: str | None = None


class Published(Push, tag="published"):
    """Answers ``publish``. ``position`` is null for ephemeral messages."""

    position: str | None
    duplicate: bool
    ref: Ref = None


class Pong(Push, tag="pong"):
    """Answers ``ping``."""

    ref: Ref = None


class ErrorPush(Push, tag="error"):
    """Says that a command failed, and why; ``head`` comes with ``conflict``."""

    code: str
    message: str
    ref: Ref = None
    head: str | None = None


class MessagePush(Push, tag="message"):
    """A message. Ephemeral ones have no ``seq``."""

    channel: str
    id: str
    time: int
    event: str
    data: Raw
    seq: int = 0
    key: str | None = None
    ephemeral: bool = False


class GapPush(Push, tag="gap", rename={"from_": "from"}):
    """Says that between two positions messages of some channels may be missing."""

    from_: str
    to: str
    reason: GapReason
    channels: tuple[str, ...]

    @classmethod
    def of(cls, gap: Gap) -> GapPush:
        """Make the push that tells of `gap`."""
        return cls(gap.from_, gap.to, gap.reason, gap.channels)


class Heartbeat(Push, tag="heartbeat"):
    """Says that the server lives, and up to where the connection has everything."""

    cursor: str


class Closing(Push, tag="closing"):
    """Says that the server is about to close, with which code, and when to come back."""

    code: int
    reason: str
    reconnect_in_ms: int | None = None


PUSHES: tuple[type[Push], ...] = (
    Connected, Subscribed, Unsubscribed, Published, Pong, ErrorPush, MessagePush, GapPush, Heartbeat, Closing,
)  # fmt: skip
