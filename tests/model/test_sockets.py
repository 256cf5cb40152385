"""The model's promise over real sockets: random readers, cuts and resumes across all doors, against a real server."""

from __future__ import annotations

import select
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tellwire.message import Position
from tests.model.expected import Client, History, Item
from tests.readers import READERS, EventReader, LineReader, LongPollReader, Reader, SocketReader
from tests.serving import Server

CHANNELS = ("a", "b", "short:a", "short:b")
STEPS = 60
READERS_MAX = 6
LARGE_BYTES = 50_000
"""Some bursts of it are more than a bite, and than the tails hold."""

NAMESPACES = [
    {"name": "default", "history_messages": 10_000},
    {"name": "short", "history_messages": 25},
]


class Following:
    """A client and its present reader; it knows from its own place in each channel where to go on."""

    def __init__(self, server: Server, history: History, kind: str, channels: list[str], start: str) -> None:
        self.client = Client(history, "nobody's", start.partition(".")[0])
        for channel in channels:
            self.client.read(channel, Position.parse(start).seq, conflates=False)
        self.open(server, kind, start)

    def open(self, server: Server, kind: str, start: str) -> None:
        self.reader: Reader = READERS[kind](server, *self.client.readings, since=start)
        # Channels that are subscribed to one after the other catch up one after the other (spec, section 4.3).
        self.client.is_whole = not isinstance(self.reader, SocketReader)
        self.client.newest = 0
        for channel, reading in self.client.readings.items():
            self.client.read(channel, min(reading.has, Position.parse(start).seq), conflates=False)
            reading.is_joined = self.client.is_whole

    @property
    def _wire(self) -> Any:
        return self.reader.wire  # type: ignore[attr-defined]  # every reader here has one

    @property
    def place(self) -> str:
        """A cursor for all channels: the newest message where they come in one order, else the least place of all."""
        client = self.client
        least = min(reading.has for reading in client.readings.values())
        return f"{client.epoch}.{max(client.newest, least) if client.is_whole else least}"

    def _is_due(self) -> bool:
        """Tell whether something was published that is not read."""
        place = Position.parse(self.reader.cursor)
        logs = (self.client.history.channels[place.epoch, channel] for channel in self.client.readings)
        return any(log[-1].seq > place.seq for log in logs if log)

    def _has_news(self) -> bool:
        reader = self.reader
        match reader:
            case SocketReader():
                waits = bool(reader.pushes or reader.wire.waiting)
            case EventReader():
                waits = bool(reader.events)
            case LineReader():
                waits = bool(reader.lines or reader.rest)
            case _:
                raise TypeError(reader)
        return waits or bool(self._wire._buffer) or bool(select.select([self._wire.socket], [], [], 0)[0])

    def read(self, count: int) -> None:
        """Take up to `count` messages of what has come."""
        reader = self.reader
        if isinstance(reader, LongPollReader):
            if not reader.pushes:
                reader._ask({"since": reader.cursor, "wait": reader.wait if self._is_due() else 0})
            for _ in range(min(count, len(reader.pushes))):
                self.client.take(reader.pushes.popleft())
            return
        for _ in range(count):
            if not self._has_news():
                return
            self.client.take(reader.read())

    def read_to(self, ends: dict[str, int]) -> None:
        """Take everything up to the last message of every channel."""
        while any(reading.has < ends[channel] for channel, reading in self.client.readings.items()):
            self.client.take(self.reader.read())
        for channel in self.client.readings:
            self.client._check(channel, ends[channel])

    def wait_in_vain(self) -> bool:
        """Tell whether nothing more comes; for whoever has everything."""
        if isinstance(self.reader, LongPollReader):
            self.reader._ask({"since": self.reader.cursor, "wait": 0})
            return not self.reader.pushes
        return not self._has_news()


class Run:
    """One random run against a server."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.random = Random(seed)
        self.history = History()
        self.published = 0
        self.head = server.publish("start", None)
        self.first = Position.parse(self.head).seq
        self.followings: list[Following] = []

    def publish(self, channels: tuple[str, ...], *, size: int) -> dict[str, int]:
        """Publish one message to each channel; return their places."""
        messages: list[dict[str, Any]] = []
        for channel in channels:
            self.published += 1
            messages.append({"channel": channel, "data": {"n": self.published, "pad": "x" * size}})
        places = {}
        for message, text in zip(messages, self.server.publish_all(messages), strict=True):
            position = Position.parse(text)
            item = Item(message["data"]["n"], message["channel"], position.seq, position.epoch, None, "")
            self.history.add(item)
            places[message["channel"]] = position.seq
            self.head = text
        return places

    def step(self) -> None:
        random = self.random
        what = random.random()
        if what < 0.35:
            size = random.choice([0, 100, 5_000, LARGE_BYTES])
            self.publish(tuple(random.choices(CHANNELS, k=random.randint(1, 20))), size=size)
        elif not self.followings or (what < 0.55 and len(self.followings) < READERS_MAX):
            channels = random.sample(CHANNELS, random.randint(1, len(CHANNELS)))
            head = Position.parse(self.head)
            start = f"{head.epoch}.{max(self.first, head.seq - random.choice([0, 0, 3, 50]))}"
            following = Following(self.server, self.history, random.choice(list(READERS)), channels, start)
            self.followings.append(following)
        elif what < 0.8:
            random.choice(self.followings).read(random.randint(1, 60))
        else:
            following = random.choice(self.followings)
            following.reader.close()
            following.open(self.server, random.choice(list(READERS)), following.place)

    def finish(self) -> None:
        """Let everyone read to the end."""
        ends = self.publish(CHANNELS, size=0)
        for following in self.followings:
            following.read_to(ends)
            assert following.wait_in_vain()

    def close(self) -> None:
        for following in self.followings:
            following.reader.close()


BROKERS: dict[str, Callable[[Path], str]] = {
    "memory": lambda _: "memory://",
    "sqlite": lambda folder: f"sqlite:///{folder / 'log.db'}?sync=normal",
}


@pytest.fixture(params=["memory", "sqlite", "plain-asgi"])
def model_server(request: pytest.FixtureRequest, start_server: Callable[..., Server], tmp_path: Path) -> Server:
    """Return a server with a short history and small tails, over each broker and under a foreign server."""
    kind = "uvicorn" if request.param == "plain-asgi" else "direct"
    broker = "memory" if request.param == "plain-asgi" else request.param
    return start_server(
        kind,
        server={"broker": BROKERS[broker](tmp_path)},
        namespaces=NAMESPACES,
        limits={"tail_max_bytes": 400_000, "read_bite_bytes": 20_000, "heartbeat_s": 3600, "idle_s": 3600},
    )


def go(server: Server, seed: int, steps: int) -> None:
    run = Run(server, seed)
    try:
        for _ in range(steps):
            run.step()
        run.finish()
    finally:
        run.close()


def test_readers_over_sockets_lose_nothing(model_server: Server) -> None:
    for seed in range(8):
        go(model_server, seed, STEPS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_readers_over_sockets_lose_nothing_for_long(model_server: Server) -> None:
    for seed in range(100, 160):
        go(model_server, seed, 5 * STEPS)
