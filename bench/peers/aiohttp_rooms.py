"""aiohttp on uvloop: rooms by path, a loop of `send_str` over the members.

`/pub` publishes to the room `/sub`; whoever is at any other path is a member of that room and talks to it.
"""

import asyncio
import sys

import uvloop
from aiohttp import WSMsgType, web

rooms: dict[str, set[web.WebSocketResponse]] = {}


async def talk(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    members = rooms.setdefault("/sub" if request.path == "/pub" else request.path, set())
    if request.path != "/pub":
        members.add(ws)
    try:
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                for member in tuple(members):
                    await member.send_str(message.data)
    finally:
        members.discard(ws)
    return ws


async def main() -> None:
    app = web.Application()
    app.router.add_get("/{room:.*}", talk)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]), backlog=4096).start()
    await asyncio.Event().wait()


uvloop.run(main())
