"""The log in a SQLite file: what was acknowledged is there after any crash of the process.

One thread writes, and takes all that waits into one transaction; a message is delivered and acknowledged once its
transaction is committed. Readers have threads and connections of their own. Bounds are those of the memory
broker; what it keeps in memory is a few hundred bytes per channel, and the ids that publishers gave.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from tellwire.brokers.base import Broker, Feed, Slice
from tellwire.brokers.breaths import Breaths
from tellwire.brokers.sqlite_file import Sync, connect, explain
from tellwire.brokers.sqlite_log import Settings
from tellwire.brokers.sqlite_reads import read, read_back
from tellwire.brokers.sqlite_writer import Committed, Waiting, Writer
from tellwire.errors import Unavailable
from tellwire.message import Appended, Draft, Message, Position
from tellwire.names import Namespaces

_log = logging.getLogger("tellwire")

_READERS = 2
_WAITING_BYTES = 500
"""What an append that waits weighs beside its data."""

_TOUCHED_MAX = 10_000
"""Channels read between two appends that are remembered as used; further ones are not."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteBroker(Broker):
    """Logs in a SQLite file, which one broker at a time may have open.

    Ephemeral messages are delivered at once; they may overtake messages that wait for the disk.

    Args:
        path: The file; made where it is missing, together with ``-wal``, ``-shm`` and ``.lock`` files beside it.
        namespaces: Bounds of every namespace.
        sync: ``full``: an acknowledged message survives a power cut. ``normal``: it survives a crash of the process; a
            power cut may lose the newest ones, and then the log goes on under another epoch.
        dedupe_window_s: Seconds for which a publisher's id is remembered.
        dedupe_max_bytes: Bytes of memory that remembering ids may take; beyond it the oldest are forgotten first.
        queue_max_bytes: Bytes of appends that may wait for the disk; a further one raises Unavailable.
        busy_timeout_s: Seconds to wait for another program that has locked the file.
        clock: Milliseconds since 1970; replaced in tests.
    """

    def __init__(
        self,
        path: str | Path,
        namespaces: Namespaces | None = None,
        *,
        sync: Sync = "full",
        dedupe_window_s: float = 300.0,
        dedupe_max_bytes: int = 64 * 1024 * 1024,
        queue_max_bytes: int = 64 * 1024 * 1024,
        busy_timeout_s: float = 5.0,
        clock: Callable[[], int] = _now_ms,
    ) -> None:
        # One file has one lock, under whatever name it is reached.
        self.path = Path(path).resolve()
        self.sync: Sync = sync
        self._settings = Settings(namespaces or Namespaces(), int(dedupe_window_s * 1000), dedupe_max_bytes, clock)
        self._queue_max_bytes = queue_max_bytes
        self._busy_timeout_s = busy_timeout_s
        self._queued_bytes = 0
        self._breaths = Breaths()
        self._touched: dict[str, None] = {}
        self._feed: Feed | None = None
        self._writer: Writer | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._connections: list[sqlite3.Connection] = []
        self._closing: asyncio.Task[None] | None = None
        self.head = Position("", 0)

    @classmethod
    def from_url(cls, url: str, namespaces: Namespaces, dedupe_window_s: float) -> SqliteBroker:
        """Make one for ``sqlite:///relative`` or ``sqlite:////absolute/path``, with ``?sync=full`` or ``normal``."""
        parts = urlsplit(url)
        path = unquote(parts.path[1:])
        if parts.netloc or parts.fragment or not path or path.endswith("/") or "\0" in path or path == ":memory:":
            raise ValueError(
                f"{url!r} names no file; write sqlite:///data.db for a path from here on, "
                "sqlite:////var/lib/data.db for an absolute one, and memory:// for a log without a file"
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        sync = options.pop("sync", "full")
        if options:
            raise ValueError(f"{url!r} has an unknown option {next(iter(options))!r}; the SQLite broker knows sync")
        if sync not in get_args(Sync):
            raise ValueError(f"{url!r} has sync={sync}; it is one of {' or '.join(get_args(Sync))}")
        return cls(path, namespaces, sync=cast(Sync, sync), dedupe_window_s=dedupe_window_s)

    async def open(self, feed: Feed) -> None:
        if self._writer is not None:
            raise Unavailable("this broker was opened before; make another one")
        self._writer = Writer(self.path, self.sync, self._settings, self._busy_timeout_s, self._committed)
        self.head = await self._writer.start()
        self._readers = ThreadPoolExecutor(_READERS, "tellwire-sqlite-reader")
        self._feed = feed

    async def append(self, draft: Draft) -> Appended:
        feed, writer = self._feed, self._writer
        if feed is None or writer is None or self._closing is not None:
            raise Unavailable("the broker is closed; nothing can be published")
        if draft.ephemeral:
            now = self._settings.clock()
            message = Message(
                draft.channel, 0, draft.id or "", now, draft.data, draft.packed, draft.event, draft.key, draft.skip,
                draft.trace,
            )  # fmt: skip
            feed.deliver((message,))
            return Appended(None)
        weight = len(draft.data) + _WAITING_BYTES
        if self._queued_bytes and self._queued_bytes + weight > self._queue_max_bytes:
            raise Unavailable(
                f"{self._queued_bytes} bytes of messages wait for the disk already; try again later with the same id"
            )
        if self._touched:
            writer.put(Waiting(tuple(self._touched), None, 0))
            self._touched = {}
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._queued_bytes += weight
        self._breaths.begin()
        writer.put(Waiting(draft, answer, weight))
        return await answer

    async def read(
        self, channels: Collection[str], after: Position | None, limit_bytes: int, limit: int | None = None
    ) -> Slice:
        head = self.head
        if after == head and self._closing is None:
            self._touch(channels)
            return Slice([], head, None)
        return await self._read(
            lambda connection, namespaces, now: read(
                connection, namespaces, now, head, channels, after, limit_bytes, limit
            ),
            channels,
        )

    async def read_back(self, channels: Collection[str], before: Position | None, limit: int) -> Slice:
        head = self.head
        return await self._read(
            lambda connection, namespaces, now: read_back(connection, namespaces, now, head, channels, before, limit),
            channels,
        )

    async def follow(self, channel: str) -> None:
        """Nothing to do: only this process can write the file, so its feed is complete."""

    async def unfollow(self, channel: str) -> None:
        """Nothing to do."""

    def figures(self) -> dict[str, float]:
        return {"queue_bytes": self._queued_bytes}

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._readers is not None:
            await asyncio.to_thread(self._readers.shutdown)
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        if self._writer is not None:
            await self._writer.stop()
        self._feed = None

    def _committed(self, committed: Committed) -> None:
        """Deliver and acknowledge a batch that is in the log by now."""
        messages = committed.messages
        if messages:
            assert self._feed is not None
            self.head = Position(self.head.epoch, messages[-1].seq)
            try:
                self._feed.deliver(messages)
            except Exception:
                _log.exception("the feed of %s failed; its messages are in the log", self.path)
        for waiting, outcome in zip(committed.batch, committed.outcomes, strict=True):
            self._queued_bytes -= waiting.weight
            answer = waiting.answer
            if answer is None:
                continue
            self._breaths.jobs -= 1
            if answer.done():
                continue
            if isinstance(outcome, Appended):
                answer.set_result(outcome)
            else:
                assert outcome is not None
                answer.set_exception(outcome)

    async def _read(
        self, job: Callable[[sqlite3.Connection, Namespaces, int], Slice], channels: Collection[str]
    ) -> Slice:
        if self._readers is None or self._closing is not None:
            raise Unavailable("the broker is closed; nothing can be read")
        self._touch(channels)
        now = self._settings.clock()
        self._breaths.begin()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._with_connection, job, now)
        except sqlite3.Error as exc:
            raise explain(exc, self.path) from exc
        finally:
            self._breaths.jobs -= 1

    def _with_connection(self, job: Callable[[sqlite3.Connection, Namespaces, int], Slice], now: int) -> Slice:
        """Run a read on this reader's thread, with a connection that no other one uses meanwhile."""
        try:
            connection = self._connections.pop()
        except IndexError:
            connection = connect(self.path, self._busy_timeout_s, read_only=True)
        try:
            return job(connection, self._settings.namespaces, now)
        finally:
            self._connections.append(connection)

    def _touch(self, channels: Collection[str]) -> None:
        touched = self._touched
        if len(touched) < _TOUCHED_MAX:
            for channel in channels:
                touched.pop(channel, None)  # so that it gets to the end
                touched[channel] = None
