"""What a client of gRPC can ask of a server: ``fan PORT READERS RATE SECONDS`` and ``acks PORT WINDOW SECONDS``.

It says on standard output when it begins and ends to count, each with a line of JSON. Begun by `services`.
"""

import asyncio
import json
import sys
import time
import uuid

import grpc
import uvloop

from tellwire.protocol.proto import tellwire_pb2 as pb

SERVICE = "/tellwire.v1.Tellwire"
STREAMS = 50
"""Of one connection."""
DATA = b'"' + b"x" * 124 + b'"'


def publish(ref: int, channel: str, run: str) -> bytes:
    """Write one publish."""
    request = pb.PublishRequest(channel=channel, data=pb.Data(value=DATA), id=f"{run}-{ref}")
    return pb.Commands(commands=[pb.Command(ref=ref, publish=request)]).SerializeToString()


def channel(port: int) -> grpc.aio.Channel:
    """Open a connection of its own."""
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])


def tell(**figures: float) -> None:
    """Say where it stands."""
    print(json.dumps({"at": time.monotonic(), **figures}), flush=True)


async def fan(port: int, count: int, rate: float, secs: float) -> None:
    """Publish at a rate to so many readers; count what they get, and how late."""
    delivered = 0
    late_us: list[float] = []
    sent_at: dict[int, float] = {}

    async def read(stream, ready: asyncio.Event) -> None:
        nonlocal delivered
        await stream.read()
        ready.set()
        while (payload := await stream.read()) is not grpc.aio.EOF:
            for push in pb.Pushes.FromString(payload).pushes:
                if push.WhichOneof("push") == "message":
                    delivered += 1
                    if not delivered % 50:
                        ref = int(push.message.id.rpartition("-")[2])
                        late_us.append((time.monotonic() - sent_at[ref]) * 1e6)

    connections = [channel(port) for _ in range(-(-count // STREAMS))]
    request = pb.SubscribeRequest(channels=["bench"]).SerializeToString()
    events = [asyncio.Event() for _ in range(count)]
    tasks = [
        asyncio.create_task(read(connections[at // STREAMS].unary_stream(f"{SERVICE}/Subscribe")(request), event))
        for at, event in enumerate(events)
    ]
    await asyncio.gather(*(event.wait() for event in events))
    writer = channel(port)
    stream = writer.stream_stream(f"{SERVICE}/Connect")()
    tasks.append(asyncio.create_task(drain(stream)))
    run = uuid.uuid4().hex[:8]
    ref = 0
    for seconds in (0.5, secs):
        first, begin = ref, time.monotonic()
        before = delivered
        tell()
        while (now := time.monotonic()) < begin + seconds:
            while ref - first < (now - begin) * rate:
                ref += 1
                sent_at[ref] = time.monotonic()
                await stream.write(publish(ref, "bench", run))
            await asyncio.sleep(0.002)
        give_up = time.monotonic() + 5
        while delivered - before < (ref - first) * count and time.monotonic() < give_up:  # noqa: ASYNC110  # looks, in place of waking for each of them
            await asyncio.sleep(0.01)
        tell(delivered=delivered - before, expected=(ref - first) * count)
    late_us.sort()
    tell(p99_us=late_us[int(len(late_us) * 0.99)] if late_us else 0)
    for task in tasks:
        task.cancel()
    for connection in (*connections, writer):
        await connection.close()


async def drain(stream) -> None:
    """Read what comes."""
    while await stream.read() is not grpc.aio.EOF:
        pass


async def acks(port: int, window: int, secs: float) -> None:
    """Publish with so many in flight; count the acknowledgements."""
    connection = channel(port)
    stream = connection.stream_stream(f"{SERVICE}/Connect")()
    room = asyncio.Semaphore(window)
    acknowledged = 0

    async def read() -> None:
        nonlocal acknowledged
        while (payload := await stream.read()) is not grpc.aio.EOF:
            for push in pb.Pushes.FromString(payload).pushes:
                if push.WhichOneof("push") == "published":
                    acknowledged += 1
                    room.release()

    task = asyncio.create_task(read())
    run = uuid.uuid4().hex[:8]
    ref = 0
    for seconds in (0.5, secs):
        begin, before = time.monotonic(), acknowledged
        tell()
        while time.monotonic() < begin + seconds:
            await room.acquire()
            ref += 1
            await stream.write(publish(ref, "bench", run))
        tell(delivered=acknowledged - before, expected=acknowledged - before)
    tell(p99_us=0)
    task.cancel()
    await connection.close()


if sys.argv[1] == "fan":
    uvloop.run(fan(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])))
else:
    uvloop.run(acks(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
