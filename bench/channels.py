"""Data channels: how many readers one process carries, and what loss does to latency, beside a WebSocket.

``python bench/channels.py fan-out --clients 1000`` and ``python bench/channels.py loss`` print what they find; the rows
`channels` and `loss` of the table are these, several times. The peers are aiortc's, and cost about as much as the
server does, so that they have processes of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from clocks import read, shares  # noqa: E402

from tellwire.client import Client, Message, Settings, connect  # noqa: E402
from tests.rtc.relay import Relay, ThroughRelay  # noqa: E402

RTT_S = 0.04
LOSS = 0.02
TCP_STALL_S = 0.2 + RTT_S
"""What a lost segment costs a TCP connection that is not busy: the least timeout of Linux, and a way there and back."""

PATIENT = Settings(try_timeout_s=60.0, upgrade_after_s=1e6)


@asynccontextmanager
async def server() -> AsyncIterator[tuple[str, int]]:
    """Run a server; give its address and process."""
    flags = "--rtc --rtc-connections 5000 --rtc-offers-per-s 10000 --rtc-offers-per-caller-s 10000 --rtc-open-s 120"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tellwire", "serve", "--port", "0", *flags.split(), stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        while (found := re.search(rb"http://[0-9.:]+", line := await process.stdout.readline())) is None:
            if not line:
                raise RuntimeError("the server did not start")
        yield found[0].decode(), process.pid
    finally:
        process.terminate()
        await process.wait()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99 of seconds, in milliseconds."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50_ms": round(cuts[49] * 1000, 2), "p99_ms": round(cuts[98] * 1000, 2)}


async def read_into(found: list[float], client: Client, channel: str, **options: Any) -> None:
    """Note how late each message is."""

    def note(message: Message) -> None:
        found.append(time.time() - message.data["at"])

    async for message in client.subscribe(channel, **options):
        note(message)


async def readers(url: str, count: int, seconds: float) -> None:
    """Be so many readers; say on standard output when all are there, and then what they had."""
    found: list[float] = []
    clients: list[Client] = []
    tasks = []
    for _ in range(count):
        client = connect(url, transports=("webrtc",), settings=PATIENT)
        await client.__aenter__()
        clients.append(client)
        tasks.append(asyncio.create_task(read_into(found, client, "bench")))
        await client.connected()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps(found), flush=True)
    for task in tasks:
        task.cancel()


async def fan_out(count: int, rate: float, seconds: float, processes: int) -> dict[str, Any]:
    """Publish `rate` messages of 100 bytes a second to `count` readers."""
    async with server() as (url, pid):
        began = time.monotonic()
        share = [count // processes] * processes
        children = [
            await asyncio.create_subprocess_exec(
                sys.executable, __file__, "readers", url, str(each), str(seconds),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=2**28,
            )
            for each in share
        ]  # fmt: skip
        for child in children:
            assert child.stdout is not None
            await child.stdout.readline()
        setup_s = time.monotonic() - began
        peers = [os.getpid(), *(child.pid for child in children)]
        before, peers_before = read([pid]), read(peers)
        async with connect(url, transports=("websocket",)) as publisher:
            sent = round(rate * seconds)
            due = time.monotonic()
            for _ in range(sent):
                await publisher.publish("bench", {"at": time.time(), "pad": "x" * 60})
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            published, peers_published = read([pid]), read(peers)
            await asyncio.sleep(2)
        cpu_s = read([pid]).cpu_s - before.cpu_s
        found: list[float] = []
        for child in children:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(b"\n")
            found += json.loads(await child.stdout.readline())
            await child.wait()
        return {
            "clients": sum(share),
            "setup_ms_each": round(setup_s / sum(share) * 1000, 1),
            "delivered": len(found),
            "expected": sent * sum(share),
            "cpu_us_each": round(cpu_s / max(1, len(found)) * 1e6, 1),
            "wall_s": published.wall_s - before.wall_s,
            **shares("own", peers_before, peers_published, len(os.sched_getaffinity(0))),
            **shares("server", before, published, len(os.sched_getaffinity(0))),
            **spread(found),
        }


class SlowLine:
    """A TCP proxy that is late by half a round trip, and stalls where a segment would have been lost."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._chance = random.Random(1)
        self.port = 0

    async def open(self) -> None:
        """Listen."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, upstream = await asyncio.open_connection("127.0.0.1", self._upstream)
        await asyncio.gather(self._carry(reader, upstream), self._carry(answers, writer), return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        free_at = 0.0
        while data := await reader.read(65_536):
            # What is behind a lost segment waits for it: that is the order that TCP keeps.
            free_at = max(free_at, loop.time() + RTT_S / 2 + (TCP_STALL_S if self._chance.random() < LOSS else 0))
            loop.call_at(free_at, writer.write, data)
        writer.close()


async def loss(rate: float, seconds: float) -> dict[str, Any]:
    """Measure the way of one message over a line of 40 ms there and back that loses 2 %."""
    async with server() as (url, _), Relay() as relay:
        relay.delay_s, relay.loss = RTT_S / 2, 0.0
        line = SlowLine(int(url.rpartition(":")[2]))
        await line.open()
        slow = f"http://127.0.0.1:{line.port}"
        found: dict[str, list[float]] = {"reliable": [], "unreliable": [], "websocket": []}
        async with (
            connect(url, transports=("webrtc",), settings=PATIENT, http_transport=ThroughRelay(relay)) as one,
            connect(url, transports=("webrtc",), settings=PATIENT, http_transport=ThroughRelay(relay)) as two,
            connect(slow, transports=("websocket",), settings=PATIENT) as three,
            connect(url, transports=("websocket",)) as publisher,
        ):
            tasks = [
                asyncio.create_task(read_into(found["reliable"], one, "bench")),
                asyncio.create_task(read_into(found["unreliable"], two, "bench", unreliable=True)),
                asyncio.create_task(read_into(found["websocket"], three, "bench")),
            ]
            for client in (one, two, three):
                await client.connected()
            await asyncio.sleep(1)
            relay.loss = LOSS
            before = read([os.getpid()])
            for _ in range(round(rate * seconds)):
                await publisher.publish("bench", {"at": time.time(), "pad": "x" * 60})
                await asyncio.sleep(1 / rate)
            load = shares("own", before, read([os.getpid()]))
            await asyncio.sleep(3)
            for task in tasks:
                task.cancel()
        return {name: {"delivered": len(late), **spread(late), **load} for name, late in found.items()}


def main() -> None:
    """Measure what the command line names, and print it as JSON."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="what", required=True)
    many = commands.add_parser("fan-out")
    many.add_argument("--clients", type=int, default=1000)
    many.add_argument("--processes", type=int, default=2)
    many.add_argument("--rate", type=float, default=10)
    many.add_argument("--seconds", type=float, default=5)
    lossy = commands.add_parser("loss")
    lossy.add_argument("--rate", type=float, default=50)
    lossy.add_argument("--seconds", type=float, default=20)
    one = commands.add_parser("readers")
    one.add_argument("url")
    one.add_argument("count", type=int)
    one.add_argument("seconds", type=float)
    said = parser.parse_args()
    if said.what == "readers":
        uvloop.run(readers(said.url, said.count, said.seconds))
    elif said.what == "fan-out":
        print(json.dumps(uvloop.run(fan_out(said.clients, said.rate, said.seconds, said.processes))))
    else:
        print(json.dumps(uvloop.run(loss(said.rate, said.seconds))))


if __name__ == "__main__":
    main()
