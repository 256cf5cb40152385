"""Fifty readers on every transport and three publishers, who do not stop whatever happens to their servers.

What they saw is compared with the log at the end.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Self

from tellwire.client.messages import ORDER
from tests.chaos.mouths import ClientMouth, Mouth, Said, SocketMouth, failed
from tests.chaos.nodes import BEGIN, END
from tests.chaos.seats import KINDS, ClientSeat, RawSeat, Seat, Seen
from tests.wires import WATCHDOG_S, At, Http, Response

RAW_EACH = 7
"""Readers of each of the six kinds on bare sockets."""
CLIENTS_EACH = 2
"""Python clients on each of their four transports."""


class Crowd:
    """All of them, before some nodes; to be used as a context manager, and ended by `finish`."""

    def __init__(self, nodes: Sequence[At], channel: str) -> None:
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
        return self._say_to_all("first", BEGIN)[-1].position

    def _say_to_all(self, name: str, data: str) -> list[Said]:
        """Publish to every channel until it is acknowledged: a node may not have its broker back yet."""
        with closing(Mouth(name, self.nodes, self.channels)) as mouth:
            for channel in self.channels:
                mouth.say(f"{name}-{channel}", channel, data)
        return mouth.said

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

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody begin to publish, as soon as all that they began is acknowledged."""
        with ExitStack() as stack:
            for mouth in self.mouths:
                stack.enter_context(mouth.turn)
            yield

    def finish(self) -> list[Seen]:
        """Let all come to the end; return the log as it then is, merged by place."""
        for mouth in self.mouths:
            mouth.stop()
        for mouth in self.mouths:
            mouth.thread.join(WATCHDOG_S)
            assert not mouth.thread.is_alive(), mouth.name
            assert mouth.failure is None, mouth.failure
        self._say_to_all("last", END)
        self.wait_until(
            lambda: all(seat.is_done for seat in self.seats),
            f"{[seat.name for seat in self.seats if not seat.is_done]} have the end",
        )
        return sorted(self._log(), key=lambda seen: seen.seq)

    def _log(self) -> Iterator[Seen]:
        for channel in self.channels:
            cursor, is_over = "earliest", False
            while not is_over:
                page = self._page(f"/v1/messages?channel={channel}&since={cursor}&limit=1000")
                cursor = page["cursor"]
                for message in page["messages"]:
                    is_over = is_over or message["data"] == END
                    if message["data"] not in (BEGIN, END):
                        yield Seen(channel, message["seq"], message["id"])

    def _page(self, target: str) -> dict[str, Any]:
        """Ask the last node until it answers, which may not have its broker back yet, or not all that is in there."""
        answers: list[Response] = []

        def is_answered() -> bool:
            with Http(self.nodes[-1]) as http:
                answer = http.get(target)
            if answer.status != 200:
                failed(answer)  # which it is only for a while
            elif answer.json()["messages"]:
                answers.append(answer)
            return bool(answers)

        self.wait_until(is_answered, f"the last node answers {target}")
        page: dict[str, Any] = answers[0].json()
        return page


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
