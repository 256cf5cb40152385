"""What a client says: one Struct per command (spec, section 6).

Unknown fields are ignored, so that newer clients can talk to older servers. ``ref`` is the client's own mark; the
reply carries it back.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tellwire.names import Policy

Ref = int | str | None

OnGap = Literal["oldest", "newest"]
"""Where a reader goes on after a gap: from the oldest message kept, or from the newest."""

SESSION_MAX_CHARS = 64
ID_MAX_CHARS = 128
EVENT_MAX_CHARS = 128
KEY_MAX_CHARS = 128


class Command(msgspec.Struct, tag_field="type", omit_defaults=True, kw_only=True):
    """What every command has."""

    ref: Ref = None


class Connect(Command, tag="connect", kw_only=True):
    """Says who connects; ``session`` is a secret text of the client's own that survives reconnects.

    ``since`` is where the channels begin that the token subscribes by itself. With ``in_order`` what is sent behind a
    publish that was refused for a moment is refused, too, up to one with ``again``.
    """

    session: str | None = None
    token: str | None = None
    since: str | int | None = None
    in_order: bool = False


class Refresh(Command, tag="refresh", kw_only=True):
    """Goes on with a fresh token of the same user."""

    token: str


class Subscribe(Command, tag="subscribe", kw_only=True):
    """Begins to read a channel, from a cursor on or from the newest ``last`` messages on.

    With ``unreliable`` its messages may be lost on their way, where the wire can lose any, and the policy is `latest`.
    """

    channel: str
    since: str | int | None = None
    last: int | None = None
    policy: Policy | None = None
    on_gap: OnGap = "oldest"
    unreliable: bool = False


class Unsubscribe(Command, tag="unsubscribe", kw_only=True):
    """Ends the reading of a channel."""

    channel: str


class Publish(Command, tag="publish", kw_only=True):
    """Appends a message to a channel; ``again`` says that its sender has the answers to all that it sent before."""

    channel: str
    data: Raw | UnsetType = UNSET
    id: str | None = None
    event: str = "message"
    key: str | None = None
    ephemeral: bool = False
    expect: str | None = None
    echo: bool = True
    session: str | None = None
    trace: str | None = None
    again: bool = False


class Presence(Command, tag="presence", kw_only=True):
    """Asks who is in a channel, and on the way enters or leaves it, or begins or ends to hear who comes and goes.

    ``enter`` true enters, or replaces the ``state`` of a member; false leaves. None changes nothing, nor does a state
    that is left out. ``since`` is where the watching and the inbox begin, for whoever comes back.
    """

    channel: str
    enter: bool | None = None
    watch: bool | None = None
    state: Raw | UnsetType = UNSET
    since: str | int | None = None


class Send(Command, tag="send", kw_only=True):
    """Sends a direct message (a ``signal``) to one client of a channel in which both are present."""

    channel: str
    to: str
    data: Raw | UnsetType = UNSET
    event: str = "message"
    id: str | None = None


class Call(Command, tag="call", kw_only=True):
    """Calls a procedure of the application."""

    method: str
    data: Raw | UnsetType = UNSET
    timeout_ms: int | None = None


class Ping(Command, tag="ping", kw_only=True):
    """Asks for a ``pong``: for clients that cannot see Ping frames, such as browsers."""


AnyCommand = Connect | Refresh | Subscribe | Unsubscribe | Publish | Presence | Send | Call | Ping
COMMANDS: tuple[type[Command], ...] = (
    Connect, Refresh, Subscribe, Unsubscribe, Publish, Presence, Send, Call, Ping,
)  # fmt: skip
