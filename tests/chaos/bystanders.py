"""Many who just stay connected, so that a node that drains has something to spread."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.wires import WATCHDOG_S, At


class Move(NamedTuple):
    """How one went from a node to the next: when it was sent away, and when it was served again (seconds)."""

    node: int
    reconnect_in_ms: int
    sent_away_at: float
    tries: int
    served_at: float


class Bystanders:
    """WebSockets on each node, which go to the next one when they are sent away; to be used as a context manager."""

    def __init__(self, nodes: Sequence[At], each: int, channel: str) -> None:
        self.moves: list[Move] = []
        self.lost: list[str] = []
        self._nodes = nodes
        self._each = each
        self._channel = channel
        self._there = [0] * len(nodes)
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._stand()], daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.settle()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(WATCHDOG_S)
        self._loop.close()

    @property
    def there(self) -> list[int]:
        """How many there are at each node."""
        return list(self._there)

    def settle(self) -> None:
        """Wait until all are served."""
        deadline = time.monotonic() + WATCHDOG_S
        while sum(self._there) < self._each * len(self._nodes):
            assert self._thread.is_alive()
            assert time.monotonic() < deadline, self._there
            time.sleep(0.01)

    async def _stand(self) -> None:
        nodes = [node for node in range(len(self._nodes)) for _ in range(self._each)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._be(node)) for node in nodes]
            await self._over.wait()
            for task in tasks:
                task.cancel()

    async def _be(self, node: int) -> None:
        socket, _ = await self._sit(node)
        try:
            while True:
                reconnect_in_ms = await self._read(socket)
                self._there[node] -= 1
                at = self._loop.time()
                await socket.close()
                if reconnect_in_ms is None:
                    self.lost.append(f"node {node} cut a connection without a word")
                await asyncio.sleep((reconnect_in_ms or 0) / 1000)
                former, node = node, (node + 1) % len(self._nodes)
                socket, tries = await self._sit(node)
                self.moves.append(Move(former, reconnect_in_ms or 0, at, tries, self._loop.time()))
        finally:
            await socket.close()

    async def _sit(self, node: int) -> tuple[ClientConnection, int]:
        tries = 0
        while True:
            tries += 1
            try:
                socket = await connect(f"ws://127.0.0.1:{self._nodes[node].port}/v1/ws", open_timeout=WATCHDOG_S)
                await socket.send(json.dumps({"type": "subscribe", "ref": 1, "channel": self._channel}))
                while json.loads(await socket.recv())["type"] != "subscribed":
                    pass
            except (OSError, ConnectionClosed, InvalidHandshake):
                await asyncio.sleep(0.05)
            else:
                self._there[node] += 1
                return socket, tries

    async def _read(self, socket: ClientConnection) -> int | None:
        """Read until it is sent away; return when it shall come back (ms), None where it was not told."""
        try:
            while True:
                push = json.loads(await socket.recv())
                if push["type"] == "closing":
                    assert push["code"] == 1012, push
                    return int(push["reconnect_in_ms"])
        except ConnectionClosed:
            return None
