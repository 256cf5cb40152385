"""The thread that writes a SQLite log: everything that waits becomes one transaction (group commit)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tellwire.brokers.sqlite_file import Sync, close, explain, prepare
from tellwire.brokers.sqlite_log import Log, Settings, Touched
from tellwire.brokers.sqlite_thread import BATCH_ITEMS, VALUE_ERRORS, FileThread
from tellwire.errors import Conflict, InvalidData, Unavailable
from tellwire.message import Appended, Draft, Message, Position

_BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of one transaction, so that those behind it wait for a bounded time."""


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


class Writer(FileThread[Waiting, Position]):
    """Writes a log; `start` returns the newest position in the file.

    Args:
        done: Called on the event loop, in order, with every batch.
    """

    name = "tellwire-sqlite-writer"

    def __init__(
        self, path: Path, sync: Sync, settings: Settings, busy_timeout_s: float, done: Callable[[Committed], None]
    ) -> None:
        super().__init__(path, busy_timeout_s)
        self._sync: Sync = sync
        self._settings = settings
        self._done = done
        self._log: Log | None = None
        self._epoch = ""
        self._burnt = 0

    def open_file(self, connection: sqlite3.Connection) -> Position:
        self._epoch = prepare(connection, self._path, self._sync)
        self._log = Log(connection, self._epoch, self._settings)
        self._burnt = self._log.seq
        return Position(self._epoch, self._burnt)

    def close_file(self, connection: sqlite3.Connection) -> None:
        if self._log is not None:
            close(connection)
        else:
            connection.close()

    def explain(self, exc: sqlite3.Error) -> Unavailable:
        return explain(exc, self._path)

    def do(self, connection: sqlite3.Connection, batch: Sequence[Waiting]) -> None:
        self.tell(self._done, self._write(connection, batch))

    def next_batch(self) -> list[Waiting]:
        take = self._waiting.popleft
        batch: list[Waiting] = []
        weight = 0
        for _ in range(min(len(self._waiting), BATCH_ITEMS)):
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
            if isinstance(exc, sqlite3.DatabaseError) and not isinstance(exc, VALUE_ERRORS):
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
