"""A server whose delay, bytes and CPU time are known, for the load generator: ``known_server.py PORT DELAY BURN``.

What comes over /pub goes to everybody on /sub, DELAY seconds later, and costs BURN seconds of CPU time.
/connection/websocket speaks the JSON protocol of Centrifugo as it is documented: commands and replies are lines, a
frame may hold several of them, and an empty one is a ping that wants an empty one back.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve

TOGETHER = 2
"""Publications that share a frame."""


class KnownServer:
    """All its connections."""

    def __init__(self, delay_s: float, burn_s: float) -> None:
        self.delay_s = delay_s
        self.burn_s = burn_s
        self.subscribers: set[ServerConnection] = set()
        self.answered: set[ServerConnection] = set()
        self.held: list[str] = []

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one connection."""
        assert socket.request is not None
        if socket.request.path == "/sub":
            self.subscribers.add(socket)
            await socket.wait_closed()
        elif socket.request.path == "/pub":
            async for message in socket:
                self.pass_on(message)
        else:
            async for message in socket:
                for line in str(message).split("\n"):
                    await self.command(socket, json.loads(line))

    def pass_on(self, message: str | bytes) -> None:
        """Deliver a message when it is due."""
        due = asyncio.get_running_loop().time() + self.delay_s
        end = time.process_time() + self.burn_s
        while time.process_time() < end:
            continue
        asyncio.get_running_loop().call_at(due, broadcast, self.subscribers, message)

    async def command(self, socket: ServerConnection, command: dict[str, Any]) -> None:
        """Answer one command of Centrifugo's clients."""
        number = command.pop("id", None)
        match command:
            case {"connect": _}:
                await socket.send(json.dumps({"id": number, "connect": {"client": "c", "version": "6", "ping": 25}}))
            case {"subscribe": _}:
                await socket.send(json.dumps({"id": number, "subscribe": {}}) + "\n{}")
                self.subscribers.add(socket)
            case {"publish": {"channel": channel, "data": data}}:
                self.held.append(json.dumps({"push": {"channel": channel, "pub": {"data": data}}}))
                if len(self.held) == TOGETHER:
                    # Who did not answer the ping has been given up, and gets nothing.
                    broadcast(self.subscribers & self.answered, "\n".join(self.held))
                    self.held.clear()
                await socket.send(json.dumps({"id": number, "publish": {}}))
            case _:
                self.answered.add(socket)


async def main() -> None:
    """Serve until killed."""
    server = KnownServer(float(sys.argv[2]), float(sys.argv[3]))
    async with serve(server.handle, "127.0.0.1", int(sys.argv[1]), compression=None, ping_interval=None) as listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
