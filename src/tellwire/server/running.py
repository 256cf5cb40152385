"""The server that runs a node's application, and drains the node before it stops."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import uvicorn

from tellwire.config import Settings
from tellwire.limits import raise_descriptor_limit
from tellwire.node import Node, Title
from tellwire.server.assembly import make_grpc, make_node
from tellwire.server.routes import Collect, make_app
from tellwire.transports.direct import Bounds, direct_protocols
from tellwire.transports.rtc import make_host
from tellwire.transports.rtc.endpoint import RtcHost

if TYPE_CHECKING:
    from tellwire.transports.grpc.server import GrpcServer

GC_THRESHOLD = (10_000, 100, 20)
"""Objects made before the youngest of them are looked through, and how often the older ones are (gc.set_threshold).

Connections are in no circles when they are over, so that what is older is hardly ever garbage. To look through it five
times as often took a tenth of the time while 10,000 clients came back.
"""


class Part(NamedTuple):
    """What a server knows of being a worker, one of several on one port."""

    title: Title
    sockets: list[socket.socket]
    """Where it listens."""
    on_stop: Callable[[bool], None]
    """Told when it begins to stop; with True all workers have to."""
    collect: Collect
    """Asks the others for their metrics."""
    answer: Callable[[Callable[[], bytes]], None]
    """Begins to answer the others with what the function returns, on the running loop."""


class Server(uvicorn.Server):
    """uvicorn, draining its node before it stops."""

    def __init__(
        self,
        config: uvicorn.Config,
        node: Node,
        on_ready: Callable[[str], None] | None = None,
        part: Part | None = None,
        grpc: GrpcServer | None = None,
        rtc: RtcHost | None = None,
    ) -> None:
        super().__init__(config)
        self._rtc = rtc
        self.grpc = grpc
        self._node = node
        self._on_ready = on_ready
        self._part = part
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forced = asyncio.Event()
        node.on_stop = self._stop

    def _stop(self, whole: bool) -> None:
        """Begin to stop as on SIGTERM; with `whole` all workers of this server do."""
        self.should_exit = True
        if whole and self._part is not None:
            self._part.on_stop(True)

    def _log_started_message(self, listeners: Any) -> None:
        """Say nothing in uvicorn's words: `on_ready` is told where the server listens."""
        if self._on_ready is not None:
            self._on_ready(base_url(listeners[0], self.config.host, has_tls=self.config.is_ssl))

    async def startup(self, sockets: Any = None) -> None:
        """Open the node before the app's lifespan would, so that whoever called is told why it cannot be opened."""
        self._loop = asyncio.get_running_loop()
        await self._node.open()
        if self._rtc is not None:
            await self._rtc.open()
        if self.grpc is not None:
            await self.grpc.start()
        await super().startup(sockets)
        if self._part is not None:
            self._part.answer(self._pack)
        if sockets is not None:
            self._log_started_message(sockets)

    def _pack(self) -> bytes:
        from tellwire.metrics import pack  # it is loaded where somebody looks

        return pack(self._node)

    async def _serve(self, sockets: Any = None) -> None:
        await super()._serve(sockets)
        # uvicorn would raise the signal again; a server that drained and stopped as it was told has not failed.
        self._captured_signals.clear()

    async def shutdown(self, sockets: Any = None) -> None:
        """Give every connection its slot to go elsewhere, then stop; at once, where that is asked for twice."""
        leaving = asyncio.ensure_future(self._leave())
        forced = asyncio.ensure_future(self._forced.wait())
        await asyncio.wait((leaving, forced), return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if leaving.done():
            leaving.result()
        leaving.cancel()
        if self.grpc is not None:
            await self.grpc.aclose()
        await super().shutdown(sockets)
        # uvicorn would die of the signal now; a stop that was asked for is no failure.
        self._captured_signals.clear()

    async def _leave(self) -> None:
        """Be one that is going away, for as long as it takes others to see that; then drain."""
        self._node.retire()
        if self.grpc is not None:
            await self.grpc.retire()
        if self._part is not None:
            self._part.on_stop(False)
        await asyncio.sleep(self._node.limits.drain_delay_s)
        for server in self.servers:
            server.close()
        if self.grpc is not None:
            await self.grpc.drain()
        await self._node.drain()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.force_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._forced.set)


def base_url(listener: socket.socket, wanted: str, *, has_tls: bool) -> str:
    """Return where a server is that listens there; `wanted` is the host as the settings have it."""
    host, port = listener.getsockname()[:2]
    host = wanted if host in ("0.0.0.0", "::") else host  # noqa: S104  # compared, not bound
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if has_tls else 'http'}://{shown}:{port}"


def make_server(settings: Settings, on_ready: Callable[[str], None] | None = None, part: Part | None = None) -> Server:
    """Make the server that the settings describe, or a worker of it."""
    server = settings.server
    node = make_node(settings, title=part.title if part is not None else None)
    collect = part.collect if part is not None else None
    bounds = Bounds(settings.limits, node.turnstile, node.counters, node.trusted_proxies)
    http, websocket = _protocols(bounds, has_tls=server.tls_cert is not None)
    rtc = make_host(node, settings.rtc, server.host)
    config = uvicorn.Config(
        make_app(node, jsonp=settings.auth.jsonp, metrics_open=server.metrics_open, collect=collect, rtc=rtc),
        host=server.host,
        port=server.port,
        http=http,
        ws=websocket,
        ws_max_size=settings.limits.frame_max_bytes,
        ws_per_message_deflate=settings.limits.deflate,
        ws_ping_interval=None,
        ssl_certfile=server.tls_cert,
        ssl_keyfile=server.tls_key,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=settings.limits.idle_s,  # type: ignore[arg-type]  # a whole number says uvicorn; any will do
        timeout_graceful_shutdown=5,
        backlog=4096,
    )
    return Server(config, node, on_ready, part, make_grpc(settings, node, shares_port=part is not None), rtc)


def _protocols(bounds: Bounds, *, has_tls: bool) -> tuple[type[asyncio.Protocol], type[asyncio.Protocol]]:
    """Return what speaks HTTP and WebSocket: with TLS HTTP/2 too, and only then is its library loaded."""
    if not has_tls:
        return direct_protocols(bounds)
    from tellwire.transports.secure import secure_protocols

    return secure_protocols(bounds)


def run(
    settings: Settings,
    on_ready: Callable[[str], None],
    part: Part | None = None,
    *,
    on_grpc: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `on_ready` is called with the base URL once connections are taken.

    Where gRPC is served, `on_grpc` is called with its address before that.
    """
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    too_few = raise_descriptor_limit(settings.limits.connections_max, settings.server.ports)

    def say(url: str) -> None:
        if on_grpc is not None and server.grpc is not None:
            on_grpc(server.grpc.url)
        on_ready(url)
        if too_few is not None:
            logging.getLogger("tellwire").warning("%s", too_few)

    server = make_server(settings, say, part)
    # Connections are many and live long. Python's defaults walk over all of them every 70,000 allocations, which with
    # 10,000 connections took a tenth of the time and showed in the latency of those that were waiting.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    server.run(part.sockets if part is not None else None)
