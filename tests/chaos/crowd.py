"""Fifty readers on every transport and three publishers, who do not stop whatever happens to their servers.

A reader goes on from its cursor, on whichever node comes next; the Python clients come back by themselves. A publisher
says one thing after the other, and says each with the same id until it is acknowledged. What they saw is compared
with the log at the end.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Self

from tellwire.client import connect
from tellwire.client.messages import ORDER, TransportName
from tellwire.errors import TellwireError
from tellwire.message import Gap
from tests.client.test_network import QUICK
from tests.readers import READERS, Reader, ShortPollReader
from tests.wires import WATCHDOG_S, Address, Closed, Http, Refused, WebSocket

RAW_EACH = 7
"""Readers of each of the six kinds on bare sockets."""
CLIENTS_EACH = 2
"""Python clients on each of their four transports."""
PACE_S = 0.02
"""Between two publishes of one publisher: what the load is, not what anybody waits for."""
BREATH_S = 0.1
"""Before somebody whom a node did not serve asks the next one."""

TRANSIENT = frozenset({"unavailable", "draining", "connection_lost", "timeout"})
"""Codes of errors after which the same may be tried again."""
BEGIN, END = "begin", "end"
"""What is said before and after everything; the rest are numbers."""


class PacedPollReader(ShortPollReader):
    """Short polling as programs do it: not without pause."""

    def read(self) -> dict[str, Any]:
        while not self.pushes:
            time.sleep(PACE_S)
            self._ask({"since": self.cursor, "wait": 0})
        return self.pushes.popleft()


KINDS: dict[str, type[Reader]] = {**READERS, "poll": PacedPollReader}


class Node(Address):
    """Where a node is; the server on it may be another one later."""

    def __init__(self, port: int) -> None:
        self._port = port

    @property
    def port(self) -> int:
        return self._port


class Seen(NamedTuple):
    """A message, as a reader saw it."""

    channel: str
    seq: int
    id: str


class Closing(NamedTuple):
    """That a reader was sent away: when, from where, and for how long."""

    at: float
    node: int
    reconnect_in_ms: int


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

    def __init__(self, kind: str, nodes: Sequence[Node], first: int, channels: Sequence[str], since: str) -> None:
        super().__init__(f"{kind}-{first}", channels)
        self._kind = kind
        self._nodes = itertools.cycle(
            [*enumerate(nodes)][first % len(nodes) :] + [*enumerate(nodes)][: first % len(nodes)]
        )
        self.node = 0
        """At which node it is."""
        self._cursor = since
        self._reader: Reader | None = None
        self._stopped = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self.is_done and not self._stopped:
                self.node, address = next(self._nodes)
                with suppress(Closed, OSError):
                    if self._sit(address):
                        continue
                time.sleep(BREATH_S)
        except Exception:
            if not self._stopped:
                self.failure = traceback.format_exc()
            self.ready.set()

    def _sit(self, address: Node) -> bool:
        """Read at one node until it is over; return whether it was there."""
        try:
            reader = KINDS[self._kind].open(address, *self.channels, since=self._cursor)
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
                        self.closings.append(Closing(time.monotonic(), self.node, push["reconnect_in_ms"]))
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

    def __init__(self, transport: TransportName, node: Node, number: int, channels: Sequence[str], since: str) -> None:
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


class Said(NamedTuple):
    """What became of a message that was published: the errors until it was acknowledged, and its place."""

    id: str
    channel: str
    errors: list[str]
    position: str


class Mouth:
    """A publisher in a thread; `say` publishes once, and returns the position or raises Failed."""

    def __init__(self, name: str, nodes: Sequence[Node], channels: Sequence[str]) -> None:
        self.name = name
        self.said: list[Said] = []
        self.errors = 0
        self.failure: str | None = None
        self._channels = channels
        self._nodes = itertools.cycle(nodes)
        self._wire: Http | None = None
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def stop(self) -> None:
        """Let it say no more than it has begun."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            for number in itertools.count():
                if self._stopped.wait(PACE_S):
                    return
                self._say(f"{self.name}-{number}", self._channels[number % len(self._channels)], number)
        except Exception:
            self.failure = traceback.format_exc()
        finally:
            if self._wire is not None:
                self._wire.close()

    def _say(self, id_: str, channel: str, data: Any) -> None:
        errors: list[str] = []
        deadline = time.monotonic() + WATCHDOG_S
        while True:
            assert time.monotonic() < deadline, f"{id_} was not taken: {errors[-3:]}"
            try:
                position = self.publish(next(self._nodes) if self._wire is None else None, channel, id_, data)
            except Failed as exc:
                errors.append(str(exc))
                self.errors += 1
                time.sleep(BREATH_S)
            except (Closed, OSError) as exc:
                self._drop()
                errors.append(f"connection_lost: {exc!r}")
                self.errors += 1
                time.sleep(BREATH_S)
            else:
                self.said.append(Said(id_, channel, errors, position))
                return

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def publish(self, node: Node | None, channel: str, id_: str, data: Any) -> str:
        """Publish over HTTP; `node` is where to connect to, None to use the connection there is."""
        if node is not None:
            self._wire = Http(node)
        assert self._wire is not None
        answer = self._wire.post("/v1/messages", {"channel": channel, "data": data, "id": id_})
        if answer.status != 200:
            self._drop()  # the next node may do better
            raise Failed(answer.code, answer.json()["detail"])
        return str(answer.json()["position"])


