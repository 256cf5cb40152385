"""websockets on uvloop: rooms by path, sent to with its own `broadcast`.

`/pub` publishes to the room `/sub`; whoever is at any other path is a member of that room and talks to it.
"""

import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

rooms: dict[str, set[ServerConnection]] = {}


async def talk(ws: ServerConnection) -> None:
    path = ws.request.path
    members = rooms.setdefault("/sub" if path == "/pub" else path, set())
    if path != "/pub":
        members.add(ws)
    try:
        async for text in ws:
            broadcast(members, text)
    except ConnectionClosed:
        pass
    finally:
        members.discard(ws)


async def main() -> None:
    # https://websockets.readthedocs.io/en/stable/topics/broadcast.html, and topics/memory.html on compression
    async with serve(talk, "127.0.0.1", int(sys.argv[1]), compression=None, ping_interval=None, backlog=4096) as server:
        await server.serve_forever()


uvloop.run(main())
