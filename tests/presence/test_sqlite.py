"""Presence in a SQLite file: the contract, and what is its own: files, errors, threads."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tellwire.brokers.sqlite import SqliteBroker
from tellwire.errors import InvalidData, Unavailable
from tellwire.presence import make_presence as make_presence_of
from tellwire.presence.base import Counts, Member, Presence
from tellwire.presence.sqlite import SqlitePresence
from tellwire.testing.harness import Clock, on_loop
from tellwire.testing.harness import opened as opened_log
from tellwire.testing.members import (
    LEASE_S,
    MakePresence,
    PresenceContract,
    member,
    opened,
    sweep_all,
)
from tellwire.testing.members_left import LastingPresenceContract
from tellwire.testing.members_model import PresenceModelContract


class TestSqlitePresence(PresenceContract, LastingPresenceContract, PresenceModelContract):
    """The contract, over a file."""

    @pytest.fixture
    def make_presence(self, tmp_path: Path) -> MakePresence:
        def make(*, clock: Callable[[], int] | None = None, store: str = "main") -> Presence:
            path = tmp_path / f"{store}.db"
            return SqlitePresence(path) if clock is None else SqlitePresence(path, clock=clock)

        return make


def test_sqlite_presence_lies_beside_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    presence = make_presence_of("sqlite:///data.db?sync=normal")
    assert isinstance(presence, SqlitePresence)
    assert presence.path == tmp_path.resolve() / "data.db-presence"
    link = tmp_path / "link.db"
    link.symlink_to("data.db")
    linked = make_presence_of("sqlite:///link.db")
    assert isinstance(linked, SqlitePresence)
    assert linked.path == presence.path
    assert list(tmp_path.iterdir()) == [link], "nothing is made before the store is opened"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("sqlite://", "names no file"),
        ("nowhere://x", r"no store of presence goes with 'nowhere://x'.*memory://, sqlite"),
    ],
)
def test_presence_of_a_bad_url_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_presence_of(url)


def test_sqlite_presence_and_log_are_open_together(tmp_path: Path) -> None:
    @on_loop
    async def use() -> None:
        url = f"sqlite:///{tmp_path}/data.db"
        async with opened_log(SqliteBroker(tmp_path / "data.db")), opened(make_presence_of(url)) as presence:
            await presence.enter(member("room", "c1"))

    use()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data.db",
        "data.db-presence",
        "data.db-presence.lock",
        "data.db.lock",
    ]


@on_loop
async def test_sqlite_presence_has_one_process_at_a_time(tmp_path: Path) -> None:
    async with opened(SqlitePresence(tmp_path / "p")) as presence:
        second = SqlitePresence(tmp_path / "p")
        with pytest.raises(Unavailable, match=f"open in another broker .process {os.getpid()}"):
            await second.open("n2", LEASE_S)
        await second.aclose()
        await presence.enter(member("room", "c1"))
    async with opened(SqlitePresence(tmp_path / "p"), "n2") as presence:
        assert await presence.count("room") == Counts(1, 1)


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database, " * 500)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_garbage, "p is .*not a SQLite database; move it away"),
        (_foreign, "p is .*a database of something else; move it away"),
        (_newer, "p has format 99, this Tellwire reads format 1; start the Tellwire that wrote it, or move it away"),
        (_cut, "p is damaged .*; move it away"),
        (_directory, "p cannot be opened; check"),
    ],
    ids=["garbage", "foreign", "newer", "cut", "directory"],
)
@on_loop
async def test_sqlite_presence_says_what_is_wrong_with_a_file(
    tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    path = tmp_path / "p"
    async with opened(SqlitePresence(path)) as presence:
        await asyncio.gather(*(presence.enter(member("room", f"c{number}")) for number in range(1000)))
    spoil(path)
    spoilt = path.read_bytes() if path.is_file() else None
    presence = SqlitePresence(path)
    with pytest.raises(Unavailable, match=sentence):
        await presence.open("n2", LEASE_S)
    with pytest.raises(Unavailable, match="not open"):
        await presence.count("room")
    await presence.aclose()
    assert spoilt is None or path.read_bytes() == spoilt, "it is left as it was found"


@on_loop
async def test_sqlite_presence_in_no_directory_is_unavailable(tmp_path: Path) -> None:
    presence = SqlitePresence(tmp_path / "nowhere" / "p")
    with pytest.raises(Unavailable, match="check its directory"):
        await presence.open("n1", LEASE_S)
    await presence.aclose()


@on_loop
async def test_sqlite_presence_that_cannot_be_written_has_changed_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p"
    async with opened(SqlitePresence(path, busy_timeout_s=0)) as presence:
        here = [member("room", "c1", "alice"), member("room", "c2", "alice")]
        for each in here:
            await presence.enter(each)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            changes = [
                presence.enter(member("room", "c3")),
                presence.enter(member("room", "c1", "bob")),
                presence.leave("room", "c2"),
                presence.beat(),
            ]
            outcomes = await asyncio.gather(*changes, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Unavailable] * 4
            assert "another program has locked" in str(outcomes[0])
            assert await presence.members("room", 10) == here
            assert await presence.count("room") == Counts(2, 1)
        assert await presence.leave("room", "c2") == here[1]
        assert await presence.beat() is True
    async with opened(SqlitePresence(path), "n2") as presence:
        assert await presence.members("room", 10) == here[:1]


@on_loop
async def test_sqlite_presence_fails_a_member_that_cannot_be_stored_alone(tmp_path: Path) -> None:
    async with opened(SqlitePresence(tmp_path / "p")) as presence:
        members = [member("room", f"c{number}", since=number) for number in range(20)]
        members[7] = member("room", "\ud800", since=7)
        members[9] = member("room", "c9", since=1 << 70)
        outcomes = await asyncio.gather(*map(presence.enter, members), return_exceptions=True)
        assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [7, 9]
        assert isinstance(outcomes[7], InvalidData)
        assert isinstance(outcomes[9], InvalidData)
        assert await presence.count("room") == Counts(18, 18)


@on_loop
async def test_sqlite_presence_gives_no_lease_longer_than_its_own(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(SqlitePresence(tmp_path / "p", clock=clock)) as presence:
        await presence.enter(member("room", "c1"))
    clock.advance(-1_000_000)  # the machine's clock was set right meanwhile
    async with opened(SqlitePresence(tmp_path / "p", clock=clock), "n2") as presence:
        assert await presence.sweep() == []
        clock.advance(LEASE_S)
        assert await presence.sweep() == [member("room", "c1")]


@on_loop
async def test_sqlite_presence_forgets_nodes_that_hold_nothing(tmp_path: Path) -> None:
    clock = Clock()
    for number in range(5):
        async with opened(SqlitePresence(tmp_path / "p", clock=clock), f"n{number}") as presence:
            await presence.enter(member("room", f"c{number}", node=f"n{number}"))
    clock.advance(LEASE_S)
    async with opened(SqlitePresence(tmp_path / "p", clock=clock), "last") as presence:
        assert len(await sweep_all(presence, 2)) == 5
    with closing(sqlite3.connect(tmp_path / "p")) as connection:
        assert connection.execute("SELECT name FROM nodes").fetchall() == [("last",)]


@on_loop
async def test_sqlite_presence_takes_over_what_a_sweep_was_about_to_take(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(SqlitePresence(tmp_path / "p", clock=clock)) as presence:
        for client in ("c1", "c2"):
            await presence.enter(member("room", client))
    clock.advance(LEASE_S)
    taken = Member("room", "c1", "alice", None, None, "n2", 1)
    async with opened(SqlitePresence(tmp_path / "p", clock=clock), "n2") as presence:
        entered, swept = await asyncio.gather(presence.enter(taken), presence.sweep())
        assert (entered, swept) == (member("room", "c1"), [member("room", "c2")])
    async with opened(SqlitePresence(tmp_path / "p", clock=clock), "n3") as presence:
        assert await presence.members("room", 10) == [taken]