class SocketMouth(Mouth):
    """A publisher over WebSocket."""

    def publish(self, node: Node | None, channel: str, id_: str, data: Any) -> str:
        if node is not None:
            try:
                self._wire = WebSocket(node)
            except Refused as exc:
                raise Failed(exc.response.code, exc.response.json()["detail"]) from None
        assert isinstance(self._wire, WebSocket)
        answer = self._wire.ask(type="publish", channel=channel, data=data, id=id_)
        if answer["type"] == "error":
            self._drop()
            raise Failed(answer["code"], answer["message"])
        assert answer["type"] == "published", answer
        return str(answer["position"])


class ClientMouth(Mouth):
    """A publisher with the Python client, which tries again by itself."""

    def _run(self) -> None:
        asyncio.run(self._talk(next(self._nodes)))

    async def _talk(self, node: Node) -> None:
        try:
            async with connect(f"http://127.0.0.1:{node.port}", settings=QUICK) as client:
                for number in itertools.count():
                    if self._stopped.is_set():
                        return
                    await asyncio.sleep(PACE_S)
                    id_, channel = f"{self.name}-{number}", self._channels[number % len(self._channels)]
                    errors: list[str] = []
                    while True:
                        try:
                            published = await client.publish(channel, number, id=id_)
                        except TellwireError as exc:
                            if exc.code not in TRANSIENT:
                                raise
                            errors.append(f"{exc.code}: {exc}")
                            self.errors += 1
                            await asyncio.sleep(BREATH_S)
                        else:
                            self.said.append(Said(id_, channel, errors, published.position or ""))
                            break
        except Exception:
            self.failure = traceback.format_exc()


