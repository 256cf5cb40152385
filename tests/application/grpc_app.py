"""An application that is asked over HTTP where its gRPC is, and who comes in there."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from tellwire import Client, ConnectRequest, Grants, Identity, Tellwire, Unauthorized

tellwire = Tellwire(grpc_port=0)


@tellwire.on_connect
async def on_connect(request: ConnectRequest) -> Identity:
    if request.headers.get("authorization") != "Bearer ann":
        raise Unauthorized("say who you are")
    return Identity(user="ann", grants=Grants.of({"subscribe": ["*"], "publish": ["*"], "call": ["*"]}))


@tellwire.rpc
async def whoami(client: Client, data: object) -> object:
    return [client.user, client.transport, data]


async def where(request: Request) -> Response:
    return PlainTextResponse(str(tellwire.grpc_url))


app = Starlette(
    routes=[Route("/grpc", where), Mount("/realtime", tellwire.asgi)],
    lifespan=tellwire.lifespan,
)
