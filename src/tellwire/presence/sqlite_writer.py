"""The thread that writes a file of presence: all that waits becomes one transaction (group commit)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tellwire.brokers.sqlite_thread import VALUE_ERRORS, FileThread
from tellwire.errors import InvalidData, Unavailable
from tellwire.presence.sqlite_file import explain, load, prepare
from tellwire.presence.table import Table

Statement = tuple[str, tuple[object, ...]]
"""SQL and its values."""


class Change(NamedTuple):
    """Statements done together or not at all; ``done`` is called on the event loop, with the error if there was one."""

    statements: Sequence[Statement]
    done: Callable[[Exception | None], None]


class Writer(FileThread[Change, Table]):
    """Writes a file of presence for a node, whose lease is until `until_ms`; `start` returns what is in the file."""

    name = "tellwire-presence-writer"

    def __init__(self, path: Path, busy_timeout_s: float, node: str, until_ms: int) -> None:
        super().__init__(path, busy_timeout_s)
        self._lease = node, until_ms

    def open_file(self, connection: sqlite3.Connection) -> Table:
        prepare(connection, self._path)
        return load(connection, *self._lease)

    def explain(self, exc: sqlite3.Error) -> Unavailable:
        return explain(exc, self._path)

    def do(self, connection: sqlite3.Connection, batch: Sequence[Change]) -> None:
        self.tell(_finish, self._write(connection, batch))

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
            if isinstance(exc, sqlite3.DatabaseError) and not isinstance(exc, VALUE_ERRORS):
                return [(change, explain(exc, self._path)) for change in batch]
            if len(batch) == 1:
                return [(batch[0], InvalidData(f"SQLite cannot store this member: {exc}"))]
            # One of them cannot be stored: each for itself, so that it fails alone.
            return [outcome for change in batch for outcome in self._write(connection, [change])]
        return [(change, None) for change in batch]


def _finish(outcomes: Sequence[tuple[Change, Exception | None]]) -> None:
    for change, error in outcomes:
        change.done(error)
