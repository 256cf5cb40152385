"""What the server says: replies to commands, and pushes that come by themselves (spec, sections 6 and 7)."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, UnsetType

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
    user: str | None = None
    expires_in_ms: int | None = None


class Refreshed(Push, tag="refreshed"):
    """Answers ``refresh``. ``expires_in_ms`` is how long the fresh token lasts; null for ever."""

    expires_in_ms: int | None
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


class MemberView(msgspec.Struct, omit_defaults=True):
    """Somebody in a channel, as the others see them.

    ``entered`` says in milliseconds since 1970 when it came in, the same to everybody; a leave does without.
    """

    client: str
    user: str | None = None
    info: Raw | UnsetType = UNSET
    state: Raw | UnsetType = UNSET
    entered: int = 0


class PresencePush(Push, tag="presence"):
    """Answers ``presence``: who is in a channel, where nothing after ``cursor`` is in it yet.

    ``members`` is null where there are more than the channel's namespace lists; ``client`` is the asker's own.
    """

    channel: str
    client: str
    members: list[MemberView] | None
    clients: int
    users: int
    cursor: str
    ref: Ref = None


class Sent(Push, tag="sent"):
    """Answers ``send``: the signal is in the other client's log."""

    position: str
    duplicate: bool
    ref: Ref = None


class Result(Push, tag="result"):
    """Answers ``call``."""

    data: Raw
    ref: Ref = None


class Pong(Push, tag="pong"):
    """Answers ``ping``."""

    ref: Ref = None


class ErrorPush(Push, tag="error"):
    """Says that a command failed, and why; ``head`` comes with ``conflict``, ``retry_after_ms`` with
    ``rate_limited``.
    """

    code: str
    message: str
    ref: Ref = None
    head: str | None = None
    retry_after_ms: int | None = None


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
    trace: str = ""


class Join(Push, tag="join"):
    """Somebody has entered a channel."""

    channel: str
    member: MemberView
    seq: int = 0


class Update(Push, tag="update"):
    """A member's state is another."""

    channel: str
    member: MemberView
    seq: int = 0


class Leave(Push, tag="leave"):
    """Somebody has left a channel."""

    channel: str
    member: MemberView
    seq: int = 0


class Count(Push, tag="count"):
    """How many are in a channel that is too large to tell of each."""

    channel: str
    clients: int
    users: int
    seq: int = 0


class Signal(Push, tag="signal", rename={"from_": "from"}):
    """A direct message, from a client that is present in the same channel."""

    channel: str
    from_: str
    id: str
    time: int
    event: str
    data: Raw
    user: str | None = None
    seq: int = 0


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
    Connected, Refreshed, Subscribed, Unsubscribed, Published, PresencePush, Sent, Result, Pong, ErrorPush,
    MessagePush, Join, Update, Leave, Count, Signal, GapPush, Heartbeat, Closing,
)  # fmt: skip
