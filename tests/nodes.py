"""A node without a network, on a loop of the test's own; every wait in it is for the test to end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec

from tellwire.errors import CloseCode
from tellwire.limits import Limits
from tellwire.message import Appended
from tellwire.names import Namespace, Namespaces
from tellwire.node import Node
from tellwire.protocol.commands import Publish
from tellwire.testing.doors import Seen, somebody
from tellwire.testing.faulty import FaultyBroker
from tellwire.testing.harness import placed

NAMESPACES = Namespaces(
    [
        Namespace("short", history_messages=3),
        Namespace("cut", policy="disconnect"),
        Namespace("newest", policy="latest"),
    ]
)


class Who(NamedTuple):
    """Whose connection it is."""

    client: str = "client"
    session: str = "session"
    transport: str = "stream"


class Sink:
    """A door that keeps what it is given, while it is writable."""

    hears = False

    def __init__(self, *, writable: bool = True) -> None:
        self.writable = writable
        self.batches: list[Any] = []
        self.closed_with: CloseCode | None = None

    def write(self, batch: Any) -> None:
        self.batches.append(batch)

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        self.closed_with = code


class Bench(Node):
    """A node over a broker that fails on request, with small tails and bites."""

    broker: FaultyBroker

    async def say(self, channel: str, data: Any, session: str | None = None, **fields: Any) -> Appended:
        """Publish."""
        command = Publish(channel=channel, data=msgspec.Raw(msgspec.json.encode(data)), **fields)
        return await self.publish(command, somebody(session), packed=False)

    async def say_all(self, channel: str, *data: Any) -> list[str]:
        """Publish several; return their positions."""
        return [str(placed(await self.say(channel, each))) for each in data]


@asynccontextmanager
async def bench(**limits: Any) -> AsyncIterator[Bench]:
    """Open a node; at the end nobody may be left in it who was not let in by the test."""
    node = Bench(
        FaultyBroker(NAMESPACES),
        namespaces=NAMESPACES,
        limits=Limits(**{"tail_max_bytes": 4_000, "read_bite_bytes": 1_000, **limits}),
    )
    await node.hub.open()
    try:
        yield node
    finally:
        await node.aclose()


def data_of(seen: list[Seen]) -> list[Any]:
    """Return what messages carry, and the reason of gaps."""
    return [push["data"] if push["type"] == "message" else push.get("reason", push["type"]) for push in seen]
