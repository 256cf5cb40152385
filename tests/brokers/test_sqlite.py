"""The SQLite broker: the contract, and what is its own: files, errors, bounds."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tellwire.brokers import make_broker as make_broker_of
from tellwire.brokers.base import Broker
from tellwire.brokers.sqlite import SqliteBroker
from tellwire.errors import InvalidData, Unavailable
from tellwire.message import Appended, Draft, Gap, Message
from tellwire.names import Namespaces
from tellwire.tasks import Tasks
from tellwire.testing.bounds import bounds
from tellwire.testing.contract import DurableBrokerContract
from tellwire.testing.harness import Clock, Collected, MakeBroker, on_loop, opened, placed, publish, read_to_head
from tellwire.testing.model import BrokerModelContract

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class TestSqliteBroker(DurableBrokerContract, BrokerModelContract):
    """The contract, over a file."""

    durable = True

    @pytest.fixture
    def make_broker(self, tmp_path: Path) -> MakeBroker:
        def make(
            namespaces: Namespaces | None = None,
            *,
            dedupe_window_s: float = 300.0,
            clock: Callable[[], int] | None = None,
            store: str = "main",
        ) -> Broker:
            path = tmp_path / f"{store}.db"
            if clock is None:
                return SqliteBroker(path, namespaces, dedupe_window_s=dedupe_window_s)
            return SqliteBroker(path, namespaces, dedupe_window_s=dedupe_window_s, clock=clock)

        return make


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///tellwire.db", "tellwire.db"),
        ("sqlite:///data/tellwire.db?sync=normal", "data/tellwire.db"),
        ("sqlite:////var/lib/tellwire.db?sync=full", "/var/lib/tellwire.db"),
        ("sqlite:////var/lib/a%20b%3F.db", "/var/lib/a b?.db"),
    ],
)
def test_sqlite_broker_is_named_by_its_url(
    url: str, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    broker = make_broker_of(url, Namespaces())
    assert isinstance(broker, SqliteBroker)
    assert broker.path == (tmp_path / path).resolve()
    assert broker.sync == ("normal" if "normal" in url else "full")
    assert list(tmp_path.iterdir()) == [], "nothing is made before the broker is opened"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///directory/", "names no file"),
        ("sqlite://tellwire.db", "sqlite:///data.db"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///x.db#part", "names no file"),
        ("sqlite:///x%00.db", "names no file"),
        ("sqlite:///x.db?sync=off", "sync=off; it is one of full or normal"),
        ("sqlite:///x.db?synk=full", "unknown option 'synk'"),
    ],
)
def test_sqlite_broker_refuses_urls_that_it_does_not_understand(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_broker_of(url, Namespaces())


@on_loop
async def test_sqlite_file_has_one_broker_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    other_name = tmp_path / "link.db"
    other_name.symlink_to(path)
    async with opened(SqliteBroker(path)) as (broker, _):
        await publish(broker, "a")
        for name in (path, other_name):
            second = SqliteBroker(name)
            with pytest.raises(Unavailable, match=f"open in another broker .process {os.getpid()}.*stop that one"):
                await second.open(Collected())
            await second.aclose()
        await publish(broker, "a")
    async with opened(SqliteBroker(other_name)) as (broker, _):
        assert len((await read_to_head(broker, ["a"])).messages) == 2


async def refusal(path: Path) -> str:
    """Try to open a file; return the sentence that it is refused with."""
    broker = SqliteBroker(path)
    with pytest.raises(Unavailable) as caught:
        await broker.open(Collected())
    with pytest.raises(Unavailable, match="closed"):
        await broker.append(Draft("a", b"1"))
    await broker.aclose()
    return caught.value.detail


@on_loop
async def test_sqlite_broker_refuses_files_that_are_not_its_own(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("dear diary, " * 1000)
    assert "is not a SQLite database" in await refusal(text)
    assert text.read_text() == "dear diary, " * 1000

    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
    before = foreign.read_bytes()
    assert "database of another program" in await refusal(foreign)
    assert foreign.read_bytes() == before

    newer = tmp_path / "newer.db"
    async with opened(SqliteBroker(newer)):
        pass
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 3")
    assert "has format 3, this Tellwire reads formats up to 2" in await refusal(newer)

    assert "cannot be made" in await refusal(tmp_path / "missing" / "log.db")
    directory = tmp_path / "directory.db"
    directory.mkdir()
    assert "cannot be opened" in await refusal(directory)


@on_loop
async def test_sqlite_broker_goes_on_with_a_file_of_the_first_format(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SqliteBroker(path)) as (broker, _):
        old = await publish(broker, "a", 3)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE messages DROP COLUMN trace")
        connection.execute("PRAGMA user_version = 1")
    for _ in range(2):
        async with opened(SqliteBroker(path)) as (broker, _):
            await broker.append(Draft("a", b"1", trace=TRACE))
            read = await read_to_head(broker, ["a"])
            assert read.seqs[:3] == [place.seq for place in old]
            assert [message.trace for message in read.messages[:4]] == ["", "", "", TRACE]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


@on_loop
async def test_sqlite_broker_says_that_a_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SqliteBroker(path)) as (broker, _):
        await publish(broker, "a", 200, size=500)
    intact = path.read_bytes()
    path.write_bytes(intact[:4096] + b"\xff" * (len(intact) - 4096))
    assert "is damaged" in await refusal(path)

    # The messages are damaged, but not what is read to open the file.
    with closing(sqlite3.connect(path)) as connection:
        path.write_bytes(intact)
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'messages'").fetchone()
    path.write_bytes(intact[: (root - 1) * 4096] + b"\xff" * 4096 + intact[root * 4096 :])
    async with opened(SqliteBroker(path)) as (broker, feed):
        with pytest.raises(Unavailable, match="is damaged"):
            await broker.read(["a"], None, 1000)
        with pytest.raises(Unavailable, match="is damaged"):
            await publish(broker, "a")
        assert feed.messages == []


@on_loop
async def test_sqlite_append_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SqliteBroker(path, busy_timeout_s=0)) as (broker, feed):
        (first,) = await publish(broker, "a")
        with closing(sqlite3.connect(path, isolation_level=None)) as another:
            another.execute("BEGIN IMMEDIATE")
            drafts = [Draft("a", b"1", id="x"), Draft("a", b"1", id="x"), Draft("new", b"1"), Draft("a", b"1")]
            answers = await asyncio.gather(*map(broker.append, drafts), return_exceptions=True)
            assert {type(answer) for answer in answers} == {Unavailable}
            assert "another program has locked" in str(answers[0])
            assert broker.head == first
            assert feed.seqs == [first.seq]
            another.execute("ROLLBACK")
        retried = await broker.append(Draft("a", b"1", id="x", expect=first))
        assert retried.duplicate is False
        assert placed(retried).seq > first.seq + 1, "the places of what failed are not given again"
        assert (await read_to_head(broker, ["a", "new"])).messages == feed.messages
        assert len(feed.messages) == 2


@on_loop
async def test_sqlite_append_that_fails_halfway_is_undone(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SqliteBroker(path)) as (broker, feed):
        await publish(broker, "a")
        with closing(sqlite3.connect(path)) as another:
            # Messages are in by then, and channels are not.
            another.execute(
                "CREATE TRIGGER broken BEFORE INSERT ON channels WHEN NEW.name = 'b' "
                "BEGIN SELECT RAISE(ABORT, 'no b'); END"
            )
        drafts = [Draft(channel, b"1", id=channel) for channel in "abc"]
        answers = await asyncio.gather(*map(broker.append, drafts), return_exceptions=True)
        assert ["no b" in str(answer) for answer in answers] == [True] * 3
        with closing(sqlite3.connect(path)) as another:
            another.execute("DROP TRIGGER broken")
        assert not any(answer.duplicate for answer in await asyncio.gather(*map(broker.append, drafts)))
        assert (await read_to_head(broker, ["a", "b", "c"])).messages == feed.messages
        assert [message.channel for message in feed.messages] == list("aabc")
    with closing(sqlite3.connect(path)) as connection:
        check_accounts(connection)


@on_loop
async def test_sqlite_append_that_cannot_be_stored_fails_alone(tmp_path: Path) -> None:
    async with opened(SqliteBroker(tmp_path / "log.db")) as (broker, feed):
        drafts = [Draft("a", b"1", id=str(number)) for number in range(20)]
        drafts[7] = Draft("a", b"1", id="half a pair: \ud800")
        answers = await asyncio.gather(*map(broker.append, drafts), return_exceptions=True)
        assert isinstance(answers.pop(7), InvalidData)
        assert all(isinstance(answer, Appended) for answer in answers)
        assert [message.id for message in feed.messages] == [str(n) for n in range(20) if n != 7]
        assert (await read_to_head(broker, ["a"])).messages == feed.messages
        assert (await broker.append(drafts[8])).duplicate


@on_loop
async def test_sqlite_queue_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SqliteBroker(path, queue_max_bytes=5_000, busy_timeout_s=30)) as (broker, feed):
        with closing(sqlite3.connect(path, isolation_level=None)) as another:
            another.execute("BEGIN IMMEDIATE")  # the disk stands still
            waiting = [asyncio.ensure_future(broker.append(Draft("a", b"7" * 1000))) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="4500 bytes of messages wait for the disk"):
                await broker.append(Draft("a", b"7" * 1000))
            await broker.append(Draft("a", b"1", ephemeral=True))
            assert [message.seq for message in feed.messages] == [0]
            another.execute("ROLLBACK")
        await asyncio.gather(*waiting)
        await publish(broker, "a", size=100_000)  # one is always taken, however large
        assert len(feed.messages) == 5


@on_loop
async def test_sqlite_file_is_trimmed_with_its_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    clock = Clock()
    namespaces = Namespaces([bounds(messages=3, age_s=100), bounds(size=10_000, name="small")])
    async with opened(SqliteBroker(path, namespaces, dedupe_window_s=10, clock=clock)) as (broker, _):
        for _ in range(5):
            await asyncio.gather(
                *(broker.append(Draft(f"{n % 2 * 'small:'}{n % 200}", b"1" * 50, id=str(n))) for n in range(2000))
            )
            clock.advance(10)
    with closing(sqlite3.connect(path)) as connection:
        check_accounts(connection)
        count = "SELECT count(*) FROM messages JOIN channels ON channel = channels.id WHERE name {} LIKE 'small:%'"
        assert connection.execute(count.format("NOT")).fetchone() == (300,)
        assert connection.execute(count.format("")).fetchone()[0] < 100
        assert connection.execute("SELECT count(*) FROM ids").fetchone() == (2000,)
    async with opened(SqliteBroker(path, namespaces, dedupe_window_s=10, clock=clock)) as (broker, _):
        clock.advance(1000)
        await publish(broker, "0", 200)
    with closing(sqlite3.connect(path)) as connection:
        check_accounts(connection)
        assert connection.execute("SELECT count(*) FROM ids").fetchone() == (0,)
        names = [name for (name,) in connection.execute("SELECT name FROM channels") if "small" not in name]
        assert names == ["0"], "idle channels went while another one was written"


def check_accounts(connection: sqlite3.Connection) -> None:
    """Compare what the file says of its channels with the messages that are in it."""
    counted = """SELECT name, channels.count, bytes, oldest, floor < min(seq) FROM channels
        LEFT JOIN messages ON channel = channels.id GROUP BY channels.id HAVING channels.count > 0 ORDER BY name"""
    found = """SELECT name, count(seq), sum(size), min(time), 1 FROM messages
        JOIN channels ON channel = channels.id GROUP BY channel ORDER BY name"""
    assert connection.execute(counted).fetchall() == connection.execute(found).fetchall()
    orphans = "SELECT count(*) FROM messages WHERE channel NOT IN (SELECT id FROM channels)"
    assert connection.execute(orphans).fetchone() == (0,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@on_loop
async def test_sqlite_trims_a_history_that_was_made_shorter(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SqliteBroker(path, Namespaces([bounds(messages=10_000)]))) as (broker, _):
        await asyncio.gather(*(broker.append(Draft("a", b"1")) for _ in range(6000)))
    async with opened(SqliteBroker(path, Namespaces([bounds(messages=10)]))) as (broker, _):
        places = await publish(broker, "a", 10)
        assert (await read_to_head(broker, ["a"])).seqs == [place.seq for place in places]
    with closing(sqlite3.connect(path)) as connection:
        check_accounts(connection)


@on_loop
async def test_sqlite_goes_on_beside_a_loop_that_never_rests(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    turning = True

    def turn() -> None:
        sum(range(5000))
        if turning:
            loop.call_soon(turn)

    async with opened(SqliteBroker(tmp_path / "log.db")) as (broker, feed):
        turn()
        try:
            for _ in range(20):
                await asyncio.gather(*(broker.append(Draft("a", b"1")) for _ in range(20)))
                assert (await read_to_head(broker, ["a"])).messages == feed.messages
        finally:
            turning = False


class _Broken(Collected):
    def deliver(self, messages: Sequence[Message]) -> None:
        super().deliver(messages)
        raise ValueError("the feed is broken")


@on_loop
async def test_sqlite_acknowledges_what_is_in_the_log_though_the_feed_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker, feed = SqliteBroker(tmp_path / "log.db"), _Broken()
    await broker.open(feed)
    places = await publish(broker, "a", 2)
    assert feed.seqs == [place.seq for place in places]
    assert "the feed of" in caplog.text
    await broker.aclose()


@on_loop
async def test_sqlite_broker_is_opened_once(tmp_path: Path) -> None:
    async with opened(SqliteBroker(tmp_path / "log.db")) as (broker, _):
        with pytest.raises(Unavailable, match="opened before; make another one"):
            await broker.open(Collected())


@on_loop
async def test_sqlite_reads_nothing_that_is_committed_but_not_delivered(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SqliteBroker(path, Namespaces([bounds(messages=2)]))) as (broker, feed):
        places = await publish(broker, "a", 3)
        tasks = Tasks()
        for _ in range(5):
            tasks.start(broker.append(Draft("a", b"1")))
        with closing(sqlite3.connect(path)) as another:
            while another.execute("SELECT max(seq) FROM messages").fetchone() != (8,):
                pass  # the loop stands still, so that the news of the commit cannot reach the broker
        assert broker.head == places[2]
        gap = Gap(str(places[1]), str(places[2]), "trimmed", ("a",))
        assert await broker.read(["a", "b"], places[1], 65_536) == ([], places[2], gap)
        await publish(broker, "b")
        assert feed.seqs == list(range(1, 10)), "the feed brings the rest, trimmed or not"
        assert (await read_to_head(broker, ["a"])).seqs == [7, 8]
