"""The thread that writes a file of presence: all that waits becomes one transaction (group commit)."""

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

from tellwire.brokers.sqlite_file import FileLock, connect
from tellwire.errors import InvalidData, Unavailable
from tellwire.presence.sqlite_file import explain, load, prepare
from tellwire.presence.table import Table

_log = logging.getLogger("tellwire")

_BATCH = 1024
"""Changes in one transaction at most, so that those behind it wait for a bounded time."""

_VALUE_ERRORS = (sqlite3.DataError, sqlite3.ProgrammingError)
"""SQLite's errors that are about what it was given, not about the file."""


Statement = tuple[str, tuple[object, ...]]
"""SQL and its values."""


class Change(NamedTuple):
    """Statements done together or not at all; ``done`` is called on the event loop, with the error if there was one."""

    statements: Sequence[Statement]
    done: Callable[[Exception | None], None]


class Thread:
    """The one thread that may write a file, from `start` until `stop`; changes are done in the order of `put`."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Change] = deque()
        # As in the broker's writer: the queue only wakes the thread, once however much comes.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._awake = False
        self._stopping = False
        self._opened: asyncio.Future[Table] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._lease = "", 0
        self._thread = threading.Thread(target=self._run, name="tellwire-presence-writer", daemon=True)

    async def start(self, node: str, until_ms: int) -> Table:
        """Open the file for this node; return what is in it. Raises Unavailable."""
        self._lease = node, until_ms
        self._thread.start()
        return await asyncio.shield(self._opened)

    def put(self, change: Change) -> None:
        """Take a change in."""
        self._waiting.append(change)
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
                prepare(connection, self._path)
                table = load(connection, *self._lease)
            except Unavailable as exc:
                self._tell(self._opened.set_exception, exc)
                return
            except sqlite3.Error as exc:
                self._tell(self._opened.set_exception, explain(exc, self._path))
                return
            self._tell(self._opened.set_result, table)
            self._serve(connection)
        finally:
            if connection is not None:
                try:
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
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
                self._tell(_finish, self._write(connection, batch))
            if self._stopping and not self._waiting:
                return

    def _write(self, connection: sqlite3.Connection, batch: Sequence[Change]) -> list[tuple[Change, Exception | None]]:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for change in batch:
                for sql, values in change.statements:
                    connection.execute(sql, values)
            connection.execute("COMMIT")
        except Exception as exc:
            if connection.in_transaction:
                connection.rollback()
            if isinstance(exc, sqlite3.DatabaseError) and not isinstance(exc, _VALUE_ERRORS):
                return [(change, explain(exc, self._path)) for change in batch]
            if len(batch) == 1:
                return [(batch[0], InvalidData(f"SQLite cannot store this member: {exc}"))]
            # One of them cannot be stored: each for itself, so that it fails alone.
            return [outcome for change in batch for outcome in self._write(connection, [change])]
        return [(change, None) for change in batch]

    def _tell(self, callback: Callable[..., object], value: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, value)
        except RuntimeError:
            # The loop was closed without closing the store: nobody is left to be told.
            self._stopping = True


def _finish(outcomes: Sequence[tuple[Change, Exception | None]]) -> None:
    for change, error in outcomes:
        change.done(error)
