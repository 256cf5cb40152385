"""The routes: what is at which path, and the ASGI application of them all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from tellwire import __version__
from tellwire.auth import Access
from tellwire.errors import MethodNotAllowed, NotAnUpgrade, NotFound, TellwireError
from tellwire.node import OPEN_TO_ALL, Caller, Node
from tellwire.server.pages import client_route, page_routes
from tellwire.transports.admin import admin_doors
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
from tellwire.transports.rtc.endpoint import RtcEndpoint, RtcHost
from tellwire.transports.streams import EventsEndpoint, LinesEndpoint
from tellwire.transports.websocket import WebSocketEndpoint

ALLOWED_HEADERS = b"Content-Type, Idempotency-Key, Last-Event-ID, Authorization, Traceparent"


Collect = Callable[[], Awaitable[dict[int, bytes]]]
"""Returns the metrics of the other workers of a server, by their numbers (see `tellwire.metrics.pack`)."""


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
            *(page_routes() if page else ()),
            client_route(),
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
