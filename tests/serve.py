"""The process that a server under test runs in: ``python -m tests.serve JSON``.

The JSON holds the settings, and as ``kind`` which server carries the app: our own (``direct``, ``workers`` in several
processes), or another ASGI server (``uvicorn``, ``hypercorn``) that knows nothing of Tellwire's extensions. With
``handlers``, the name of a module that has `make_hooks`, the application is asked. The first line on standard output is
the port, and that of gRPC where there is one. The process ends when its standard input does, so that none outlives the
tests.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import sys
import threading
from urllib.parse import urlsplit

import msgspec
import uvicorn
from hypercorn.asyncio import serve
from hypercorn.config import Config

from tellwire.config import Settings
from tellwire.hooks import Hooks
from tellwire.server import Server as TellwireServer
from tellwire.server import make_app, make_grpc, make_node, run
from tellwire.transports.direct import Bounds, direct_protocols
from tellwire.workers import supervise


def main() -> None:
    """Serve until SIGTERM."""
    what = json.loads(sys.argv[1])
    kind = what.pop("kind")
    handlers = what.pop("handlers", None)
    hooks: Hooks | None = importlib.import_module(handlers).make_hooks() if handlers else None
    settings = msgspec.convert(what, Settings)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if kind == "workers":
        sys.exit(0 if supervise(settings, lambda listener: print(listener.getsockname()[1], flush=True)) else 1)
    if kind == "direct" and hooks is None:
        grpc: list[str] = []
        run(settings, lambda url: announce(url, *grpc), on_grpc=grpc.append)
    else:
        {"direct": run_direct, "uvicorn": run_uvicorn, "hypercorn": run_hypercorn}[kind](settings, hooks)


def announce(*urls: str) -> None:
    """Say where the server is: its port, and that of gRPC where there is one."""
    print(*(urlsplit(url).port for url in urls), flush=True)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(3)


def run_direct(settings: Settings, hooks: Hooks | None) -> None:
    """Run the app over Tellwire's own transports, as its server does, with an application to ask."""
    listener = _listen(settings)
    node = make_node(settings, hooks)
    grpc = make_grpc(settings, node, shares_port=False)
    http, websocket = direct_protocols(Bounds(settings.limits, node.turnstile, node.counters))
    config = uvicorn.Config(
        make_app(node, jsonp=settings.auth.jsonp),
        http=http,
        ws=websocket,
        log_config=None,
        access_log=False,
        timeout_keep_alive=settings.limits.idle_s,  # type: ignore[arg-type]  # a whole number says uvicorn; any will do
        timeout_graceful_shutdown=5,
    )
    server = TellwireServer(config, node, lambda url: announce(url, *([] if grpc is None else [grpc.url])), grpc=grpc)
    server.run(sockets=[listener])


def run_uvicorn(settings: Settings, hooks: Hooks | None) -> None:
    """Run the app under uvicorn as it comes, over h11."""
    listener = _listen(settings)
    print(settings.server.port, flush=True)
    config = uvicorn.Config(
        make_app(make_node(settings, hooks), jsonp=settings.auth.jsonp),
        http="h11",
        ws="websockets-sansio",
        ws_ping_interval=None,  # the node has heartbeats, and a test that stands still is not to see or miss pings
        log_config=None,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listener])


def run_hypercorn(settings: Settings, hooks: Hooks | None) -> None:
    """Run the app under Hypercorn, with TLS and HTTP/2 where there is a certificate."""
    listener = _listen(settings)
    print(settings.server.port, flush=True)
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.certfile = settings.server.tls_cert
    config.keyfile = settings.server.tls_key
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    app = make_app(make_node(settings, hooks), jsonp=settings.auth.jsonp)

    async def serving() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]  # its own ASGI types

    asyncio.run(serving())


def _listen(settings: Settings) -> socket.socket:
    return socket.create_server(("127.0.0.1", settings.server.port), backlog=1024)


if __name__ == "__main__":
    main()
