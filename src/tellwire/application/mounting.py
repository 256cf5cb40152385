"""Tellwire as an ASGI application: mounted into another one, or in front of it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from tellwire.errors import Draining, TellwireError
from tellwire.transports.requests import problem

_log = logging.getLogger("tellwire")

# Loose on purpose: every framework has its own names for what these are (ASGI specification, version 3.0).
AsgiApp = Callable[[Any, Any, Any], Awaitable[Any]]


class Lifecycle(Protocol):
    """What is mounted, as far as this goes."""

    async def start(self) -> None:
        """Open the node, unless it is open."""

    async def stop(self) -> None:
        """Close the node, if it is open."""

    async def find_app(self) -> AsgiApp:
        """Return the application of the node, opened where it was not; raises Draining."""


class Mounted:
    """The whole of Tellwire's paths, under whatever prefix it is mounted (``root_path``)."""

    def __init__(self, running: Lifecycle) -> None:
        self._running = running

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(self._running, receive, send)
            return
        try:
            app = await self._running.find_app()
        except Draining as exc:
            await _refuse(exc, scope, receive, send)
            return
        # A copy: what the router writes into it is not for the application outside.
        inner = dict(scope)
        path: str = inner["path"]
        if len(path) > 1 and path.endswith("/") and path != inner.get("root_path", "") + "/":
            inner["path"] = path[:-1]  # Litestar has put that slash there
        await app(inner, receive, send)


class InFront:
    """Another ASGI application with Tellwire in front of it: what is under the prefix is Tellwire's."""

    def __init__(self, running: Lifecycle, app: AsgiApp, prefix: str) -> None:
        if not prefix.startswith("/") or prefix.endswith("/"):
            raise ValueError(f"a prefix begins with a slash and does not end with one, as in /realtime; not {prefix!r}")
        self._running = running
        self._app = app
        self._prefix = prefix
        self._mounted = Mounted(running)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(self._running, receive, send)
            return
        root: str = scope.get("root_path", "")
        path = scope["path"]
        path = path[len(root) :] if root and path.startswith(root) else path
        if path == self._prefix or path.startswith(self._prefix + "/"):
            await self._mounted({**scope, "root_path": root + self._prefix, "path": root + path}, receive, send)
            return
        try:
            await self._running.find_app()  # where there is no lifespan: its views may publish
        except TellwireError as exc:
            _log.warning("a request came that could not start Tellwire: %s", exc)
        await self._app(scope, receive, send)


async def _live(running: Lifecycle, receive: Any, send: Any) -> None:
    """Answer a server that starts and stops (ASGI specification, lifespan protocol)."""
    await receive()
    try:
        await running.start()
    except Exception as exc:
        _log.exception("Tellwire could not be started")
        await send({"type": "lifespan.startup.failed", "message": str(exc)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    try:
        await running.stop()
    except Exception as exc:
        _log.exception("Tellwire could not be stopped")
        await send({"type": "lifespan.shutdown.failed", "message": str(exc)})
        return
    await send({"type": "lifespan.shutdown.complete"})


async def _refuse(exc: TellwireError, scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await problem(exc).send(send)
    else:
        await receive()
        await send({"type": "websocket.close", "code": exc.close_code or 1013, "reason": exc.detail})
