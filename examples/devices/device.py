"""A lamp that does as it is told, and says so: the device's side.

.venv/bin/python examples/devices/device.py lamp-1

It keeps its place in a file. Commands that came while it was off are carried out when it is back, each once: what it
did is acknowledged before its place moves on, and the acknowledgement's id makes a second one the same as the first.
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from tellwire.client import Client, Message, connect

STATE = {"light": "off"}


def carry_out(command: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked. To do it twice must be as good as once: "off" is, "toggle" would not be."""
    match command:
        case {"until": until} if time.time() > until:
            return {"ok": False, "error": "too late"}
        case {"do": "on" | "off" as light}:
            STATE["light"] = light
            return {"ok": True, "light": light}
        case {"do": "report"}:
            return {"ok": True, **STATE}
        case _:
            return {"ok": False, "error": "this lamp does not know how"}


def read_place(file: Path) -> str:
    return file.read_text() if file.exists() else "earliest"


def keep_place(file: Path, position: str) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(position)
    fresh.replace(file)  # whole or not at all, whenever the power goes


async def serve(client: Client, device: str, place: Path) -> None:
    async with client.subscribe(f"device:{device}:commands", since=read_place(place)) as commands:
        await commands.ready()
        print(f"{device} listens", flush=True)
        async for command in commands:
            result = carry_out(command.data)
            print(f"{device}: {command.data.get('do')} -> {result}", flush=True)
            await acknowledge(client, device, command, result)
            if command.position:
                keep_place(place, command.position)


async def acknowledge(client: Client, device: str, command: Message, result: dict[str, Any]) -> None:
    await client.publish(f"device:{device}:done", {"command": command.id, **result}, id=f"done-{command.id}")


async def main() -> None:
    parser = argparse.ArgumentParser(description="Be a lamp.")
    parser.add_argument("device")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--place", type=Path, help="file with its place; default NAME.cursor")
    options = parser.parse_args()
    async with connect(options.url) as client:
        await serve(client, options.device, options.place or Path(f"{options.device}.cursor"))


if __name__ == "__main__":
    asyncio.run(main())
