"""The floor for acknowledged publishing in Python: websockets' sans-IO core and msgspec, and a list for a log."""

import asyncio
import sys
from typing import cast

import msgspec
import uvloop
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol


class Publish(msgspec.Struct, tag_field="type", tag="publish"):
    """What the load generator sends."""

    ref: int
    channel: str
    id: str
    data: msgspec.Raw


class Published(msgspec.Struct, tag_field="type", tag="published"):
    """What it gets back."""

    ref: int
    position: str
    duplicate: bool = False


decoder = msgspec.json.Decoder(Publish)
encoder = msgspec.json.Encoder()
log: list[msgspec.Raw] = []


class Acknowledger(asyncio.Protocol):
    """One connection: every frame of a read is appended, and all answers go out in one write."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.protocol = ServerProtocol()

    def data_received(self, data: bytes) -> None:
        protocol = self.protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                command = decoder.decode(event.data)
                log.append(command.data)
                protocol.send_text(encoder.encode(Published(command.ref, f"e.{len(log)}")))
        if len(log) > 100_000:
            log.clear()
        self.transport.write(b"".join(protocol.data_to_send()))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Acknowledger, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


uvloop.run(main())
