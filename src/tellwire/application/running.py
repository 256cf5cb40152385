"""When an embedded node is open: with the application's lifespan, by hand, or from the first request on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tellwire.application.handlers import Handlers
from tellwire.application.mounting import AsgiApp, InFront, Mounted
from tellwire.application.signals import Signals
from tellwire.brokers import OF_ONE_PROCESS
from tellwire.config import Settings
from tellwire.errors import Draining
from tellwire.node import Node
from tellwire.server import make_app, make_grpc, make_node
from tellwire.transports.rtc import make_host
from tellwire.transports.rtc.endpoint import RtcHost

if TYPE_CHECKING:
    from tellwire.transports.grpc.server import GrpcServer

_log = logging.getLogger("tellwire")

NOT_STARTED = (
    "Tellwire is not started: give lifespan=tellwire.lifespan to your application, or await tellwire.start() first"
)


class Running(Handlers):
    """A node that can be opened and closed, more than once, each time on one event loop.

    Args:
        settings: What the node is made from, when it is opened.
        page: Whether the page is served.
    """

    def __init__(self, settings: Settings, *, page: bool) -> None:
        super().__init__(settings.hooks.hook_timeout_s)
        if settings.auth.token_key or settings.auth.token_key_file:
            from tellwire.auth import Verifier

            Verifier(settings.auth)  # says now what is wrong with the key
        self.settings = settings
        self.asgi: AsgiApp = Mounted(self)
        """The ASGI application, to be mounted."""
        self._page = page
        self._node: Node | None = None
        self._rtc: RtcHost | None = None
        self._grpc: GrpcServer | None = None
        self._app: AsgiApp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._signals = Signals(self._drain)
        self._stopped = False

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Be open for as long as this lasts: the ``lifespan`` of a Starlette, FastAPI or Litestar application.

        Within another one that is open already it changes nothing.
        """
        opened = await self._open()
        try:
            yield
        finally:
            if opened:
                await self.stop()

    async def start(self) -> None:
        """Open the node, unless it is open; the first request does, where nobody has done it before."""
        await self._open()

    async def _open(self) -> bool:
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._is_elsewhere(self._loop):
            self._forget()
        if self._closing is not None:
            await asyncio.shield(self._closing)
        if self._node is not None:
            return False
        opens = self._opening is None
        if self._opening is None:
            self._loop = loop
            self._opening = loop.create_task(self._open_node())
        # Others wait for the same task, so whoever asked first may go away.
        await asyncio.shield(self._opening)
        return opens

    async def _open_node(self) -> None:
        try:
            node = self._make_node()
            rtc = make_host(node, self.settings.rtc, self.settings.server.host)
            # Processes that have one log may be reached at one port.
            shares = self.settings.server.broker.partition("://")[0] not in OF_ONE_PROCESS
            grpc = make_grpc(self.settings, node, shares_port=shares)
            try:
                await node.open()
                if rtc is not None:
                    await rtc.open()
                if grpc is not None:
                    await grpc.start()
            except BaseException:
                await _close(node, rtc, grpc)
                raise
        except BaseException:
            self._forget()
            raise
        settings = self.settings
        node.on_stop = lambda whole: self._drain()
        self._node = node
        self._rtc = rtc
        self._grpc = grpc
        self._app = make_app(
            node, jsonp=settings.auth.jsonp, metrics_open=settings.server.metrics_open, page=self._page, rtc=rtc
        )
        self._opening = None
        self._stopped = False
        self._signals.hear()

    def _drain(self) -> None:
        """Begin to send the clients away, as a server does that is told to stop."""
        if self._node is not None and self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(_drain(self._node, self._grpc))

    def _make_node(self) -> Node:
        settings, hooks = self.settings, self.hooks
        asked = any((hooks.connect, hooks.authorize, hooks.subscribe, hooks.publish, hooks.disconnect, hooks.rpc))
        decides = bool(hooks.connect or hooks.authorize)
        if settings.hooks.urls():
            if asked:
                raise ValueError("there are handlers both in Python and at URLs (hook_..._url); take one kind away")
            decides = settings.hooks.hook_connect_url is not None
        if settings.server.open and (decides or settings.auth.has_key):
            raise ValueError("open lets everybody in, but there is a key for tokens, or a handler that decides")
        if not (settings.server.open or decides or settings.auth.has_key):
            _log.warning(
                "nobody may come in yet: register on_connect or authorize, give a key for tokens (token_key), "
                "or say open=True if everybody who can reach this application may read and publish"
            )
        if settings.server.workers > 1:
            raise ValueError("workers are those of `tellwire serve`; here it is your server that starts processes")
        self._sealed = True
        hooks.counters = None  # those of a node before
        return make_node(settings, None if settings.hooks.urls() else hooks, embedded=True)

    async def stop(self) -> None:
        """Close the node, if it is open; its clients are told to come back. It can be started again."""
        if self._loop is not None and self._is_elsewhere(self._loop):
            self._forget()
        if self._opening is not None:
            await asyncio.wait({self._opening})
        if self._closing is None:
            node, self._node, self._app = self._node, None, None
            if node is None:
                return
            self._stopped = True
            self._signals.leave()
            self._closing = asyncio.get_running_loop().create_task(
                _close(node, self._rtc, self._grpc, self._draining or _drain(node, self._grpc))
            )
            self._closing.add_done_callback(lambda _: self._forget())
        await asyncio.shield(self._closing)

    @staticmethod
    def _is_elsewhere(loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether the loop was closed under the node, so that nothing of it lives; raise if another has it."""
        if asyncio.get_running_loop() is loop:
            return False
        if not loop.is_closed():
            raise RuntimeError("this Tellwire runs on another event loop; each loop needs one of its own")
        return True

    def _forget(self) -> None:
        self._node = self._rtc = self._grpc = self._app = None
        self._loop = self._opening = self._closing = self._draining = None
        self._sealed = False

    @property
    def grpc_url(self) -> str | None:
        """Where gRPC is, as the Python client takes it, such as grpc://127.0.0.1:50051; None while it is nowhere."""
        return self._grpc.url if self._grpc is not None else None

    async def find_app(self) -> AsgiApp:
        """Return the ASGI application of the node, which is opened where it was not; raises Draining once stopped."""
        if self._app is None or asyncio.get_running_loop() is not self._loop:
            if self._stopped:
                raise Draining("this application is stopping; connect again")
            await self._open()
        assert self._app is not None
        return self._app

    def in_front_of(self, app: AsgiApp, prefix: str) -> AsgiApp:
        """Return an ASGI application with Tellwire under a prefix, and `app` everywhere else.

        It is for applications that know neither mounts nor a lifespan, such as Django's; others mount `asgi`.
        """
        return InFront(self, app, prefix)

    def _running_node(self) -> Node:
        if self._node is None:
            raise RuntimeError(NOT_STARTED)
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this Tellwire runs on another event loop; from another thread, publish_sync publishes")
        return self._node


async def _drain(node: Node, grpc: GrpcServer | None) -> None:
    if grpc is not None:
        await grpc.drain()
    await node.drain()


async def _close(
    node: Node, rtc: RtcHost | None, grpc: GrpcServer | None, draining: Awaitable[None] | None = None
) -> None:
    try:
        if draining is not None:
            await draining
    finally:
        if grpc is not None:
            await grpc.aclose()
        await node.aclose()
        if rtc is not None:
            await rtc.aclose()
