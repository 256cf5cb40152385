"""The ids that publishers gave, remembered for a while: what makes publishing idempotent (spec, section 3)."""

from __future__ import annotations

from collections import deque

ID_BYTES = 250
"""What remembering a publisher's id costs beside its text."""


class RecentIds:
    """The ids that publishers gave, for a window of time and a bounded number of bytes; the oldest go first."""

    def __init__(self, window_ms: int, max_bytes: int) -> None:
        self._window_ms = window_ms
        self._max_bytes = max_bytes
        self._seqs: dict[tuple[str, str], int] = {}
        self._order: deque[tuple[int, tuple[str, str]]] = deque()
        self._size = 0
        self.forgotten = 0
        """The newest ``seq`` whose id was forgotten."""

    def __len__(self) -> int:
        return len(self._seqs)

    def find(self, channel: str, id_: str, now: int) -> int | None:
        """Return the ``seq`` that the id's message got, None where it is not remembered at `now` (ms)."""
        self.forget(now)
        return self._seqs.get((channel, id_))

    def forget(self, now: int) -> None:
        """Drop the ids that are too old at `now` (ms), and the oldest where they take too many bytes."""
        order = self._order
        while order and (order[0][0] <= now or self._size > self._max_bytes):
            _, key = order.popleft()
            self.forgotten = self._seqs.pop(key)
            self._size -= ID_BYTES + len(key[0]) + len(key[1])

    def keep(self, channel: str, id_: str, seq: int, now: int) -> None:
        """Remember an id that `find` does not, given at `now` (ms), newer than every other."""
        key = (channel, id_)
        self._seqs[key] = seq
        self._order.append((now + self._window_ms, key))
        self._size += ID_BYTES + len(channel) + len(id_)
