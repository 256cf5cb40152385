"""Server-Sent Events (HTML standard, section 9.2): a writer, and an incremental parser without I/O."""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE_END = re.compile(r"\r\n|\r|\n")

KEEP_ALIVE = b": \n\n"
"""A comment: it is read by nobody, and keeps proxies and timeouts from thinking that the stream is dead."""

EVENT_MAX_BYTES = 16 * 1024 * 1024
"""What a parser keeps of one event before it gives up; the stream is then broken or hostile."""


def write_event(data: str | bytes, event: str = "message", event_id: str | None = None) -> bytes:
    """Write one event; every line of `data` becomes a ``data`` field (CR, LF and CRLF all end a line).

    The text comes back with LF for every line end (HTML 9.2.6), so what must keep its CR has to be escaped, as in JSON.
    """
    text = data.decode() if isinstance(data, bytes) else data
    fields = [f"id: {event_id}\n"] if event_id is not None else []
    if event != "message":
        fields.append(f"event: {event}\n")
    fields += [f"data: {line}\n" for line in _LINE_END.split(text)]
    return ("".join(fields) + "\n").encode()


def write_retry(retry_ms: int) -> bytes:
    """Write the field that sets how long a reader waits before it reconnects, in milliseconds."""
    return b"retry: %d\n\n" % retry_ms


class Event(NamedTuple):
    """One event as a reader dispatches it; ``id`` is the last event id at that point."""

    event: str
    data: str
    id: str


class EventParser:
    """Turns the bytes of a stream into events, however they were cut.

    ``last_event_id`` and ``retry_ms`` hold what the stream said last. Raises ValueError for an event that does not end
    within EVENT_MAX_BYTES.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._id_buffer = last_event_id
        self._rest = b""
        self._at_start = True
        self._after_cr = False
        self._event = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes; return the events that they complete."""
        if not chunk:
            return []
        if self._after_cr:
            # A CR that ended the chunk before may have been half of a CRLF.
            self._after_cr = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        buffer = self._rest + chunk
        if self._at_start:
            if len(buffer) < 3 and b"\xef\xbb\xbf".startswith(buffer):
                self._rest = buffer
                return []
            self._at_start = False
            buffer = buffer.removeprefix(b"\xef\xbb\xbf")
        events: list[Event] = []
        if buffer.endswith(b"\r"):
            self._after_cr = True
        *lines, self._rest = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line:
                self._field(line.decode(errors="replace"))
            else:
                self._dispatch(events)
        if self._size + len(self._rest) > EVENT_MAX_BYTES:
            raise ValueError(f"an event of this stream is larger than {EVENT_MAX_BYTES} bytes")
        return events

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == "event":
            self._event = value
        elif name == "id":
            if "\0" not in value:
                self._id_buffer = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)

    def _dispatch(self, events: list[Event]) -> None:
        # HTML 9.2.6: the last event id is set even where the data is empty and nothing is dispatched.
        self.last_event_id = self._id_buffer
        if self._data:
            events.append(Event(self._event or "message", "\n".join(self._data), self.last_event_id))
        self._event = ""
        self._data = []
        self._size = 0
