"""The thread that writes a SQLite log: everything that waits becomes one transaction (group commit)."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tellwire.brokers.sqlite_file import FileLock, Sync, close, connect, explain, prepare
from tellwire.brokers.sqlite_log import Log, Settings, Touched
from tellwire.errors import Conflict, InvalidData, Unavailable
from tellwire.message import Appended, Draft, Message, Position

_log = logging.getLogger("tellwire")

_BATCH_ITEMS = 1024
_BATCH_BYTES = 8 * 1024 * 1024
"""Bounds of one transaction, so that those behind it wait for a bounded time."""

_MESSAGE_ERRORS = (sqlite3.DataError, sqlite3.ProgrammingError)
"""SQLite's errors that are about what it was given, not about the file."""


class Waiting(NamedTuple):
    """One append on its way, with who waits for it and the bytes that it holds; or channels that were read."""

    draft: Draft | Touched
    answer: asyncio.Future[Appended] | None
    weight: int


Outcome = Appended | Conflict | InvalidData | Unavailable | None


class Committed(NamedTuple):
    """What became of a batch; ``messages`` are in the log by now."""

    batch: Sequence[Waiting]
    outcomes: Sequence[Outcome]
    messages: Sequence[Message]


class Writer:
    """The one thread that may write a file, from `start` until `stop`.

    Args:
        done: Called on the event loop, in order, with every batch.
    """

    def __init__(
        self, path: Path, sync: Sync, settings: Settings, busy_timeout_s: float, done: Callable[[Committed], None]
    ) -> None:
        self._path = path
        self._sync: Sync = sync
        self._settings = settings
        self._busy_timeout_s = busy_timeout_s
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Waiting] = deque()
        # What waits lies in the deque; the queue only wakes the thread, once however much comes (a lock with a
        # condition costs several times as much per append).
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._awake = False
        self._stopping = False
        self._opened: asyncio.Future[Position] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="tellwire-sqlite-writer", daemon=True)
        self._log: Log | None = None
        self._epoch = ""
        self._burnt = 0

    async def start(self) -> Position:
        """Open the file; return the newest position in it. Raises Unavailable."""
        self._thread.start()
        return await asyncio.shield(self._opened)

    def put(self, item: Waiting) -> None:
        """Take something in; what was put first is written first."""
        self._waiting.append(item)
        if not self._awake:
            self._awake = True
            self._wake.put(None)

    async def stop(self) -> None:
        """Write all that was put, close the file and end the thread."""
        self._stopping = True
        self._wake.put(None)
        await asyncio.shield(self._closed)
        self._thread.join()

    def _run(self) -> None:
        lock: FileLock | None = None
        connection: sqlite3.Connection | None = None
        try:
            try:
                lock = FileLock(self._path)
                connection = connect(self._path, self._busy_timeout_s)
                self._epoch = prepare(connection, self._path, self._sync)
                self._log = Log(connection, self._epoch, self._settings)
            except Unavailable as exc:
                self._tell(self._opened.set_exception, exc)
                return
            except sqlite3.Error as exc:
                self._tell(self._opened.set_exception, explain(exc, self._path))
                return
            self._burnt = self._log.seq
            self._tell(self._opened.set_result, Position(self._epoch, self._log.seq))
            self._serve(connection)
        finally:
            if connection is not None:
                try:
                    if self._log is not None:
                        close(connection)
                    else:
                        connection.close()
                except sqlite3.Error as exc:
                    _log.error("%s was not closed well: %s", self._path, explain(exc, self._path))
            if lock is not None:
                lock.release()
            self._tell(self._closed.set_result, None)

    def _serve(self, connection: sqlite3.Connection) -> None:
        while True:
            self._wake.get()
            # Cleared before looking: whoever puts something after the look finds it cleared and wakes us again.
            self._awake = False
            while batch := self._next_batch():
                self._tell(self._done, self._write(connection, batch))
            if self._stopping and not self._waiting:
                return

    def _next_batch(self) -> list[Waiting]:
        take = self._waiting.popleft
        batch: list[Waiting] = []
        weight = 0
        for _ in range(min(len(self._waiting), _BATCH_ITEMS)):
            item = take()
            batch.append(item)
            weight += item.weight
            if weight > _BATCH_BYTES:
                break
        return batch

    def _write(self, connection: sqlite3.Connection, batch: Sequence[Waiting]) -> Committed:
        try:
            outcomes, messages = self._commit(connection, batch)
        except Exception as exc:
            if isinstance(exc, sqlite3.DatabaseError) and not isinstance(exc, _MESSAGE_ERRORS):
                return Committed(batch, [explain(exc, self._path) for _ in batch], ())
            if len(batch) == 1:
                return Committed(batch, (InvalidData(f"SQLite cannot store this message: {exc}"),), ())
            # One of them cannot be stored: each for itself, so that it fails alone.
            parts = [self._write(connection, (item,)) for item in batch]
            return Committed(
                batch,
                [outcome for part in parts for outcome in part.outcomes],
                [message for part in parts for message in part.messages],
            )
        return Committed(batch, outcomes, messages)

    def _commit(
        self, connection: sqlite3.Connection, batch: Sequence[Waiting]
    ) -> tuple[Sequence[Outcome], Sequence[Message]]:
        if self._log is None:
            self._log = Log(connection, self._epoch, self._settings, self._burnt)
        log = self._log
        try:
            return log.commit([item.draft for item in batch])
        except BaseException:
            self._log = None
            if connection.in_transaction:
                connection.rollback()
            raise
        finally:
            self._burnt = log.seq

    def _tell(self, callback: Callable[..., object], value: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, value)
        except RuntimeError:
            # The loop was closed without closing the broker: nobody is left to be told.
            self._stopping = True
