"""The server under soak: Tellwire's own, with a page of what it holds: ``python -m tests.soak.serve JSON``.

``/figures`` counts everything that comes and goes with a client, so that what stays behind is seen at once and not by
its bytes alone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tellwire.config import Settings
from tellwire.limits import raise_descriptor_limit
from tellwire.node import Node
from tellwire.server import make_server
from tellwire.server.running import GC_THRESHOLD


def main() -> None:
    """Serve until SIGTERM, or until the tests are gone."""
    what = json.loads(sys.argv[1])
    del what["kind"]
    settings = msgspec.convert(what, Settings)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    too_few = raise_descriptor_limit(settings.limits.connections_max)
    assert too_few is None, too_few
    server = make_server(settings, lambda url: print(urlsplit(url).port, flush=True))
    node = server._node
    app = server.config.app
    assert isinstance(app, Starlette)

    async def show(request: Request) -> JSONResponse:
        return JSONResponse(figures(node, with_kinds="kinds" in request.query_params))

    app.routes.append(Route("/figures", show))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    server.run()


def figures(node: Node, *, with_kinds: bool = False) -> dict[str, Any]:
    """Count what there is; with `with_kinds` also how many objects of each type."""
    gc.collect()
    objects = gc.get_objects()
    timers = [each for each in objects if type(each).__name__ == "TimerHandle"]
    members = node.members
    table = node.presence._table  # type: ignore[attr-defined]  # of the store in memory
    counted: dict[str, Any] = {
        "subscribers": len(node.hub.subscribers),
        "readings": node.hub.readings,
        "tails": len(node.hub.tails),
        "tail_bytes": node.hub.tails.size,
        "beating": sum(map(len, node.hub._wheel)),
        "holds": len(members._holds),
        "holders": len(members._held_by),
        "leased": members._leased,
        "counting": len(members.telling._counting),
        "members": sum(len(room.members) for room in table._rooms.values()),
        "rooms": len(table._rooms),
        "connections": node.turnstile.total,
        "unknown": node.turnstile.unauthenticated,
        "addresses": len(node.turnstile._by_address),
        "users": len(node.turnstile._by_user),
        "buckets": len(node._commands) + len(node._publishes),
        "node_tasks": len(node.tasks),
        "tasks": len(asyncio.all_tasks()),
        "timers": sum(not timer.cancelled() for timer in timers),
        "objects": len(objects),
        "internal": node.counters.rejects["internal"],
        "opened": sum(node.counters.connections_opened.values()),
        "published": node.counters.published_messages,
        "delivered": node.counters.delivered_messages,
        **{name: int(value) for name, value in node.broker.figures().items()},
    }
    if with_kinds:
        counted["set"] = [repr(timer) for timer in timers if not timer.cancelled()]
        counted["kinds"] = dict(Counter(type(each).__qualname__ for each in objects).most_common(40))
    return counted


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(3)


if __name__ == "__main__":
    main()
