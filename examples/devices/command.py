"""Tells a device what to do, and waits until it has: the operator's side.

make serve                                                (in another terminal)
.venv/bin/python examples/devices/command.py lamp-1 on

Prints what the device answered; exits with 1 if it could not, and with 2 if it did not answer in time.
"""

import argparse
import asyncio
import secrets
import sys
import time
from typing import Any

from tellwire.client import Client, connect


async def command(client: Client, device: str, what: str, timeout_s: float) -> dict[str, Any]:
    """Send a command; return what the device says of it. Raises TimeoutError."""
    name = secrets.token_urlsafe(12)
    # First listen, then speak: the answer may be quick.
    async with asyncio.timeout(timeout_s), client.subscribe(f"device:{device}:done") as answers:
        await answers.ready()
        # A lamp that was off for a day must not go on at night because of this.
        data = {"do": what, "until": time.time() + timeout_s}
        published = await client.publish(f"device:{device}:commands", data, id=name)
        print(f"in the log at {published.position}, waiting for {device}", file=sys.stderr)
        async for answer in answers:
            if answer.data["command"] == name:
                return dict(answer.data)
    raise TimeoutError


async def main() -> int:
    parser = argparse.ArgumentParser(description="Tell a device what to do.")
    parser.add_argument("device")
    parser.add_argument("what", help="on, off or report")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--timeout", type=float, default=10, help="seconds to wait for the device")
    options = parser.parse_args()
    async with connect(options.url) as client:
        try:
            answer = await command(client, options.device, options.what, options.timeout)
        except TimeoutError:
            print(f"{options.device} did not answer; it will not do it later either", file=sys.stderr)
            return 2
    print(answer.get("light") or answer.get("error"))
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
