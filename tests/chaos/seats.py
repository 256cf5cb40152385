"""Readers who go on from their cursor, on whichever node comes next, or with a client that comes back by itself."""

from __future__ import annotations

import itertools
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from tellwire.client import connect
from tellwire.client.messages import TransportName
from tellwire.message import Gap
from tests.chaos.nodes import BEGIN, BREATH_S, END, PACE_S, TRANSIENT
from tests.client.test_network import QUICK
from tests.readers import READERS, Reader, ShortPollReader
from tests.wires import At, Closed, Refused


class PacedPollReader(ShortPollReader):
    """Short polling as programs do it: not without pause."""

    def read(self) -> dict[str, Any]:
        while not self.pushes:
            time.sleep(PACE_S)
            self._ask({"since": self.cursor, "wait": 0})
        return self.pushes.popleft()


KINDS: dict[str, type[Reader]] = {**READERS, "poll": PacedPollReader}


class Seen(NamedTuple):
    """A message, as a reader saw it."""

    channel: str
    seq: int
    id: str


class Closing(NamedTuple):
    """That a reader was sent away: from where, for how long, and the newest place that it had."""

    node: int
    reconnect_in_ms: int
    newest: int


class Seat:
    """Somebody who reads. ``parts`` are the messages between gaps; the last part goes on to the end."""

    def __init__(self, name: str, channels: Sequence[str]) -> None:
        self.name = name
        self.channels = tuple(channels)
        self.parts: list[list[Seen]] = [[]]
        self.gaps: list[str] = []
        self.closings: list[Closing] = []
        self.ready = threading.Event()
        self.failure: str | None = None
        self.ended: set[str] = set()

    @property
    def is_done(self) -> bool:
        return self.ended == set(self.channels)

    @property
    def newest(self) -> int:
        """The newest seq that it has seen."""
        return max((part[-1].seq for part in self.parts if part), default=0)

    def take(self, channel: str, seq: int, id_: str, data: Any) -> None:
        """Take a message."""
        if data == END:
            self.ended.add(channel)
        elif data != BEGIN:
            self.parts[-1].append(Seen(channel, seq, id_))

    def take_gap(self, reason: str) -> None:
        """Take note that something may be missing here."""
        self.gaps.append(reason)
        self.parts.append([])


class RawSeat(Seat):
    """Somebody on bare sockets, in a thread."""

    def __init__(self, kind: str, nodes: Sequence[At], first: int, channels: Sequence[str], since: str) -> None:
        super().__init__(f"{kind}-{first}", channels)
        self.kind = kind
        self._nodes = itertools.cycle(
            [*enumerate(nodes)][first % len(nodes) :] + [*enumerate(nodes)][: first % len(nodes)]
        )
        self.node = 0
        """At which node it is."""
        self.is_seated = False
        self.refusals = 0
        """Tries in which a node did not let it read."""
        self.losses = 0
        """Connections that ended without a word."""
        self._cursor = since
        self._reader: Reader | None = None
        self._stopped = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self.is_done and not self._stopped:
                self.node, address = next(self._nodes)
                try:
                    if self._sit(address):
                        continue
                    self.refusals += 1
                except (Closed, OSError):
                    if self.is_seated:
                        self.losses += 1
                    else:
                        self.refusals += 1
                finally:
                    self.is_seated = False
                time.sleep(BREATH_S)
        except Exception:
            if not self._stopped:
                self.failure = traceback.format_exc()
            self.ready.set()

    def _sit(self, address: At) -> bool:
        """Read at one node until it is over; return whether it was there."""
        try:
            reader = KINDS[self.kind].open(address, *self.channels, since=self._cursor)
        except Refused as exc:
            return check_transient(exc)
        except AssertionError as exc:
            # A reply that is no `subscribed`.
            answer = exc.args[0] if exc.args else None
            if isinstance(answer, dict) and answer.get("code") in TRANSIENT:
                return False
            raise
        self._reader = reader
        self._cursor = reader.cursor if not getattr(reader, "pushes", None) else self._cursor
        with reader:
            self.is_seated = True
            self.ready.set()
            while not self.is_done:
                try:
                    push = reader.read()
                except Refused as exc:
                    return check_transient(exc)
                finally:
                    # A poll's cursor is that of its whole page, of which nothing is left when it asks again.
                    self._cursor = reader.cursor
                match push["type"]:
                    case "message":
                        self.take(push["channel"], push["seq"], push["id"], push["data"])
                    case "gap":
                        self.take_gap(push["reason"])
                    case "closing":
                        self.closings.append(Closing(self.node, push["reconnect_in_ms"], self.newest))
                        return True
                    case other:
                        raise AssertionError(f"{self.name} was told {other}: {push}")
        return True

    def stop(self) -> None:
        """End it, whatever it waits for."""
        self._stopped = True
        if self._reader is not None:
            with suppress(OSError):
                self._reader.wire.socket.shutdown(2)  # type: ignore[attr-defined]  # each kind has one


def check_transient(refused: Refused) -> Literal[False]:
    """Check that a refusal may be tried again; the place was not taken."""
    if refused.response.code not in TRANSIENT:
        raise refused
    return False


class ClientSeat(Seat):
    """Somebody with the Python client, on the loop of all of them."""

    def __init__(self, transport: TransportName, node: At, number: int, channels: Sequence[str], since: str) -> None:
        super().__init__(f"client-{transport}-{number}", channels)
        self._transport = transport
        self._node = node
        self._since = since

    async def run(self) -> None:
        """Read until the end."""
        try:
            url = f"http://127.0.0.1:{self._node.port}"
            async with connect(url, transports=[self._transport], settings=QUICK) as client:
                (channel,) = self.channels
                reading = client.subscribe(channel, since=self._since)
                await reading.ready()
                self.ready.set()
                async for each in reading.with_gaps():
                    if isinstance(each, Gap):
                        self.take_gap(each.reason)
                    else:
                        self.take(channel, each.seq, each.id, each.data)
                    if self.is_done:
                        return
        except Exception:
            self.failure = traceback.format_exc()
            self.ready.set()
