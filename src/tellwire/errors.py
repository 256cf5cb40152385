"""Every error that Tellwire raises or sends, and the one table of codes.

::

    TellwireError
    ├── RequestError            the peer asked for something that cannot be
    │   ├── BadRequest          a field is missing or makes no sense
    │   │   ├── Malformed       not JSON, not MessagePack, not UTF-8
    │   │   ├── UnknownCommand
    │   │   ├── InvalidChannel
    │   │   ├── InvalidCursor
    │   │   ├── InvalidData     a value that not every reader could be given
    │   │   └── TooManyChannels
    │   ├── Unauthorized
    │   │   ├── Expired         the token was good until a moment ago
    │   │   └── Revoked
    │   ├── Forbidden
    │   │   └── ForbiddenOrigin
    │   ├── NotFound
    │   ├── MethodNotAllowed
    │   ├── Conflict            ``expect`` did not hold; ``head`` says what is newest
    │   ├── TooLarge
    │   ├── UnsupportedMediaType
    │   ├── NotAnUpgrade        a plain request where a WebSocket is opened
    │   ├── RequestTimeout      the request did not arrive whole in time
    │   └── RateLimited
    └── ServerError             our own fault or state
        ├── Internal
        ├── Unavailable         the broker, or the keys of tokens, cannot be reached
        ├── Timeout             a call or a hook took too long
        ├── HookFailed          the application that was asked failed
        ├── TooManyConnections
        └── Draining            this node is going; another one answers

The code of an error is the same on every wire: ``code`` in an ``error`` push and in problem+json (RFC 9457).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from tellwire.message import Position


class CloseCode(IntEnum):
    """WebSocket close codes: RFC 6455, section 7.4.1, and ours.

    4000 to 4499: reconnect. 4500 to 4999: do not, the answer would be the same.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    DEAD = 4000
    SLOW = 4001
    EXPIRED = 4002
    UNAUTHORIZED = 4500
    FORBIDDEN = 4501
    REVOKED = 4502


CLOSE_MEANINGS: dict[CloseCode, str] = {
    CloseCode.NORMAL: "the connection has done what it was for",
    CloseCode.GOING_AWAY: "the page or process is going away",
    CloseCode.PROTOCOL_ERROR: "a frame breaks RFC 6455",
    CloseCode.UNSUPPORTED_DATA: "text on a MessagePack connection, or binary on a JSON one",
    CloseCode.INVALID_DATA: "not UTF-8, not JSON or not MessagePack",
    CloseCode.POLICY_VIOLATION: "a rule was broken for which there is no code of its own",
    CloseCode.MESSAGE_TOO_BIG: "a message is larger than the server takes",
    CloseCode.INTERNAL_ERROR: "the server failed; its log says why",
    CloseCode.SERVICE_RESTART: "this node is draining; reconnect after reconnect_in_ms",
    CloseCode.TRY_AGAIN_LATER: "the server cannot serve now",
    CloseCode.DEAD: "nothing was heard for 2.5 heartbeats",
    CloseCode.SLOW: "the reader lagged on a channel whose policy is disconnect",
    CloseCode.EXPIRED: "the token has expired; reconnect with a fresh one",
    CloseCode.UNAUTHORIZED: "no token, or not one that is accepted",
    CloseCode.FORBIDDEN: "this token, or this origin, may not connect",
    CloseCode.REVOKED: "the token or its user was revoked",
}


def comes_back(code: int) -> bool:
    """Tell whether a client reconnects after a close code, known to it or not (spec, section 12.2)."""
    if 4000 <= code <= 4999:
        return code < 4500
    return code not in (CloseCode.NORMAL, CloseCode.POLICY_VIOLATION)


class TellwireError(Exception):
    """Root of every error of Tellwire's own; ``detail`` is a sentence for people."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    """HTTP status that carries this error."""
    meaning: ClassVar[str] = "the server failed; its log says why"
    close_code: ClassVar[CloseCode | None] = None
    """What a WebSocket is closed with; None where the connection goes on after an ``error`` push."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class RequestError(TellwireError):
    """The peer's fault."""

    code = "bad_request"
    status = 400