class Failed(Exception):
    """A publish that was answered with an error; which may be tried again, says the check."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        assert code in TRANSIENT, (code, detail)
        if code == "unavailable":
            assert "again" in detail, detail


class Crowd:
    """All of them, before some nodes; to be used as a context manager, and ended by `finish`."""

    def __init__(self, nodes: Sequence[Node], channel: str) -> None:
        self.nodes = nodes
        self.channels = [f"{channel}-a", f"{channel}-b"]
        since = self._begin()
        first, both = self.channels[:1], self.channels
        # A connection over WebSocket has one cursor for each of its channels, so that with one channel it is a number.
        raw = [
            RawSeat(kind, nodes, number, both if kind in ("sse", "stream", "longpoll", "poll") else first, since)
            for kind in KINDS
            for number in range(RAW_EACH)
        ]
        self._clients = [
            ClientSeat(transport, nodes[number % len(nodes)], number, [self.channels[number % 2]], since)
            for number, transport in enumerate(ORDER * CLIENTS_EACH)
        ]
        self._raw = raw
        self.seats: list[Seat] = [*raw, *self._clients]
        self.mouths = [
            Mouth("http", nodes, both),
            SocketMouth("websocket", [*nodes[1:], nodes[0]], both),
            ClientMouth("client", [nodes[-1]], both),
        ]
        self._reading = threading.Thread(target=lambda: asyncio.run(self._read()), daemon=True)

    def _begin(self) -> str:
        """Publish something before everything, so that there is a place to begin at."""
        with Http(self.nodes[0]) as http:
            positions = [http.post("/v1/messages", {"channel": each, "data": BEGIN}).json() for each in self.channels]
        return str(positions[-1]["position"])

    async def _read(self) -> None:
        await asyncio.gather(*(seat.run() for seat in self._clients))

    def __enter__(self) -> Self:
        self._reading.start()
        for seat in self._raw:
            seat.thread.start()
        for one in self.seats:
            assert one.ready.wait(WATCHDOG_S), one.name
            assert one.failure is None, one.failure
        for mouth in self.mouths:
            mouth.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for mouth in self.mouths:
            mouth.stop()
        for seat in self._raw:
            seat.stop()

    @property
    def acknowledged(self) -> int:
        return sum(len(mouth.said) for mouth in self.mouths)

    def wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until the crowd has come to something, looking now and then."""
        deadline = time.monotonic() + WATCHDOG_S
        while not is_so():
            failures = [each.failure for each in self.mouths] + [each.failure for each in self.seats]
            assert not any(failures), next(filter(None, failures))
            assert time.monotonic() < deadline, f"it did not come to that: {what}"
            time.sleep(0.01)

    def flow(self, count: int, mouths: Sequence[Mouth] = ()) -> None:
        """Wait until each publisher, or just those of `mouths`, has said `count` things more."""
        goals = {mouth: len(mouth.said) + count for mouth in mouths or self.mouths}
        self.wait_until(
            lambda: all(len(mouth.said) >= goal for mouth, goal in goals.items()),
            f"{count} publishes more of each of {[(mouth.name, len(mouth.said)) for mouth in goals]}",
        )

    def fail(self, times: int = 1) -> None:
        """Wait until publishes of each on bare sockets have failed so often; the client tries again by itself."""
        goals = {mouth: mouth.errors + times for mouth in self.mouths[:2]}
        self.wait_until(
            lambda: all(mouth.errors >= goal for mouth, goal in goals.items()),
            "publishes fail while the log cannot be reached",
        )

    def finish(self) -> list[Seen]:
        """Let all come to the end; return the log as it then is, merged by place."""
        for mouth in self.mouths:
            mouth.stop()
        for mouth in self.mouths:
            mouth.thread.join(WATCHDOG_S)
            assert not mouth.thread.is_alive(), mouth.name
            assert mouth.failure is None, mouth.failure
        with Http(self.nodes[0]) as http:
            ends = [{"channel": channel, "data": END} for channel in self.channels]
            assert all("position" in answer for answer in http.post("/v1/messages", ends).json())
        self.wait_until(
            lambda: all(seat.is_done for seat in self.seats),
            f"{[seat.name for seat in self.seats if not seat.is_done]} have the end",
        )
        return sorted(self._log(), key=lambda seen: seen.seq)

    def _log(self) -> Iterator[Seen]:
        for channel in self.channels:
            with Http(self.nodes[-1]) as http:
                cursor, is_over = "earliest", False
                while not is_over:
                    page = http.get(f"/v1/messages?channel={channel}&since={cursor}&limit=1000").json()
                    cursor = page["cursor"]
                    is_over = not page["messages"]
                    for message in page["messages"]:
                        if message["data"] not in (BEGIN, END):
                            yield Seen(channel, message["seq"], message["id"])


def check_nothing_is_missing(crowd: Crowd, log: list[Seen]) -> None:
    """Check that what was acknowledged is in the log once, at its place, and came to every reader once, in order."""
    check_log(crowd, log)
    places = {seen.id: seen.seq for seen in log}
    for mouth in crowd.mouths:
        for said in mouth.said:
            assert places.get(said.id) == int(said.position.rpartition(".")[2]), (said, places.get(said.id))
    for seat in crowd.seats:
        assert seat.gaps == [], (seat.name, seat.gaps)
        check_reading(seat, log)


def check_gaps_say_what_is_missing(crowd: Crowd, log: list[Seen]) -> None:
    """Check that every reader was told that the log is another one, and has all of that, in order."""
    check_log(crowd, log)
    for seat in crowd.seats:
        assert "epoch" in seat.gaps, (seat.name, seat.gaps)
        check_reading(seat, log)


def check_log(crowd: Crowd, log: list[Seen]) -> None:
    """Check that nothing is in the log twice, and what each publisher said in the order in which it did."""
    again = [id_ for id_, count in Counter(seen.id for seen in log).items() if count > 1]
    assert not again, f"published once, and in the log more than once: {again}"
    for mouth in crowd.mouths:
        numbers = [int(seen.id.rpartition("-")[2]) for seen in log if seen.id.startswith(f"{mouth.name}-")]
        assert numbers == sorted(numbers), mouth.name


def check_reading(seat: Seat, log: list[Seen]) -> None:
    """Check that a reader's last part is the log, and that each part is in order, once."""
    for part in seat.parts:
        places = [seen.seq for seen in part]
        assert all(before < after for before, after in itertools.pairwise(places)), (seat.name, places)
    wanted = [seen for seen in log if seen.channel in seat.channels]
    last = seat.parts[-1]
    missing = [seen for seen in wanted if seen not in set(last)]
    assert last == wanted, f"{seat.name} misses {missing[:5]} ({len(missing)}), and has {len(last)} of {len(wanted)}"
