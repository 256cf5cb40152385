"""Starlette on uvicorn: rooms in which everyone talks, as a plain loop over the room's members."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

rooms: dict[str, set[WebSocket]] = {}


async def talk(ws: WebSocket) -> None:
    await ws.accept()
    members = rooms.setdefault(ws.path_params["room"], set())
    members.add(ws)
    try:
        while True:
            text = await ws.receive_text()
            for member in tuple(members):
                await member.send_text(text)
    except WebSocketDisconnect:
        pass
    finally:
        members.discard(ws)


app = Starlette(routes=[WebSocketRoute("/{room}", talk)])

if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws=sys.argv[2],
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
    )
