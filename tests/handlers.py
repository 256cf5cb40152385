"""What the application answers on the servers of the tests that ask it: its procedures, and who it told of an end."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from tellwire.errors import Forbidden, RateLimited
from tellwire.hooks import Client, Hooks

SEEN: Counter[str] = Counter()
"""How often something happened in this process."""


async def add(client: Client, data: Any) -> Any:
    """Add numbers, after a turn of the loop."""
    await asyncio.sleep(0)
    return sum(data)


def who(client: Client, data: Any) -> Any:
    """Say who asks."""
    return {"client": client.client, "user": client.user, "info": client.info, "transport": client.transport}


async def hang(client: Client, data: Any) -> Any:
    """Never answer, and note how that ends."""
    SEEN["began"] += 1
    try:
        await asyncio.Event().wait()
    finally:
        SEEN["cancelled"] += 1


def refuse(client: Client, data: Any) -> Any:
    """Refuse, in the application's own words."""
    raise Forbidden("the application will not have it")


def tire(client: Client, data: Any) -> Any:
    """Raise an error with a field of its own."""
    raise RateLimited("the application is tired", 2.5)


def fail(client: Client, data: Any) -> Any:
    """Fail with what nobody else may read."""
    raise RuntimeError("the database password is hunter2")


def make_hooks() -> Hooks:
    """Return the handlers."""
    hooks = Hooks()
    hooks.rpc = {
        "echo": lambda client, data: data,
        "bytes": lambda client, data: {"raw": b"\x00\xff", "was": type(data).__name__},
        "unsendable": lambda client, data: object(),
        "seen": lambda client, data: dict(SEEN),
        "add": add, "who": who, "hang": hang, "refuse": refuse, "tire": tire, "fail": fail,
    }  # fmt: skip
    return hooks
