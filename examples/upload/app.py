"""How far an upload is, as the server sees it, for everybody who was given the link.

.venv/bin/python examples/upload/app.py

Then open http://127.0.0.1:8003/upload/. The handler publishes what it has received; the page sends the file in one
window and may be watched in another.
"""

import asyncio
import hashlib
import os
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tellwire import Client, Tellwire
from tellwire.errors import InvalidChannel
from tellwire.names import check_channel

MAX_BYTES = 1024**3
STEP = 0.01
"""Progress is told in steps of this part of the whole: the eye sees no more, whatever the size of the pieces."""

tellwire = Tellwire()


@tellwire.authorize
def authorize(client: Client, operation: str, name: str) -> bool:
    """Whoever has the name of an upload may watch it; only this program publishes."""
    return operation == "subscribe" and name.startswith("upload:")


async def receive(request: Request) -> JSONResponse:
    try:
        channel = check_channel(f"upload:{request.path_params['upload']}")
        total = int(request.headers["content-length"])
    except (InvalidChannel, KeyError, ValueError):
        return JSONResponse({"error": "a Content-Length and a plain name are needed"}, 400)
    if total > MAX_BYTES:
        return JSONResponse({"error": f"at most {MAX_BYTES} bytes are taken"}, 413)
    name = request.query_params.get("name", "")[:200]
    digest = hashlib.sha256()
    done, told = 0, 0.0
    progress = {"name": name, "total": total}
    await tellwire.publish(channel, {**progress, "done": 0})
    try:
        async for piece in request.stream():
            digest.update(piece)  # a real one writes to a file, in a thread
            done += len(piece)
            if done / max(total, 1) - told >= STEP:
                told = done / max(total, 1)
                await tellwire.publish(channel, {**progress, "done": done}, ephemeral=True)
                await asyncio.sleep(0)  # a file from this machine leaves others no turn
    except ClientDisconnect:
        await tellwire.publish(channel, {**progress, "done": done}, event="failed")
        raise
    # The beginning and the end are kept: who looks later sees how it ended, steps on the way are for who watches now.
    await tellwire.publish(channel, {**progress, "done": done, "sha256": digest.hexdigest()}, event="finished")
    return JSONResponse({"sha256": digest.hexdigest()})


app = Starlette(
    routes=[
        Route("/files/{upload}", receive, methods=["PUT"]),
        Mount("/realtime", tellwire.asgi),
        Mount("/", StaticFiles(directory=Path(__file__).parent.parent, html=True)),
    ],
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    lifespan=tellwire.lifespan,
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8003")), timeout_graceful_shutdown=5)
