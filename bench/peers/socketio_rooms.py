"""python-socketio on uvicorn: rooms in which everyone talks.

WebSocket transport only, no compression, handlers without a task of their own, and msgspec in place of json: what its
documentation offers for speed.
"""

import sys

import msgspec
import socketio
import uvicorn


class FastJson:
    """msgspec in the shape of the json module, as python-socketio's ``json`` argument wants it."""

    @staticmethod
    def dumps(value: object, **_: object) -> str:
        return msgspec.json.encode(value).decode()

    @staticmethod
    def loads(text: str, **_: object) -> object:
        return msgspec.json.decode(text)


sio = socketio.AsyncServer(
    async_mode="asgi",
    transports=["websocket"],
    async_handlers=False,
    cors_allowed_origins="*",
    http_compression=False,
    json=FastJson,
    monitor_clients=False,
)
rooms: dict[str, str] = {}


@sio.event
async def join(sid: str, room: str) -> None:
    rooms[sid] = room
    await sio.enter_room(sid, room)
    await sio.emit("joined", room, to=sid)


@sio.event
async def say(sid: str, text: str) -> None:
    await sio.emit("said", text, room=rooms[sid])


@sio.event
async def publish(sid: str, text: str) -> None:
    await sio.emit("said", text, room="bench")


@sio.event
async def kept(sid: str, text: str) -> bool:
    return True


@sio.event
async def disconnect(sid: str, reason: str) -> None:
    rooms.pop(sid, None)


if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(sio),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws=sys.argv[2],
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
    )
