"""What may be said when, on wires that carry commands; without I/O and without a clock.

::

    NEW ──connect──▶ OPEN ──close──▶ CLOSED
     └──any other──▶ OPEN

``connect`` comes first or not at all: a client that leaves it out has what the handshake gave it.
"""

from __future__ import annotations

import math
from enum import Enum

from tellwire.errors import (
    BadRequest,
    CloseCode,
    Conflict,
    Draining,
    Malformed,
    RateLimited,
    TellwireError,
    Timeout,
    Unavailable,
)
from tellwire.protocol.codecs import Codec
from tellwire.protocol.commands import AnyCommand, Connect, Publish, Ref
from tellwire.protocol.pushes import ErrorPush


class State(Enum):
    """Where a session is."""

    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


# Every command needs all three, and up to Python 3.11 looking up a member of an enum costs as much as a call.
NEW, OPEN, CLOSED = State


class ProtocolViolation(Exception):
    """The peer broke the protocol in a way that ends the connection."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Session:
    """One connection's conversation: payloads in, commands out."""

    __slots__ = ("codec", "state")

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.state = NEW

    def receive(self, payload: bytes, *, binary: bool) -> AnyCommand | None:
        """Take one payload; return its command, or None once the session is closed.

        Raises ProtocolViolation where the connection must close, and RequestError where only this command fails.
        """
        if self.state is CLOSED:
            return None
        if binary is not self.codec.binary:
            kind, name = ("binary", "text") if binary else ("text", "binary")
            raise ProtocolViolation(
                CloseCode.UNSUPPORTED_DATA,
                f"this connection speaks {self.codec.name}, in {name} frames; a {kind} frame came",
            )
        try:
            command = self.codec.decode(payload)
        except Malformed as exc:
            raise ProtocolViolation(CloseCode.INVALID_DATA, exc.detail) from None
        self.admit(command)
        return command

    def admit(self, command: AnyCommand) -> None:
        """Take note of a command; raises BadRequest where it cannot be said now."""
        if type(command) is Connect and self.state is not NEW:
            error = BadRequest("connect: this connection is open already; connect comes first or not at all")
            error.ref = command.ref
            raise error
        self.state = OPEN

    def close(self) -> None:
        """Take nothing more."""
        self.state = CLOSED


MOMENTARY = (RateLimited, Unavailable, Timeout, Draining)
"""Errors that say nothing of the message: it may be published with the same id a moment later."""


class Queue:
    """The publishes of one client, who wants them in the log in the order in which they were sent (spec, section 3.8).

    One that was refused for a moment is sent again, behind those that were under way with it. So these are refused
    with the same error, until the client says that it has all the answers.
    """

    __slots__ = ("_refusal",)

    def __init__(self) -> None:
        self._refusal: TellwireError | None = None

    def refusal_of(self, command: Publish) -> TellwireError | None:
        """Return why a publish may not begin now, None where it may."""
        if command.again:
            self._refusal = None
        return None if command.ephemeral else self._refusal

    def failed(self, command: Publish, exc: BaseException) -> None:
        """Take note that a publish failed."""
        if isinstance(exc, MOMENTARY) and not command.ephemeral:
            self._refusal = exc.with_traceback(None)  # which holds on to what was done with the command


def describe(exc: TellwireError, ref: Ref) -> ErrorPush:
    """Make the push that answers a command with its error."""
    if ref is None and isinstance(exc, BadRequest):
        ref = exc.ref
    head = str(exc.head) if isinstance(exc, Conflict) and exc.head is not None else None
    return ErrorPush(exc.code, exc.detail, ref, head, retry_after_ms(exc))


def retry_after_ms(exc: TellwireError) -> int | None:
    """Return after how many milliseconds what was refused would be taken, where that is known."""
    wait_s = exc.retry_after_s if isinstance(exc, RateLimited) else None
    return None if wait_s is None else math.ceil(wait_s * 1000)
