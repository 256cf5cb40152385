"""A thread that has a SQLite file to itself, and does what waits for it in batches (group commit)."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from tellwire.brokers.sqlite_file import FileLock, connect
from tellwire.errors import Unavailable

_log = logging.getLogger("tellwire")

Item = TypeVar("Item")
Opened = TypeVar("Opened")

BATCH_ITEMS = 1024
"""Most that is done in one transaction, so that what is behind it waits for a bounded time."""

VALUE_ERRORS = (sqlite3.DataError, sqlite3.ProgrammingError)
"""SQLite's errors that are about what it was given, not about the file."""


class FileThread(ABC, Generic[Item, Opened]):
    """The one thread that may write a file, from `start` until `stop`; what was put first is done first.

    Subclasses say what opening the file brings and how a batch is done; both run in the thread.
    """

    name: ClassVar[str]
    """What the thread is called in a list of threads."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Item] = deque()
        # What waits lies in the deque; the queue only wakes the thread, once however much comes (a lock with a
        # condition costs several times as much per item).
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._awake = False
        self._stopping = False
        self._opened: asyncio.Future[Opened] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    async def start(self) -> Opened:
        """Open the file; return what `open_file` makes of it. Raises Unavailable."""
        self._thread.start()
        return await asyncio.shield(self._opened)

    def put(self, item: Item) -> None:
        """Take something in."""
        self._waiting.append(item)
        if not self._awake:
            self._awake = True
            self._wake.put(None)

    async def stop(self) -> None:
        """Do all that was put, close the file and end the thread."""
        self._stopping = True
        self._wake.put(None)
        await asyncio.shield(self._closed)
        self._thread.join()

    @abstractmethod
    def open_file(self, connection: sqlite3.Connection) -> Opened:
        """Bring the file into shape; return what `start` returns."""

    @abstractmethod
    def do(self, connection: sqlite3.Connection, batch: Sequence[Item]) -> None:
        """Do a batch, and `tell` who waits for it."""

    @abstractmethod
    def explain(self, exc: sqlite3.Error) -> Unavailable:
        """Say in a sentence what SQLite says."""

    def close_file(self, connection: sqlite3.Connection) -> None:
        """Close the file."""
        connection.close()

    def next_batch(self) -> list[Item]:
        """Take what is done next out of what waits."""
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_ITEMS))]

    def tell(self, callback: Callable[..., object], value: Any) -> None:
        """Call something on the event loop."""
        try:
            self._loop.call_soon_threadsafe(callback, value)
        except RuntimeError:
            # The loop was closed without closing the file: nobody is left to be told.
            self._stopping = True

    def _run(self) -> None:
        lock: FileLock | None = None
        connection: sqlite3.Connection | None = None
        try:
            try:
                lock = FileLock(self._path)
                connection = connect(self._path, self._busy_timeout_s)
                opened = self.open_file(connection)
            except Unavailable as exc:
                self.tell(self._opened.set_exception, exc)
                return
            except sqlite3.Error as exc:
                self.tell(self._opened.set_exception, self.explain(exc))
                return
            self.tell(self._opened.set_result, opened)
            self._serve(connection)
        finally:
            if connection is not None:
                try:
                    self.close_file(connection)
                except sqlite3.Error as exc:
                    _log.error("%s was not closed well: %s", self._path, self.explain(exc))
            if lock is not None:
                lock.release()
            self.tell(self._closed.set_result, None)

    def _serve(self, connection: sqlite3.Connection) -> None:
        while True:
            self._wake.get()
            # Cleared before looking: whoever puts something after the look finds it cleared and wakes us again.
            self._awake = False
            while batch := self.next_batch():
                self.do(connection, batch)
            if self._stopping and not self._waiting:
                return
