"""How long a publish takes until it is acknowledged, of one broker: one after the other, as percentiles in JSON.

Beside a broker that is reached over the network, the same is done by a few lines without Tellwire, in turns with it:
what an `XADD` and a `PUBLISH` in one round trip cost, or a publish to a stream of JetStream.

Usage: acknowledge.py URL PUBLISHES TURNS
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import uvloop

from tellwire.brokers import make_broker
from tellwire.message import Draft, Message, Position
from tellwire.names import Namespaces

PAYLOAD = b'"' + b"x" * 124 + b'"'

Publish = Callable[[int], Awaitable[object]]


class Ignored:
    """A feed for a node that nobody reads from."""

    def deliver(self, messages: Sequence[Message]) -> None:
        """Nothing to do."""

    def reset(self, head: Position) -> None:
        """Nothing to do."""


async def bare(url: str) -> Publish | None:
    """Make what publishes without Tellwire; None where there is nothing between."""
    if url.startswith("redis"):
        from redis.asyncio import Redis

        redis = Redis.from_url(url)

        async def publish(number: int) -> object:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.xadd("bare", {"m": PAYLOAD}, maxlen=1000)
                pipe.publish("bare", PAYLOAD)
                return await pipe.execute()

        return publish
    if url.startswith("nats"):
        import nats

        stream = (await nats.connect(url)).jetstream()
        await stream.add_stream(name="bare", subjects=["bare"])
        return lambda number: stream.publish("bare", PAYLOAD)
    return None


async def measure(url: str, publishes: int, turns: int) -> dict[str, list[float]]:
    """Return every publish's time in microseconds."""
    broker = make_broker(url, Namespaces())
    await broker.open(Ignored())
    run = secrets.token_hex(4)
    others: dict[str, Publish] = {
        "tellwire": lambda number: broker.append(Draft("bench", PAYLOAD, id=f"{run}-{number}"))
    }

    async def nothing(_: int) -> None:
        """Be asked, and have nothing to do: what is left is what the asking takes."""

    others["nothing"] = nothing
    other = await bare(url)
    if other is not None:
        others["bare"] = other
    took: dict[str, list[float]] = {name: [] for name in others}
    number = 0
    for turn in range(turns + 1):
        for name, one in others.items():
            for _ in range(publishes):
                number += 1
                begun = time.perf_counter()
                await one(number)
                if turn:  # the first is for warming up
                    took[name].append((time.perf_counter() - begun) * 1e6)
    await broker.aclose()
    return took


def main() -> None:
    """Measure one broker, and write what was found."""
    url, publishes, turns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    took = uvloop.run(measure(url, publishes, turns))
    found = {}
    for name, times in took.items():
        times.sort()
        found[name] = {"p50_us": times[len(times) // 2], "p99_us": times[int(len(times) * 0.99)]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
