"""Long payloads over a wire whose messages are short (spec, section 17.4): cut into parts, and joined again."""

from __future__ import annotations

from collections.abc import Iterator

LAST, MORE = b"\0", b"\1"
"""First byte of a part. No payload begins with either: JSON does not, nor does a map in MessagePack."""


def split(payload: bytes, limit_bytes: int) -> Iterator[bytes]:
    """Yield the parts of a payload, each with its mark and at most `limit_bytes` long."""
    size = limit_bytes - 1
    for at in range(0, len(payload), size):
        yield (MORE if at + size < len(payload) else LAST) + payload[at : at + size]


def is_part(message: bytes) -> bool:
    """Tell whether a binary message is a part, and not a whole payload."""
    return message[:1] in (LAST, MORE)


class Joiner:
    """Puts the parts of one payload after the other together."""

    __slots__ = ("_limit_bytes", "_parts", "_size")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def is_empty(self) -> bool:
        """Whether no payload is half there."""
        return not self._parts

    def add(self, part: bytes) -> bytes | None:
        """Take a part; return the payload that it completes. Raises OverflowError beyond the limit."""
        self._size += len(part) - 1
        if self._size > self._limit_bytes:
            raise OverflowError(f"a payload has at most {self._limit_bytes} bytes; this one has more")
        self._parts.append(part[1:])
        if part[:1] == MORE:
            return None
        payload = b"".join(self._parts)
        self._parts = []
        self._size = 0
        return payload
