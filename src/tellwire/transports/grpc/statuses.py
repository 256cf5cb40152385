"""Errors as gRPC says them: a status, and what the other transports say of it in the trailing metadata."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from tellwire.errors import (
    BadRequest,
    CloseCode,
    Conflict,
    Draining,
    Expired,
    Forbidden,
    HookFailed,
    Internal,
    Malformed,
    NotFound,
    RateLimited,
    RequestError,
    RequestTimeout,
    Revoked,
    TellwireError,
    Timeout,
    TooLarge,
    TooManyChannels,
    TooManyConnections,
    Unauthorized,
    Unavailable,
)
from tellwire.protocol.proto import tellwire_pb2 as pb
from tellwire.protocol.session import retry_after_ms

ERROR_FIELD = "tellwire-error-bin"
DETAILS_FIELD = "grpc-status-details-bin"
"""Where the usual libraries look for a google.rpc.Status."""

ERROR_TYPE = f"type.googleapis.com/{pb.Error.DESCRIPTOR.full_name}"

_STATUSES: dict[type[TellwireError], grpc.StatusCode] = {
    TooManyChannels: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooManyConnections: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unauthorized: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.ABORTED,
    Timeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    RequestTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Draining: grpc.StatusCode.UNAVAILABLE,
    HookFailed: grpc.StatusCode.INTERNAL,
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    TellwireError: grpc.StatusCode.INTERNAL,
}
"""The status of each kind of error; what a kind derives from counts where it has none of its own."""

_ENDS: dict[CloseCode, type[TellwireError]] = {
    CloseCode.GOING_AWAY: Draining,
    CloseCode.SERVICE_RESTART: Draining,
    CloseCode.TRY_AGAIN_LATER: Unavailable,
    CloseCode.SLOW: Unavailable,
    CloseCode.DEAD: Unavailable,
    CloseCode.EXPIRED: Expired,
    CloseCode.UNAUTHORIZED: Unauthorized,
    CloseCode.FORBIDDEN: Forbidden,
    CloseCode.REVOKED: Revoked,
    CloseCode.INTERNAL_ERROR: Internal,
    CloseCode.INVALID_DATA: Malformed,
}

Context = grpc.aio.ServicerContext[Any, Any]


def status_of(kind: type[TellwireError]) -> grpc.StatusCode:
    """Return the status that goes with a kind of error."""
    return next(_STATUSES[each] for each in kind.__mro__ if each in _STATUSES)


def error_of(exc: TellwireError) -> pb.Error:
    """Make the message that tells of an error."""
    head = str(exc.head) if isinstance(exc, Conflict) and exc.head is not None else None
    return pb.Error(code=exc.code, message=exc.detail, head=head, retry_after_ms=retry_after_ms(exc))


def trailer_of(exc: TellwireError) -> tuple[tuple[str, bytes], ...]:
    """Make the trailing metadata that goes with the status of an error."""
    error = error_of(exc).SerializeToString()
    number = status_of(type(exc)).value[0]
    rich = pb.Status(code=number, message=exc.detail, details=[pb.Detail(type_url=ERROR_TYPE, value=error)])
    return (ERROR_FIELD, error), (DETAILS_FIELD, rich.SerializeToString())


async def refuse(context: Context, exc: TellwireError) -> NoReturn:
    """End a call with an error."""
    await context.abort(status_of(type(exc)), exc.detail, trailer_of(exc))


def error_of_close(code: CloseCode, reason: str) -> TellwireError | None:
    """Return the error that a stream ends with which was closed so; None where it just ends."""
    return None if code is CloseCode.NORMAL else _ENDS.get(code, BadRequest)(reason)
