"""Who was behind which credentials, for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from tellwire.auth import Identity

CACHE_MAX_BYTES = 16 * 1024 * 1024
"""Memory for answers of connect, about; those used least recently go first."""

ENTRY_BYTES = 1024
"""What an entry counts for besides its texts: Python's objects, and the key."""


class _Entry(NamedTuple):
    identity: Identity | None
    until: float
    size: int


class IdentityCache:
    """Answers of connect by a digest of the credentials; bounded in bytes and in time.

    Args:
        lifetime_s: How long an answer holds.
        clock: Seconds of a steady clock.
        now: Seconds since 1970, for what expires earlier.
    """

    def __init__(self, lifetime_s: float, clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._now = now
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: bytes) -> tuple[Identity | None] | None:
        """Return what was answered, in a tuple, since None was an answer too; None where nothing is known."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return (entry.identity,)

    def keep(self, key: bytes, identity: Identity | None, answer_bytes: int) -> None:
        """Keep an answer of `answer_bytes`, no longer than the identity itself holds."""
        lifetime_s = self._lifetime_s
        if identity is not None and identity.expires_at is not None:
            lifetime_s = min(lifetime_s, identity.expires_at - self._now())
        if lifetime_s <= 0:
            return
        self._drop(key)
        self._entries[key] = _Entry(identity, self._clock() + lifetime_s, answer_bytes + ENTRY_BYTES)
        self.size += answer_bytes + ENTRY_BYTES
        while self.size > CACHE_MAX_BYTES:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size