class BadRequest(RequestError):
    """``ref`` is that of the command at fault, where it could be read."""

    meaning = "a field is missing, has the wrong type or makes no sense"
    ref: int | str | None = None


class Malformed(BadRequest):
    code = "malformed"
    meaning = "not JSON, not MessagePack or not UTF-8"
    close_code = CloseCode.INVALID_DATA


class UnknownCommand(BadRequest):
    code = "unknown_command"
    meaning = "no command has this type"


class InvalidChannel(BadRequest):
    code = "invalid_channel"
    meaning = "not a channel name"


class InvalidCursor(BadRequest):
    code = "invalid_cursor"
    meaning = "not a cursor"


class InvalidData(BadRequest):
    code = "invalid_data"
    meaning = "a value that cannot be carried on every wire"


class TooManyChannels(BadRequest):
    code = "too_many_channels"
    meaning = "the connection reads as many channels as it may"


class Unauthorized(RequestError):
    code = "unauthorized"
    status = 401
    meaning = "no token, or not one that is accepted"
    close_code = CloseCode.UNAUTHORIZED


class Expired(Unauthorized):
    code = "expired"
    meaning = "the token has expired; come back with a fresh one"
    close_code = CloseCode.EXPIRED


class Revoked(Unauthorized):
    code = "revoked"
    meaning = "the token or its user was revoked"
    close_code = CloseCode.REVOKED


class Forbidden(RequestError):
    code = "forbidden"
    status = 403
    meaning = "this is not for you"


class ForbiddenOrigin(Forbidden):
    code = "forbidden_origin"
    meaning = "pages of this origin may not connect"


class NotFound(RequestError):
    code = "not_found"
    status = 404
    meaning = "there is nothing at this path"


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"
    status = 405
    meaning = "this path does not take this method"


class Conflict(RequestError):
    """``expect`` did not hold; ``head`` is the position of the channel's newest message, None if it has none."""

    code = "conflict"
    status = 409
    meaning = "expect did not hold: the channel has a newer message, named in head"

    def __init__(self, detail: str, head: Position | None) -> None:
        super().__init__(detail)
        self.head = head


class TooLarge(RequestError):
    code = "too_large"
    status = 413
    meaning = "larger than this channel or server takes"


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"
    status = 415
    meaning = "the body is in a format that is not read here"


class NotAnUpgrade(RequestError):
    code = "upgrade_required"
    status = 426
    meaning = "this path opens WebSockets; the request is none"


class RequestTimeout(RequestError):
    code = "request_timeout"
    status = 408
    meaning = "the request did not arrive whole in the time it has"


class RateLimited(RequestError):
    """``retry_after_s`` is when it would be taken; None where that cannot be said."""

    code = "rate_limited"
    status = 429
    meaning = "too much at once; try again later"

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class ServerError(TellwireError):
    """Our own fault or state."""


class Internal(ServerError):
    close_code = CloseCode.INTERNAL_ERROR


class Unavailable(ServerError):
    code = "unavailable"
    status = 503
    meaning = "something that is needed cannot be reached; try again with the same id"
    close_code = CloseCode.TRY_AGAIN_LATER


class Timeout(ServerError):
    code = "timeout"
    status = 504
    meaning = "what was called did not answer in time"


class HookFailed(ServerError):
    code = "hook_failed"
    status = 502
    meaning = "the application that had to be asked failed; its log says why"


class TooManyConnections(ServerError):
    code = "too_many_connections"
    status = 503
    meaning = "as many connections are open as may be; try again later"
    close_code = CloseCode.TRY_AGAIN_LATER


class Draining(ServerError):
    code = "draining"
    status = 503
    meaning = "this node is going away; connect again"
    close_code = CloseCode.SERVICE_RESTART


def error_classes() -> dict[str, type[TellwireError]]:
    """Return the class of every code: the table that the spec and the docs are checked against."""
    table: dict[str, type[TellwireError]] = {}
    waiting: list[type[TellwireError]] = [BadRequest, *RequestError.__subclasses__(), *ServerError.__subclasses__()]
    while waiting:
        cls = waiting.pop(0)
        table.setdefault(cls.code, cls)
        waiting += cls.__subclasses__()
    return table
