"""The porch: routes, the ASGI application, and the server that runs it."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from tellwire import __version__
from tellwire.advise import RULES, SHIPPED
from tellwire.auth import Access, Identity
from tellwire.brokers import make_broker
from tellwire.config import Settings
from tellwire.counters import Counters
from tellwire.errors import MethodNotAllowed, NotAnUpgrade, NotFound, TellwireError
from tellwire.hooks import Hooks
from tellwire.hub import Tracer
from tellwire.ice import IceServers
from tellwire.limits import raise_descriptor_limit
from tellwire.names import Namespaces
from tellwire.node import OPEN, OPEN_TO_ALL, Caller, Entrance, Node, Title, own_title
from tellwire.presence import make_presence
from tellwire.transports.admin import admin_doors
from tellwire.transports.direct import Bounds, direct_protocols
from tellwire.transports.ice import IceServersEndpoint
from tellwire.transports.polling import PollEndpoint
from tellwire.transports.presence import CallEndpoint, PresenceEndpoint, SendEndpoint
from tellwire.transports.publishing import PublishEndpoint
from tellwire.transports.requests import (
    Answer,
    Endpoint,
    RawHeaders,
    Receive,
    Scope,
    Send,
    check_access,
    handshake,
    header,
    problem,
)
from tellwire.transports.rtc import make_host
from tellwire.transports.rtc.endpoint import RtcEndpoint, RtcHost
from tellwire.transports.streams import EventsEndpoint, LinesEndpoint
from tellwire.transports.websocket import WebSocketEndpoint

if TYPE_CHECKING:
    from tellwire.transports.grpc.server import GrpcServer

CONSOLE = Path(__file__).parent / "console"

PACKED_CLIENT = Path(__file__).parent / "client_js"
CLIENT = PACKED_CLIENT if PACKED_CLIENT.is_dir() else Path(__file__).parents[2] / "clients" / "js" / "src"
"""The JavaScript client: a wheel has a copy of it, a checkout the thing itself."""

GC_THRESHOLD = (10_000, 20, 20)
"""Objects made before the youngest of them are looked through, and how often the older ones are (gc.set_threshold)."""

ALLOWED_HEADERS = b"Content-Type, Idempotency-Key, Last-Event-ID, Authorization, Traceparent"


Collect = Callable[[], Awaitable[dict[int, bytes]]]
"""Returns the metrics of the other workers of a server, by their numbers (see `tellwire.metrics.pack`)."""


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


class Preflight:
    """Answers a page that asks first whether it may (Fetch standard, section 3.3.2), for a path's methods.

    `fields` are what the answer says besides.
    """

    def __init__(self, access: Access, methods: Mapping[str, Any], fields: RawHeaders | None = None) -> None:
        self._access = access
        self._methods = methods
        self._fields = fields or []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._methods.get(scope["method"])
        if endpoint is not None:
            await endpoint(scope, receive, send)
            return
        names = ", ".join(sorted({*self._methods, "OPTIONS"})).encode()
        if scope["method"] != "OPTIONS":
            error = MethodNotAllowed(f"{scope['path']} takes {names.decode()}, not {scope['method']}")
            await problem(error).send(send, [(b"allow", names)])
            return
        try:
            fields = check_access(scope, self._access)
        except TellwireError as exc:
            await problem(exc).send(send)
            return
        fields += [
            (b"allow", names),
            (b"access-control-allow-methods", names),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", b"600"),
            *self._fields,
        ]
        await send({"type": "http.response.start", "status": 204, "headers": fields})
        await send({"type": "http.response.body", "body": b""})


def make_app(
    node: Node,
    *,
    jsonp: bool = False,
    metrics_open: bool = False,
    page: bool = True,
    collect: Collect | None = None,
    rtc: RtcHost | None = None,
) -> Starlette:
    """Make the ASGI application of a node, which it opens and closes with its own lifespan.

    `jsonp` lets scripts read, `metrics_open` lets everybody see /metrics, `page` has the page at ``/``; `collect` asks
    for the metrics of other workers, `rtc` takes data channels. It can be mounted under any prefix (``root_path``).
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if not node.ready:
            await node.open()
        try:
            if rtc is not None:
                await rtc.open()
            yield
        finally:
            await node.aclose()
            if rtc is not None:
                await rtc.aclose()

    poll = PollEndpoint(node, jsonp=jsonp)
    presence = PresenceEndpoint(node)
    doors: dict[str, dict[str, Any]] = {
        "/v1/messages": {"GET": poll, "POST": PublishEndpoint(node)},
        "/v1/events": {"GET": (events := EventsEndpoint(node)), "HEAD": events},
        "/v1/stream": {"GET": (lines := LinesEndpoint(node)), "HEAD": lines},
        "/v1/presence": {"GET": presence, "POST": presence},
        "/v1/send": {"POST": SendEndpoint(node)},
        "/v1/call": {"POST": CallEndpoint(node)},
        "/v1/ice-servers": {"GET": IceServersEndpoint(node)},
        "/v1/ws": {"GET": UpgradeRequired(node)},
        "/metrics": {"GET": MetricsEndpoint(node, is_open=metrics_open, collect=collect)},
        **admin_doors(node),
    }

    def page_of(name: str) -> Route:
        async def show(_: Request) -> Response:
            return FileResponse(CONSOLE / f"{name or 'index'}.html", headers=_PAGE_HEADERS)

        return Route(f"/{name}", show)

    def data_of(file: Path) -> Route:
        async def show(_: Request) -> Response:
            return FileResponse(file, media_type="application/json", headers=_DATA_HEADERS)

        return Route(f"/advise/{file.name}", show)

    async def healthy(_: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__})

    async def ready(_: Request) -> Response:
        return JSONResponse({"ready": node.ready, "draining": node.draining}, status_code=200 if node.ready else 503)

    async def describe(request: Request) -> Response:
        from tellwire.openapi import document  # it is made where somebody looks

        prefix = request.scope.get("root_path", "")
        cookie = node.entrance.cookie or "tellwire_token"
        described = document(prefix=prefix, limits=node.limits, jsonp=jsonp, rtc=rtc is not None, cookie=cookie)
        return JSONResponse(described)

    console: list[BaseRoute] = []
    if page:
        console = [*map(page_of, ("", "advise", "doctor")), *map(data_of, (RULES, SHIPPED))]
        console.append(Mount("/console", StaticFiles(directory=CONSOLE)))

    preflights = {path: Preflight(node.access, methods) for path, methods in doors.items()}
    session: list[BaseRoute] = []
    if rtc is not None:
        offers = RtcEndpoint(node, rtc)
        # RFC 9725, section 4.1
        preflights["/v1/rtc"] = Preflight(node.access, {"POST": offers}, [(b"accept-post", b"application/sdp")])
        session = [Route("/v1/rtc/{id}", Preflight(node.access, {"DELETE": offers}))]
    websocket = WebSocketEndpoint(node)
    return Application(
        {("websocket", "/v1/ws"): websocket, **{("http", path): door for path, door in preflights.items()}},
        routes=[
            WebSocketRoute("/v1/ws", websocket),
            *(Route(path, door) for path, door in preflights.items()),
            *session,
            *console,
            Mount("/client", Modules(directory=CLIENT)),
            Route("/healthz", healthy),
            Route("/readyz", ready),
            Route("/openapi.json", describe),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: _explain},
    )


