"""The file that holds members: its format, what of it is read at the start, and what its errors mean."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tellwire.brokers import sqlite_file
from tellwire.errors import Unavailable
from tellwire.presence.base import Member
from tellwire.presence.table import Table

APPLICATION_ID = 0x54656C70
"""``PRAGMA application_id`` of our files: "Telp"."""

FORMAT = 1
"""``PRAGMA user_version``: the version of the tables below."""

_TABLES = (
    # With rowids: they give the order in which members entered. No index by node: the members of a node are listed in
    # memory, and an index would make every entering dearer by a third.
    """CREATE TABLE members (
        channel TEXT NOT NULL, client TEXT NOT NULL, user TEXT, info BLOB, state BLOB, node TEXT NOT NULL,
        since INTEGER NOT NULL, UNIQUE (channel, client))""",
    "CREATE TABLE nodes (name TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID",
)

ENTER = """INSERT INTO members (channel, client, user, info, state, node, since) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (channel, client)
    DO UPDATE SET user = excluded.user, info = excluded.info, state = excluded.state, node = excluded.node"""
LEAVE = "DELETE FROM members WHERE channel = ? AND client = ?"
LEAVE_HELD = "DELETE FROM members WHERE channel = ? AND client = ? AND node = ?"
RENEW = "INSERT INTO nodes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET until = excluded.until"
FORGET = "DELETE FROM nodes WHERE name = ?"

_AWAY = "move it away to begin with nobody here (members that left meanwhile are then not announced)"


def explain(exc: sqlite3.Error, path: Path) -> Unavailable:
    """Return what a SQLite error means, as a sentence that says what to do."""
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return Unavailable(f"{path} is where members are kept, but it is not a SQLite database; {_AWAY}")
    if code == sqlite3.SQLITE_CORRUPT:
        return Unavailable(f"{path} is damaged ({exc}); {_AWAY}")
    return sqlite_file.explain(exc, path)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or check that they are ours; raises Unavailable, sqlite3.Error."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise Unavailable(f"{path} is where members are kept, but it is a database of something else; {_AWAY}")
    if tables and version != FORMAT:
        raise Unavailable(
            f"{path} has format {version}, this Tellwire reads format {FORMAT}; "
            f"start the Tellwire that wrote it, or {_AWAY}"
        )
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Unavailable(f"{path} lies on a file system without shared memory; SQLite's WAL needs a local disk")
    # A commit is in the kernel's hands when it is acknowledged: it survives the process. A power cut may take the
    # newest, which ended the connections of these members as well.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    if not tables:
        connection.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            connection.execute(table)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")


def load(connection: sqlite3.Connection, node: str, until_ms: int) -> Table:
    """Begin a node's lease and return all that is in the file; raises sqlite3.Error.

    No lease of a former process lasts longer than one that begins now, whatever the clock said when it was renewed.
    """
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE nodes SET until = min(until, ?)", (until_ms,))
    connection.execute(RENEW, (node, until_ms))
    connection.execute("COMMIT")
    table = Table()
    for name, until in connection.execute("SELECT name, until FROM nodes"):
        table.renew(name, until)
    for row in connection.execute("SELECT channel, client, user, info, state, node, since FROM members ORDER BY rowid"):
        table.enter(Member(*row))
    return table
