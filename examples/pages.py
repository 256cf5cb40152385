"""The pages of the examples, and the Tellwire that they talk to, on http://127.0.0.1:8001.

.venv/bin/python examples/pages.py

A program of your own looks the same, but for who may come in: here that is everybody on this machine.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from tellwire import Tellwire
from tellwire.names import Namespace

HERE = Path(__file__).parent
NPM = HERE.parent / "tests" / "node_modules"  # Yjs, for collab


class Modules(StaticFiles):
    """npm packages as they are: they import each other without the ending that their files have."""

    def lookup_path(self, path: str) -> Any:
        found = super().lookup_path(path)
        return found if found[1] else super().lookup_path(f"{path}.js")


tellwire = Tellwire(
    open=True,
    rtc=find_spec("aiortc") is not None,  # data channels, for the game
    namespaces=[
        Namespace(name="room", history_messages=5000),
        Namespace(name="stocks", history_messages=1000, policy="latest"),  # a reader that lags wants the newest prices
        Namespace(name="doc", history_messages=10_000, message_max_bytes=250_000),
    ],
)
app = Starlette(
    routes=[
        Mount("/realtime", tellwire.asgi),
        Mount("/npm", Modules(directory=NPM, check_dir=False)),
        Mount("/", StaticFiles(directory=HERE, html=True)),
    ],
    # Open to this machine means also: not to a page from elsewhere that has its own name lead here.
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    lifespan=tellwire.lifespan,
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8001")))
