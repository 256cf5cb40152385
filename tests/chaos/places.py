"""Where the log of several nodes is, for each kind of broker: what can be done to it, and how to name it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.chaos.nodes import Nodes
from tests.nats_servers import NatsServer, needs_nats
from tests.redis_servers import Cable, RedisServer, needs_redis

TIMEOUT_S = 1.0
"""For which a publish waits for the broker."""


class Place(ABC):
    """A broker's server, which keeps over a crash whatever it acknowledged."""

    port: int

    @abstractmethod
    def url(self, port: int) -> str:
        """Name the log, as reached by a port of the loopback."""

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it answers."""

    @abstractmethod
    def kill(self) -> None:
        """End it with SIGKILL."""

    @abstractmethod
    def pause(self) -> None:
        """Let it stand still (SIGSTOP)."""

    @abstractmethod
    def go_on(self) -> None:
        """Let it run again."""


class RedisPlace(Place):
    """A Redis that has all on its disk before it answers."""

    def __init__(self, folder: Path) -> None:
        self.server = RedisServer(folder, "--save", "", "--appendonly", "yes", "--appendfsync", "always")
        self.port = self.server.port

    def url(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0?timeout={TIMEOUT_S}"

    def start(self) -> None:
        self.server.start()

    def kill(self) -> None:
        self.server.kill()

    def pause(self) -> None:
        self.server.pause()

    def go_on(self) -> None:
        self.server.go_on()


class NatsPlace(Place):
    """A NATS with JetStream, which has all with its operating system before it answers."""

    def __init__(self, folder: Path) -> None:
        self.server = NatsServer(folder)
        self.port = self.server.port

    def url(self, port: int) -> str:
        return f"nats://127.0.0.1:{port}?timeout={TIMEOUT_S}"

    def start(self) -> None:
        self.server.start()

    def kill(self) -> None:
        self.server.kill()

    def pause(self) -> None:
        self.server.pause()

    def go_on(self) -> None:
        self.server.go_on()


PLACES: dict[str, Callable[[Path], Place]] = {"redis": RedisPlace, "nats": NatsPlace}
BROKERS = [pytest.param("redis", marks=needs_redis), pytest.param("nats", marks=needs_nats)]
"""The kinds, as parameters of tests."""


class Site:
    """A broker, three nodes, and what connects each node with the broker."""

    def __init__(self, place: Place, cables: Sequence[Cable], nodes: Nodes) -> None:
        self.place = place
        self.cables = cables
        self.nodes = nodes


@contextmanager
def site(kind: str, folder: Path) -> Iterator[Site]:
    """Start a broker of a kind with three nodes on it."""
    with ExitStack() as stack:
        place = PLACES[kind](folder / kind)
        place.start()
        stack.callback(place.kill)
        cables = [Cable(place) for _ in range(3)]
        for cable in cables:
            stack.callback(cable.close)
        nodes = Nodes([place.url(cable.port) for cable in cables])
        stack.callback(nodes.close)
        yield Site(place, cables, nodes)
