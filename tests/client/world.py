"""A client, a server that fails as it is told to, and time that goes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from tellwire.client import Client, Message, Settings, State, Subscription, TransportName, connect
from tellwire.client.messages import ORDER
from tellwire.errors import TellwireError
from tellwire.message import Gap
from tests.client.fake_server import FakeServer


class World:
    """One client of a fake server, and what it had."""

    def __init__(self, transports: Sequence[TransportName] = ORDER, *, token: Any = None, **settings: Any) -> None:
        self.server = FakeServer()
        self.states: list[State] = []
        self.had: dict[str, list[Any]] = {}
        self.gaps: dict[str, list[Gap]] = {}
        self.errors: dict[str, TellwireError] = {}
        self.subscriptions: dict[str, Subscription] = {}
        settings = {"chance": lambda: 0.0, **settings}
        self._collectors: list[asyncio.Task[None]] = []
        self.reads = asyncio.Event()
        """Cleared, the application is busy with something else."""
        self.reads.set()
        # A server of its own: what worked is remembered by its address.
        self.client: Client = connect(
            f"http://fake-{id(self)}-{id(self.server)}",
            token=token,
            transports=transports,
            on_state=self.states.append,
            settings=Settings(**settings),
            http_transport=self.server,
            open_socket=self.server.open_socket,
            open_channels=self.server.open_channels,
        )

    def collect(self, channel: str, **options: Any) -> list[Any]:
        """Subscribe; return the list to which the data of the messages goes."""
        subscription = self.subscriptions[channel] = self.client.subscribe(channel, **options)
        had, gaps = self.had.setdefault(channel, []), self.gaps.setdefault(channel, [])

        async def read() -> None:
            try:
                async for item in subscription.with_gaps():
                    await self.reads.wait()
                    if isinstance(item, Message):
                        had.append(item.data)
                    else:
                        gaps.append(item)
            except TellwireError as error:
                self.errors[channel] = error

        self._collectors.append(asyncio.create_task(read()))
        return had

    @property
    def waits(self) -> list[float | None]:
        """How long the client said that it waits, each time."""
        return [state.retry_in_s for state in self.states if state.name == "disconnected"]

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        self.reads.set()
        await asyncio.gather(*self._collectors)
        assert self.server.connections == set()


async def settle() -> None:
    """Let everything happen that needs no time."""
    await asyncio.sleep(0.0001)
