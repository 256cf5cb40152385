"""picows on uvloop: rooms by path, a loop of `send` over the members.

`/pub` publishes to the room `/sub`; whoever is at any other path is a member of that room and talks to it.
"""

import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

rooms: dict[bytes, set[WSTransport]] = {}


class Talk(WSListener):
    def __init__(self, path: bytes) -> None:
        super().__init__()
        self.is_member = path != b"/pub"
        self.members = rooms.setdefault(path if self.is_member else b"/sub", set())

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self.is_member:
            self.members.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            payload = frame.get_payload_as_bytes()
            for member in self.members:
                member.send(WSMsgType.TEXT, payload)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.members.discard(transport)


def listener(request: WSUpgradeRequest) -> WSListener:
    return Talk(bytes(request.path))


async def main() -> None:
    server = await ws_create_server(listener, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


uvloop.run(main())
