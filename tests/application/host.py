"""The process in which somebody else's server runs an application: ``python -m tests.application.host KIND FILE``.

``KIND`` is uvicorn or hypercorn; the file has the application as ``app``. The first line on standard output is the
port. The process ends when its standard input does, so that none outlives the tests.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from hypercorn.asyncio import serve
from hypercorn.config import Config


def main() -> None:
    """Serve until SIGTERM."""
    kind, file = sys.argv[1], Path(sys.argv[2])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path.insert(0, str(file.parent))
    app = importlib.import_module(file.stem).app
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    {"uvicorn": run_uvicorn, "hypercorn": run_hypercorn}[kind](app, listener)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(3)


def run_uvicorn(app: Any, listener: socket.socket) -> None:
    """Run it under uvicorn as it comes."""
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listener])


def run_hypercorn(app: Any, listener: socket.socket) -> None:
    """Run it under Hypercorn."""
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.graceful_timeout = 5

    async def serving() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await serve(app, config, shutdown_trigger=stop.wait)

    asyncio.run(serving())


if __name__ == "__main__":
    main()
