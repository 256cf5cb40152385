"""Prices that go up and down at random, published as they change.

.venv/bin/python examples/ticker/publish.py http://127.0.0.1:8001/realtime

Each has its share as ``key``: of a share, a reader that lags needs the newest price only.
"""

import argparse
import asyncio
import random

from tellwire.client import Client, connect

SHARES = ["ACME", "BOLT", "CORK", "DUNE", "ECHO", "FERN", "GATE", "HALO"]


async def publish(client: Client, rate: float, count: int) -> None:
    opening = {share: random.uniform(20, 400) for share in SHARES}
    prices = dict(opening)
    numbers = dict.fromkeys(SHARES, 0)
    done = 0
    while done < count or not count:
        # A tick is one price of each share: published together, acknowledged together.
        async with asyncio.TaskGroup() as tick:
            for share in SHARES:
                prices[share] *= random.gauss(1, 0.001)
                numbers[share] += 1
                data = {"price": round(prices[share], 2), "open": round(opening[share], 2), "number": numbers[share]}
                tick.create_task(client.publish("stocks:all", data, key=share))
        done += len(SHARES)
        if rate:
            await asyncio.sleep(len(SHARES) / rate)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Publish prices.")
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8001/realtime")
    parser.add_argument("--rate", type=float, default=200, help="prices a second; 0 is as fast as it goes")
    parser.add_argument("--count", type=int, default=0, help="stop after so many; 0 is never")
    options = parser.parse_args()
    async with connect(options.url) as client:
        await publish(client, options.rate, options.count)


if __name__ == "__main__":
    asyncio.run(main())
