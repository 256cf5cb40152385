"""The file that holds a SQLite log: who may open it, its format, and what its errors mean."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Literal

from tellwire.brokers.base import new_epoch
from tellwire.errors import Unavailable

Sync = Literal["full", "normal"]
"""When a commit reaches the disk: before it is acknowledged, or some time after."""

APPLICATION_ID = 0x54656C77
"""``PRAGMA application_id`` of our files: "Telw"."""

FORMAT = 2
"""``PRAGMA user_version``: the version of the tables below. Files of older ones are brought up to it."""

OLDEST_SQLITE = (3, 38, 0)
"""The first SQLite whose JSON functions are always there; reads and trims are made of them."""

_TABLES = (
    # `oldest` and `newest` are times (ms) of messages kept; `floor` is the newest seq that was trimmed.
    """CREATE TABLE channels (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last INTEGER NOT NULL, floor INTEGER NOT NULL,
        count INTEGER NOT NULL, bytes INTEGER NOT NULL, oldest INTEGER NOT NULL, newest INTEGER NOT NULL)""",
    """CREATE TABLE messages (
        seq INTEGER PRIMARY KEY, channel INTEGER NOT NULL, time INTEGER NOT NULL, size INTEGER NOT NULL,
        packed INTEGER NOT NULL, id TEXT NOT NULL, event TEXT NOT NULL, key TEXT, skip TEXT NOT NULL,
        data BLOB NOT NULL, trace TEXT NOT NULL DEFAULT '')""",
    # Covering: trimming and paging look at places and sizes only, never at the messages.
    "CREATE INDEX messages_by_channel ON messages (channel, seq, size, time)",
    # By seq, hence appended at its end and cut at its front; found by (channel, id) in memory.
    "CREATE TABLE ids (seq INTEGER PRIMARY KEY, channel TEXT NOT NULL, id TEXT NOT NULL, time INTEGER NOT NULL)",
    # Newest seq in any channel that was dropped altogether.
    "CREATE TABLE namespaces (name TEXT PRIMARY KEY, floor INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

_UPGRADES = {1: ("ALTER TABLE messages ADD COLUMN trace TEXT NOT NULL DEFAULT ''",)}
"""What makes a file of one format one of the next."""

_SENTENCES = {
    sqlite3.SQLITE_FULL: "the disk that holds {path} is full; free some space there",
    sqlite3.SQLITE_READONLY: "{path} may not be written; check its permissions and those of its directory",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened; check that its directory exists and may be written",
    sqlite3.SQLITE_BUSY: "another program has locked {path}; end its transaction",
    sqlite3.SQLITE_LOCKED: "another program has locked {path}; end its transaction",
    sqlite3.SQLITE_NOTADB: "{path} is not a SQLite database; name another file",
    sqlite3.SQLITE_CORRUPT: "{path} is damaged ({exc}); put a copy in its place, or move it away to begin an empty log",
    sqlite3.SQLITE_IOERR: "the disk that holds {path} fails ({exc}); look at the system's log",
}


def explain(exc: sqlite3.Error, path: Path) -> Unavailable:
    """Return what a SQLite error means, as a sentence that says what to do."""
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF  # the primary code is the low byte of the extended one
    sentence = _SENTENCES.get(code, "SQLite cannot work with {path}: {exc}")
    return Unavailable(sentence.format(path=path, exc=exc))


class FileLock:
    """The right to write a file, held by one broker at a time; the kernel takes it back when the process dies.

    A file of its own beside the database: SQLite's own locks would keep our reading connections out too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise Unavailable(f"{self._path} cannot be made ({exc.strerror}); check its directory") from exc
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.read(self._fd, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise Unavailable(
                f"{path} is open in another broker (process {holder}); a SQLite log has one server at a time: "
                "stop that one, or name another file"
            ) from exc
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let another broker open the file; may be called twice."""
        if self._fd >= 0:
            # The lock's file stays: removing it could take away a lock that somebody else holds by now.
            os.close(self._fd)
            self._fd = -1


def connect(path: Path, busy_timeout_s: float, *, read_only: bool = False) -> sqlite3.Connection:
    """Open one connection, usable from any one thread at a time; raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    return connection


def prepare(connection: sqlite3.Connection, path: Path, sync: Sync) -> str:
    """Make the tables, or check that they are ours; return the log's epoch.

    The epoch is another one where the log may have lost its tail: it was written with ``sync=normal``, not closed,
    and the machine was started anew since. Raises Unavailable, sqlite3.Error.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise Unavailable(f"SQLite {sqlite3.sqlite_version} is too old; the SQLite broker needs 3.38 or newer")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise Unavailable(f"{path} is a database of another program; name another file")
    if tables and not 1 <= version <= FORMAT:
        raise Unavailable(
            f"{path} has format {version}, this Tellwire reads formats up to {FORMAT}; "
            "start the Tellwire that wrote it, or name another file"
        )
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Unavailable(f"{path} lies on a file system without shared memory; SQLite's WAL needs a local disk")
    # 16 MiB of log between checkpoints: each of them waits for the disk and rewrites a page however often it changed.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    if not tables:
        for table in _TABLES:
            connection.execute(table)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        version = FORMAT
    while version < FORMAT:
        for statement in _UPGRADES[version]:
            connection.execute(statement)
        version += 1
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    meta: dict[str, str] = dict(connection.execute("SELECT name, value FROM meta"))
    boot = _boot_id()
    lost_tail = meta.get("sync") == "normal" and meta.get("closed") != "yes" and (not boot or meta.get("boot") != boot)
    epoch = meta.get("epoch")
    if epoch is None or lost_tail:
        epoch = new_epoch()
    now = {"epoch": epoch, "sync": sync, "boot": boot, "closed": "no"}
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", now.items())
    connection.execute("COMMIT")
    connection.execute(f"PRAGMA synchronous = {sync}")
    return epoch


def close(connection: sqlite3.Connection) -> None:
    """Mark the log as closed with all that it was given, and close it; raises sqlite3.Error."""
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("UPDATE meta SET value = 'yes' WHERE name = 'closed'")
    finally:
        connection.close()


def _boot_id() -> str:
    """Name this run of the machine's kernel; empty where it has no name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
