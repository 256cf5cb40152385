"""What a SQLite log has after its process was killed, its disk was full, or its machine lost power."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from tellwire.brokers.sqlite import SqliteBroker
from tellwire.errors import Unavailable
from tellwire.message import Appended, Draft, Position
from tellwire.names import Namespace, Namespaces
from tellwire.testing.harness import Clock, on_loop, opened, placed, publish, read_to_head

ALL_OF_IT = Namespaces([Namespace(history_messages=1_000_000, history_bytes=1 << 40)])

PUBLISHER = """
import asyncio, os, sys
from tellwire.brokers.sqlite import SqliteBroker
from tellwire.message import Draft
from tellwire.names import Namespace, Namespaces

class Deaf:
    def deliver(self, messages): pass

async def main(path, name, sync, size):
    broker = SqliteBroker(
        path, Namespaces([Namespace(history_messages=1_000_000, history_bytes=1 << 40)]), sync=sync, busy_timeout_s=0)
    await broker.open(Deaf())
    print("open", broker.head, flush=True)
    async def publisher(number):
        count = 0
        while True:
            count += 1
            id = f"{name}-{number}-{count}"
            appended = await broker.append(Draft(f"room-{number % 5}", id.encode().ljust(int(size)), id=id))
            # One write each: an acknowledgement that is in the pipe was given, whatever becomes of the process.
            os.write(1, f"{id} {appended.position}\\n".encode())
    await asyncio.gather(*map(publisher, range(32)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("sync", ["full", "normal"])
def test_sqlite_acknowledged_messages_survive_kill_9(tmp_path: Path, sync: str) -> None:
    path = tmp_path / "log.db"
    seed = random.Random(9)
    acknowledged: dict[str, Position] = {}
    heads: list[Position] = []
    # Large messages take the log through SQLite's checkpoints, small ones through many commits.
    for life, size in enumerate([20, 8000, 20, 300]):
        with subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, path, str(life), sync, str(size)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            word, head = process.stdout.readline().split()
            assert word == "open"
            heads.append(Position.parse(head))
            for _ in range(seed.randrange(1, 3000)):
                id_, position = process.stdout.readline().split()
                acknowledged[id_] = Position.parse(position)
            process.kill()
            for line in process.stdout:  # those that were on their way when it died
                if line.endswith("\n"):
                    id_, position = line.split()
                    acknowledged[id_] = Position.parse(position)
            assert process.wait() == -signal.SIGKILL

    check_survivors(path, acknowledged, heads)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@on_loop
async def check_survivors(path: Path, acknowledged: dict[str, Position], heads: list[Position]) -> None:
    """Hold a log that was killed several times against what it acknowledged."""
    async with opened(SqliteBroker(path, ALL_OF_IT)) as (broker, _):
        assert {head.epoch for head in heads} == {broker.head.epoch}
        assert heads == sorted(heads)
        rooms = [f"room-{number}" for number in range(5)]
        messages = (await read_to_head(broker, rooms, limit_bytes=10_000_000)).messages
        found = {message.id: message.seq for message in messages}
        assert len(found) == len(messages), "nothing is there twice"
        assert {id_: found.get(id_) for id_ in acknowledged} == {id_: at.seq for id_, at in acknowledged.items()}
        assert all(message.data.split() == [message.id.encode()] for message in messages)
        for publisher in range(32):
            seqs = [found[f"0-{publisher}-{n}"] for n in range(1, 1 + sum(f"0-{publisher}-" in id_ for id_ in found))]
            assert seqs == sorted(seqs), "what one publisher waited for is in its order"
        some = next(reversed(acknowledged))
        again = await broker.append(Draft(f"room-{int(some.split('-')[1]) % 5}", b"1", id=some))
        assert again == Appended(acknowledged[some], duplicate=True)
        assert placed(await broker.append(Draft("room-0", b"1"))).seq > max(found.values())


def test_sqlite_lock_is_held_against_other_processes_until_death(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, path, "x", "full", "10"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(Unavailable, match=f"open in another broker .process {process.pid}.;"):
            count_of(path)
        process.kill()
        process.stdout.read()
        process.wait()
    assert count_of(path) >= 0


def count_of(path: Path) -> int:
    """Open a log, and count the messages of channel "a"."""
    counts: list[int] = []

    @on_loop
    async def count() -> None:
        async with opened(SqliteBroker(path)) as (broker, _):
            counts.append(len((await read_to_head(broker, ["a"])).messages))

    count()
    return counts[0]


Sync = Literal["full", "normal"]


@pytest.mark.parametrize(
    ("sync", "closed", "rebooted", "same"),
    [
        ("full", False, True, True),
        ("full", False, False, True),
        ("normal", False, False, True),
        ("normal", True, True, True),
        ("normal", False, True, False),
    ],
)
@on_loop
async def test_sqlite_epoch_is_another_where_the_tail_may_be_lost(
    tmp_path: Path, sync: Sync, closed: bool, rebooted: bool, same: bool
) -> None:
    path, image = tmp_path / "log.db", tmp_path / "image.db"
    clock = Clock()
    async with opened(SqliteBroker(path, sync=sync, clock=clock)) as (broker, feed):
        await publish(broker, "a", 3)
        await broker.append(Draft("a", b"1", id="x"))
        head = broker.head
        if not closed:
            copy_of_running(path, image)
    if closed:
        shutil.copy(path, image)
    if rebooted:
        with closing(sqlite3.connect(image, isolation_level=None)) as connection:
            connection.execute("UPDATE meta SET value = 'an earlier one' WHERE name = 'boot'")
    others: tuple[Sync, ...] = ("full", "normal")
    for other_sync in others:
        async with opened(SqliteBroker(image, sync=other_sync, clock=clock)) as (broker, _):
            assert (broker.head.epoch == head.epoch) is same
            assert broker.head.seq == head.seq
            assert (await read_to_head(broker, ["a"])).messages == feed.messages
            gaps = (await read_to_head(broker, ["a"], head)).gaps
            assert [gap.reason for gap in gaps] == ([] if same else ["epoch"])
            known = Position(broker.head.epoch, head.seq)
            assert await broker.append(Draft("a", b"1", id="x")) == Appended(known, duplicate=True)


def copy_of_running(path: Path, image: Path) -> None:
    """Copy a log as a crash of its machine would leave it."""
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{image}{suffix}")


@on_loop
async def test_sqlite_log_whose_epoch_was_deleted_gets_another(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SqliteBroker(path)) as (broker, _):
        await publish(broker, "a")
        head = broker.head
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM meta WHERE name = 'epoch'")
    async with opened(SqliteBroker(path)) as (broker, _):
        assert broker.head.epoch != head.epoch
        (place,) = await publish(broker, "a")
        assert place.seq > head.seq


FULL_DISK = """
import asyncio, os, resource, sys
from tellwire.brokers.sqlite import SqliteBroker
from tellwire.errors import Unavailable
from tellwire.message import Draft

class Collected:
    def __init__(self): self.seqs = []
    def deliver(self, messages): self.seqs += [message.seq for message in messages]

async def main(path):
    feed = Collected()
    broker = SqliteBroker(path)
    await broker.open(feed)
    for n in range(5):
        await broker.append(Draft("a", b"7" * 1000, id=f"before-{n}"))
    # No file may grow past this: the next commits fail at different places.
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path + "-wal") + 300_000, resource.RLIM_INFINITY))
    drafts = [Draft("a", b"7" * 5000, id=f"{n}") for n in range(200)]
    answers = []
    for start in range(0, 200, 10):
        answers += await asyncio.gather(*map(broker.append, drafts[start:start + 10]), return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    assert failed and len(failed) < 200, len(failed)
    assert all(isinstance(answer, Unavailable) and "disk" in str(answer) for answer in failed), failed[0]
    acknowledged = [answer.position.seq for answer in answers if not isinstance(answer, Exception)]
    assert feed.seqs[5:] == acknowledged
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    again = await asyncio.gather(*map(broker.append, drafts))
    assert [each.duplicate for each in again] == [not isinstance(answer, Exception) for answer in answers]
    assert feed.seqs == sorted(set(feed.seqs)) and len(feed.seqs) == 205
    read = await broker.read(["a"], None, 10_000_000)
    assert [message.seq for message in read.messages] == feed.seqs
    await broker.aclose()
    print("well")

asyncio.run(main(sys.argv[1]))
"""


def test_sqlite_broker_outlives_a_full_disk(tmp_path: Path) -> None:
    # In a process of its own: the limit that stands for the full disk is the process's.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "log.db"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("well\n", "")


LEFT_OPEN = """
import asyncio, sys
from tellwire.brokers.sqlite import SqliteBroker
from tellwire.message import Draft

class Deaf:
    def deliver(self, messages): pass

async def main(path):
    broker = SqliteBroker(path)
    await broker.open(Deaf())
    await broker.append(Draft("a", b"1"))
    asyncio.ensure_future(broker.append(Draft("a", b"2")))
    await asyncio.sleep(0)
    await broker.read(["a"], None, 1000)

asyncio.run(main(sys.argv[1]))
"""


def test_sqlite_broker_left_open_does_not_keep_its_process(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, path], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert count_of(path) in {1, 2}
