"""What an application gets from a client."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tellwire.errors import TellwireError
from tellwire.message import Gap

TransportName = Literal["webrtc", "grpc", "websocket", "sse", "longpoll", "poll"]

ORDER: tuple[TransportName, ...] = ("websocket", "sse", "longpoll", "poll")
"""The transports in the order in which they are tried."""

ON_REQUEST: tuple[TransportName, ...] = ("webrtc",)
"""Those that are tried only where they are named."""

ELSEWHERE: tuple[TransportName, ...] = ("grpc",)
"""Those that have an address of their own, and come first where it is given."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A published message (spec, section 7.1).

    ``position`` is good for ``since``, ``before`` and ``expect``; an ephemeral message has none, and ``seq`` 0.
    ``time`` is in milliseconds since 1970 by the server's clock.
    """

    channel: str
    data: Any
    id: str = ""
    event: str = "message"
    key: str | None = None
    seq: int = 0
    position: str | None = None
    time: int = 0
    ephemeral: bool = False
    trace: str = ""


class Published(msgspec.Struct, frozen=True):
    """The answer to a publish or a send.

    ``position`` is None for an ephemeral message; ``dropped`` says that it found no connection.
    """

    position: str | None
    duplicate: bool = False
    dropped: bool = False


class Page(msgspec.Struct, frozen=True):
    """Messages of the past, in ascending order; ``cursor`` is the newest position."""

    messages: list[Message]
    cursor: str
    gap: Gap | None


class Member(msgspec.Struct, frozen=True):
    """Somebody in a channel: ``info`` is what the token says of it, ``state`` what it says of itself.

    ``entered`` is when it came in, in milliseconds since 1970, the same for everybody; 0 where it has left.
    """

    client: str
    user: str | None = None
    info: Any = None
    state: Any = None
    entered: int = 0


class PresenceEvent(msgspec.Struct, frozen=True):
    """Something has changed in a channel: ``member`` is who joined, was updated or left; None for ``count``.

    ``clients`` and ``users`` are how many are there then.
    """

    kind: Literal["join", "update", "leave", "count"]
    member: Member | None
    clients: int
    users: int


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """A message to this client alone (spec, section 7.7); ``sender`` is the client id of who sent it."""

    channel: str
    sender: str
    user: str | None
    event: str
    data: Any
    id: str
    time: int
    seq: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where a client is.

    ``connected`` says by which ``transport``; ``disconnected`` why (``error``), and in how many seconds it tries again.
    After ``failed`` and ``closed`` nothing comes any more.
    """

    name: Literal["connecting", "connected", "disconnected", "failed", "closed"]
    transport: TransportName | None = None
    error: TellwireError | None = None
    retry_in_s: float | None = None
