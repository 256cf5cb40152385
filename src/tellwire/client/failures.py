"""What goes wrong for a client, and what the server said to do about it.

Applications see the classes of `tellwire.errors`, by their code, and these four of the client's own::

    TellwireError
    ├── ConnectionLost   ``disconnected``: there is no connection, or none any more
    ├── Closed           ``closed``: the client or the subscription was closed
    ├── OutboxFull       ``outbox_full``: too much waits to be acknowledged already
    └── Uncertain        ``uncertain``: sent, but not acknowledged while the server remembers ids

Within the client a `Failure` goes with the error: it knows when to come back, and whether at all.
"""

from __future__ import annotations

import contextlib
from typing import NoReturn

import httpx
import msgspec

from tellwire.errors import (
    BadRequest,
    Conflict,
    Draining,
    Expired,
    Forbidden,
    Internal,
    InvalidCursor,
    NotFound,
    RateLimited,
    Revoked,
    TellwireError,
    Timeout,
    TooLarge,
    Unauthorized,
    Unavailable,
    comes_back,
    error_classes,
)
from tellwire.message import Position


class ConnectionLost(TellwireError):
    code = "disconnected"
    meaning = "there is no connection to the server"


class Closed(TellwireError):
    code = "closed"
    meaning = "the client was closed"


class OutboxFull(TellwireError):
    code = "outbox_full"
    meaning = "too many publishes wait to be acknowledged"


class Uncertain(TellwireError):
    code = "uncertain"
    meaning = "whether the message is in the log cannot be known"


FINAL = frozenset({"unauthorized", "forbidden", "forbidden_origin", "revoked"})
"""Codes after which coming back would bring the same answer."""

BUSY = frozenset({"rate_limited", "unavailable", "draining", "too_many_connections"})
"""Codes of a server that is there, and asks to be left alone: another transport would hear the same."""

_BY_STATUS: dict[int, type[TellwireError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    413: TooLarge,
    503: Unavailable,
}
_BY_CLOSE: dict[int, type[TellwireError]] = {
    1012: Draining,
    1013: Unavailable,
    4002: Expired,
    4500: Unauthorized,
    4502: Revoked,
}


class Failure(Exception):
    """An error on its way through the client; ``retry_ms`` is when the server said to come back."""

    def __init__(self, error: TellwireError, *, retry_ms: float | None = None, close_code: int | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.retry_ms = retry_ms
        self.close_code = close_code

    @property
    def code(self) -> str:
        """The error's code."""
        return self.error.code

    @property
    def is_final(self) -> bool:
        """Whether it is of no use to connect again."""
        return self.code in FINAL or (self.close_code is not None and not comes_back(self.close_code))

    @property
    def is_busy(self) -> bool:
        """Whether the server was reached, but takes nothing now."""
        return self.code in BUSY


def lost(detail: str, *, retry_ms: float | None = None, close_code: int | None = None) -> Failure:
    """Make the failure of a connection that is not there."""
    return Failure(ConnectionLost(detail), retry_ms=retry_ms, close_code=close_code)


def told(
    code: str, detail: str, *, head: str | None = None, retry_after_ms: float | None = None, status: int = 400
) -> Failure:
    """Make the failure that a server told by its code (spec, section 12.1)."""
    known = error_classes().get(code)
    error: TellwireError
    if known is Conflict:
        place = None
        with contextlib.suppress(InvalidCursor):
            place = Position.parse(head or "")
        error = Conflict(detail, place)
    elif known is RateLimited:
        error = RateLimited(detail, None if retry_after_ms is None else retry_after_ms / 1000)
    elif known is None:
        # "A client must take a code that it does not know as bad_request if the status is below 500, else internal."
        error = BadRequest(detail) if status < 500 else Internal(detail)
    else:
        error = known(detail)
    return Failure(error, retry_ms=retry_after_ms)


def closed_with(close_code: int, reason: str, retry_ms: float | None = None) -> Failure:
    """Make the failure of a connection that the server closed."""
    kind = _BY_CLOSE.get(close_code, Forbidden if 4500 <= close_code <= 4999 else ConnectionLost)
    return Failure(
        kind(reason or f"the connection was closed ({close_code})"), retry_ms=retry_ms, close_code=close_code
    )


class _Problem(msgspec.Struct):
    """Problem details (RFC 9457), as far as a client needs them."""

    code: str | None = None
    detail: str | None = None
    head: str | None = None
    retry_after_ms: float | None = None


def refused(status: int, body: bytes, retry_after: str | None = None) -> Failure:
    """Make the failure that an HTTP answer stands for: a problem, or what a proxy made up."""
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem()
    retry_ms = problem.retry_after_ms
    # A date is allowed too (RFC 9110, section 10.2.3), but clocks differ: then the schedule serves.
    if retry_ms is None and retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        retry_ms = int(retry_after) * 1000
    detail = problem.detail or f"the server answered {status}"
    if problem.code is not None:
        return told(problem.code, detail, head=problem.head, retry_after_ms=retry_ms, status=status)
    if status == 429:
        return told("rate_limited", detail, retry_after_ms=retry_ms)
    # A proxy that cannot reach the server says 502 or so: nothing is known of what was asked.
    kind = _BY_STATUS.get(status, BadRequest if status < 500 else ConnectionLost)
    return Failure(kind(detail), retry_ms=retry_ms)


def as_failure(exc: BaseException) -> Failure:
    """Translate what libraries raise at the edge."""
    if isinstance(exc, Failure):
        return exc
    if isinstance(exc, TellwireError):
        return Failure(exc)
    if isinstance(exc, TimeoutError | httpx.TimeoutException):
        return Failure(Timeout(str(exc) or "no answer in time"))
    if isinstance(exc, httpx.HTTPError | OSError | EOFError):
        return lost(str(exc) or type(exc).__name__)
    return lost(f"{type(exc).__name__}: {exc}")


def raise_error(failure: Failure) -> NoReturn:
    """Raise what an application is to see."""
    raise failure.error from failure.__cause__
