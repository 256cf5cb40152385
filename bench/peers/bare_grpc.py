"""The floor for gRPC in Python: grpcio's asyncio server, a list of queues, and messages that are bytes already."""

import asyncio
import sys

import grpc
import uvloop

from tellwire.protocol.proto import tellwire_pb2 as pb

readers: set[asyncio.Queue[bytes]] = set()
log: list[bytes] = []


async def subscribe(request: bytes, context: grpc.aio.ServicerContext) -> None:
    """Hand on whatever is published, message by message."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    readers.add(queue)
    await context.write(pb.Pushes(pushes=[pb.Push(connected=pb.Connected())]).SerializeToString())
    try:
        while True:
            await context.write(await queue.get())
    finally:
        readers.discard(queue)


async def connect(requests, context: grpc.aio.ServicerContext) -> None:
    """Append each publish to a list, hand it to all readers, and acknowledge it."""
    async for payload in requests:
        for command in pb.Commands.FromString(payload).commands:
            published = command.publish
            log.append(published.data.value)
            message = pb.Message(channel=published.channel, seq=len(log), data=published.data, id=published.id)
            push = pb.Pushes(pushes=[pb.Push(message=message)]).SerializeToString()
            for queue in readers:
                queue.put_nowait(push)
            reply = pb.Push(ref=command.ref, published=pb.Published(position=f"a.{len(log)}"))
            await context.write(pb.Pushes(pushes=[reply]).SerializeToString())


class Handlers(grpc.GenericRpcHandler):
    """The two methods."""

    def service(self, details):
        if details.method.endswith("/Subscribe"):
            return grpc.unary_stream_rpc_method_handler(subscribe)
        return grpc.stream_stream_rpc_method_handler(connect)


async def main(port: int) -> None:
    """Serve for ever."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handlers(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


uvloop.run(main(int(sys.argv[1])))
