"""Checks of what a client gave, before anything is done with it."""

from __future__ import annotations

from msgspec import Raw, UnsetType

from tellwire.errors import BadRequest, TooLarge
from tellwire.message import Draft, Position, trace_of
from tellwire.names import Namespace
from tellwire.protocol.commands import EVENT_MAX_CHARS, ID_MAX_CHARS, KEY_MAX_CHARS, SESSION_MAX_CHARS, Publish
from tellwire.protocol.data import check_data, to_json

RESERVED_EVENTS = frozenset({"open", "error", "gap", "closing", "presence", "signal"})
"""Event names that an EventSource dispatches for other reasons than a message."""

LAST_MAX = 10_000
"""Largest ``last`` and ``limit``: these are read in one piece; a cursor is the way to more."""


def make_draft(command: Publish, namespace: Namespace, session: str | None, *, packed: bool) -> Draft:
    """Check a publish, whose channel was checked already, and make a draft of it; raises RequestError.

    `session` is the publisher's own, left out of the readers where ``echo`` is false. `packed` tells that the data is
    MessagePack.
    """
    data = need_data("publish", command.data)
    check_size(data, namespace)
    if command.id is not None:
        check_text("publish", "id", command.id, ID_MAX_CHARS)
    if command.key is not None:
        check_text("publish", "key", command.key, KEY_MAX_CHARS)
    check_event("publish", command.event)
    skip = ""
    if not command.echo:
        skip = check_session(command.session) or session or ""
        if not skip:
            raise BadRequest("publish: echo=false leaves out the publisher's own readers; give their session")
    return Draft(
        command.channel,
        check_data(data, packed=packed),
        packed,
        command.id,
        command.event,
        command.key,
        skip,
        command.ephemeral or namespace.ephemeral,
        None if command.expect is None else Position.parse(command.expect),
        trace_of(command.trace) if command.trace else "",
    )


def need_data(command: str, data: Raw | UnsetType) -> bytes:
    """Return the data of a command; raise BadRequest where it has none."""
    if isinstance(data, UnsetType):
        raise BadRequest(f"{command}: data is missing; null is data, too")
    return bytes(data)


def check_size(data: bytes, namespace: Namespace) -> None:
    """Raise TooLarge for data that the channels of a namespace do not take."""
    if len(data) > namespace.message_max_bytes:
        raise TooLarge(
            f"data has {len(data)} bytes; messages of the namespace {namespace.name} "
            f"have at most {namespace.message_max_bytes}"
        )


def check_event(command: str, event: str) -> None:
    """Raise BadRequest for an event name that cannot be carried on every wire."""
    if event != "message":
        check_text(command, "event", event, EVENT_MAX_CHARS)
        if event in RESERVED_EVENTS:
            raise BadRequest(f"{command}: the event name {event!r} is taken by the transports themselves")


def check_text(command: str, name: str, value: str, most: int) -> None:
    """Raise BadRequest for a text that is empty, too long or not printable."""
    if not 1 <= len(value) <= most or not value.isprintable():
        raise BadRequest(f"{command}: {name} has 1 to {most} printable characters; got {value[:40]!a}")


def as_json(data: bytes, *, packed: bool) -> bytes:
    """Return data that was checked as the text of a JSON value."""
    checked = check_data(data, packed=packed)
    return to_json(checked) if packed else checked


def check_count(name: str, count: int, least: int = 0) -> int:
    """Return a count that a client gave; raise BadRequest where it is out of range."""
    if not least <= count <= LAST_MAX:
        raise BadRequest(f"{name}={count} is out of range; it is between {least} and {LAST_MAX}")
    return count


def check_session(session: str | None) -> str | None:
    """Return a session that a client gave, None for none; raise BadRequest where it cannot be one."""
    if not session:
        return None
    if len(session) > SESSION_MAX_CHARS or not (session.isascii() and session.isprintable()):
        raise BadRequest(f"session has 1 to {SESSION_MAX_CHARS} printable ASCII characters")
    return session