class Application(Starlette):
    """Starlette, but that what has a path of its own does not go through its middleware and its list of routes."""

    def __init__(self, direct: Mapping[tuple[str, str], Any], **settings: Any) -> None:
        super().__init__(**settings)
        self._direct = direct

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        endpoint = self._direct.get((scope["type"], scope.get("path", "")), super().__call__)
        await endpoint(scope, receive, send)


class Modules(StaticFiles):
    """ES modules for pages of any origin: they are the same for everybody, and say nothing of who asks."""

    def file_response(self, *args: Any, **settings: Any) -> Response:
        response = super().file_response(*args, **settings)
        response.headers.update(_MODULE_HEADERS)
        return response


class UpgradeRequired(Endpoint):
    """What a plain request gets where a WebSocket is to be opened (RFC 9110, section 15.5.22)."""

    transport = "websocket"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem(
            NotAnUpgrade("this is where WebSockets are opened; ask with a WebSocket client, at ws:// or wss://")
        )
        await answer.send(send, [(b"upgrade", b"websocket"), (b"connection", b"upgrade")])


class MetricsEndpoint(Endpoint):
    """``/metrics``, for Prometheus."""

    transport = "metrics"

    def __init__(self, node: Node, *, is_open: bool, collect: Collect | None = None) -> None:
        super().__init__(node)
        self._is_open = is_open
        self._collect = collect

    async def identify(self, scope: Scope) -> Caller:
        if self._is_open:
            return Caller(OPEN_TO_ALL, self.transport, handshake(self.node, scope, self.transport).address)
        return await super().identify(scope)

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        if not self._is_open:
            await self.node.allow(caller, "admin", ["metrics"])
        from tellwire.metrics import render  # it is loaded where somebody looks

        others = await self._collect() if self._collect is not None else None
        body, content_type = render(self.node, header(scope, b"accept") or "", others)
        return Answer(200, body, content_type.encode())


_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

_DATA_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-cache"}


