"""Channels of the server's own: who comes and goes, clients' inboxes, and what nodes tell each other.

They are logs like any other, so whatever is said on them is resumed, ordered and told of gaps as messages are. Their
names begin with ``$``, which no client may write; readers get them as pushes of their own kinds (spec, section 7).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Raw, UnsetType

from tellwire.message import Message
from tellwire.protocol.pushes import Count, Join, Leave, MemberView, Push, Signal, Update

PRESENCE = "$presence:"
"""Before a channel's name: its joins, updates and leaves."""

INBOX = "$client:"
"""Before a client's id: the signals that were sent to it."""

CONTROL = "$control:nodes"
"""What every node has to know: revocations, whom to disconnect, and what a node asks of the others."""

ANSWERS = "$answers:"
"""Before a node's id: what the others answer it."""


class InternalCount(msgspec.Struct):
    """How many members a large channel has, as the log holds it."""

    clients: int
    users: int


class InternalSignal(msgspec.Struct, omit_defaults=True):
    """A direct message as the log holds it; ``id`` is the one that its sender gave."""

    channel: str
    from_: str
    id: str
    data: Raw
    user: str | None = None


_member = msgspec.json.Decoder(MemberView)
_count = msgspec.json.Decoder(InternalCount)
_signal = msgspec.json.Decoder(InternalSignal)
_KINDS: dict[str, type[Join | Update | Leave]] = {"join": Join, "update": Update, "leave": Leave}


def is_internal(channel: str) -> bool:
    """Tell whether a channel is the server's own."""
    return channel[:1] == "$"


def event_name(channel: str) -> str:
    """Return the event by which an EventSource gets what is on an internal channel."""
    return "presence" if channel.startswith(PRESENCE) else "signal"


def push_of(message: Message, translate: Callable[[bytes], bytes]) -> Push:
    """Make the push of a message on an internal channel; `translate` turns JSON into the wire's language."""

    def translated(raw: Raw | UnsetType) -> Raw | UnsetType:
        return raw if isinstance(raw, UnsetType) else Raw(translate(bytes(raw)))

    if message.channel.startswith(INBOX):
        signal = _signal.decode(message.data)
        data = Raw(translate(bytes(signal.data)))
        return Signal(
            signal.channel, signal.from_, signal.id, message.time, message.event, data, signal.user, message.seq
        )
    channel = message.channel.removeprefix(PRESENCE)
    if message.event == "count":
        count = _count.decode(message.data)
        return Count(channel, count.clients, count.users, message.seq)
    member = _member.decode(message.data)
    view = MemberView(member.client, member.user, translated(member.info), translated(member.state), member.entered)
    return _KINDS[message.event](channel, view, message.seq)
