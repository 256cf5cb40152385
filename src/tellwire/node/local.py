"""Readers in this process: of the application that a node is part of, and the node's own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tellwire.errors import CloseCode
from tellwire.message import Message
from tellwire.protocol.encodings import PROCESS
from tellwire.protocol.pushes import GapPush, Push
from tellwire.subscriber import Subscriber

KEPT_MAX = 256
"""Messages that wait for a reader in this process; behind that it is a cursor that lags, as every other."""


class Local:
    """Who reads, for the hub."""

    transport = "process"

    def __init__(self, session: str = "") -> None:
        self.client = ""
        self.session = session


class LocalReading:
    """A door whose reader is a function or an iterator of this process."""

    hears = False

    def __init__(self, wake: Callable[[], None]) -> None:
        self.writable = True
        self.waiting: deque[Message | GapPush] = deque()
        self.closed: tuple[CloseCode, str] | None = None
        self.subscriber: Subscriber | None = None
        self._wake = wake

    encoding = PROCESS

    def write(self, batch: tuple[Message, ...] | Push) -> None:
        if isinstance(batch, GapPush):
            self.waiting.append(batch)
        elif isinstance(batch, tuple):
            self.waiting += batch
        self.writable = len(self.waiting) < KEPT_MAX
        self._wake()

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        self.closed = self.closed or (code, reason)
        self.writable = False
        self._wake()

    def take(self) -> Message | GapPush | None:
        """Return what is next, None where nothing is there yet."""
        if not self.waiting:
            return None
        item = self.waiting.popleft()
        if not self.writable and self.closed is None and len(self.waiting) <= KEPT_MAX // 2:
            self.writable = True
            if self.subscriber is not None:
                self.subscriber.silent_beats = 0
                self.subscriber.advance()
        return item