_MODULE_HEADERS = {
    "content-type": "text/javascript; charset=utf-8",  # whatever this machine takes .js for
    "x-content-type-options": "nosniff",
    "access-control-allow-origin": "*",
    "cross-origin-resource-policy": "cross-origin",
    "cache-control": "no-cache",  # asked for again with its ETag, so that no page has half of an older version
}


async def _explain(request: Request, exc: Exception) -> Response:
    """Say in problem+json what Starlette's router has found."""
    assert isinstance(exc, HTTPException)
    path = request.url.path
    error = (
        MethodNotAllowed(f"{path} does not take {request.method}")
        if exc.status_code == 405
        else NotFound(f"there is nothing at {path[:200]}")
    )
    answer = problem(error)
    return Response(answer.body, error.status, headers=exc.headers, media_type=answer.content_type.decode())


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
        """Give every connection its slot to go elsewhere, then stop."""
        for server in self.servers:
            server.close()
        if self._part is not None:
            self._part.on_stop(False)
        if self.grpc is not None:
            await self.grpc.drain()
        await self._node.drain()
        if self.grpc is not None:
            await self.grpc.aclose()
        await super().shutdown(sockets)
        # uvicorn would die of the signal now; a stop that was asked for is no failure.
        self._captured_signals.clear()


def base_url(listener: socket.socket, wanted: str, *, has_tls: bool) -> str:
    """Return where a server is that listens there; `wanted` is the host as the settings have it."""
    host, port = listener.getsockname()[:2]
    host = wanted if host in ("0.0.0.0", "::") else host  # noqa: S104  # compared, not bound
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if has_tls else 'http'}://{shown}:{port}"


def make_node(
    settings: Settings, hooks: Hooks | None = None, *, embedded: bool = False, title: Title | None = None
) -> Node:
    """Make the node that the settings describe; raises ValueError or TellwireError where they cannot be met.

    With `hooks` the application is asked; else the backend is that the settings name, if they do. A node that is
    `embedded` in an application does not know who can reach it, so it is closed unless the settings say `open`.
    """
    namespaces = Namespaces(settings.namespaces)
    server, limits, auth = settings.server, settings.limits, settings.auth
    counters = Counters()
    if hooks is None:
        if settings.hooks.urls():
            from tellwire.webhooks import WebHooks

            hooks = WebHooks(settings.hooks, counters=counters)
        else:
            hooks = Hooks()
    hooks.counters = hooks.counters or counters
    is_open = server.open if embedded else not auth.has_key and hooks.connect is None
    verifier = None
    everyone: Identity | None = None
    if auth.has_key:
        from tellwire.auth import Verifier

        verifier = Verifier(auth)
        everyone = verifier.anonymous
    elif is_open:
        everyone = OPEN_TO_ALL if embedded or not server.is_on_loopback else OPEN
    elif hooks.connect is None and hooks.authorize is not None:
        everyone = Identity()  # nobody in particular, of whom the application decides each time
    node = Node(
        make_broker(server.broker, namespaces, dedupe_window_s=limits.dedupe_window_s),
        namespaces=namespaces,
        limits=limits,
        access=Access(server.origins, loopback_only=is_open and server.is_on_loopback and not server.open),
        entrance=Entrance(hooks, verifier, everyone, auth.token_cookie),
        hooks=hooks,
        presence=make_presence(server.broker),
        counters=counters,
        trusted_proxies=tuple(ipaddress.ip_network(text, strict=False) for text in server.trusted_proxies),
        revocation_s=auth.revocation_s,
        title=title or own_title(server.node_name),
        ice=IceServers(settings.ice),
    )
    if server.traces:
        node.hub.tracer = _make_tracer()
    return node


def _make_tracer() -> Tracer:
    try:
        from tellwire.telemetry import MessageTracer
    except ModuleNotFoundError as exc:
        raise ValueError(f"traces needs OpenTelemetry ({exc.name} is missing): install tellwire[otel]") from None
    return MessageTracer()


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


def make_grpc(settings: Settings, node: Node, *, shares_port: bool) -> GrpcServer | None:
    """Return what serves the node over gRPC, where the settings want that; only then are its libraries loaded."""
    server = settings.server
    if server.grpc_port is None:
        return None
    try:
        from tellwire.transports.grpc.server import GrpcServer, Keys
    except ModuleNotFoundError as exc:
        raise ValueError(f"grpc_port needs gRPC ({exc.name} is missing): install tellwire[grpc]") from None
    keys = None
    if server.tls_cert is not None and server.tls_key is not None:
        keys = Keys(server.tls_cert, server.tls_key, server.grpc_client_ca)
    return GrpcServer(node, server.host, server.grpc_port, keys, shares_port=shares_port)


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
    too_few = raise_descriptor_limit(settings.limits.connections_max)

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
