"""Tellwire inside Starlette, with tokens: ``uvicorn starlette_app:app``."""

import secrets
from dataclasses import replace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from tellwire import Client, Forbidden, Publishing, Tellwire

tellwire = Tellwire(token_key=secrets.token_hex())  # a real one is kept where tokens are to outlive a restart


async def get_token(request: Request) -> JSONResponse:
    user = request.query_params["user"]  # a real one asks for a password
    rooms = ["room:*"]
    return JSONResponse({"token": tellwire.token(user, subscribe=rooms, publish=rooms, presence=rooms)})


async def who_is_here(request: Request) -> JSONResponse:
    occupancy = await tellwire.presence(f"room:{request.path_params['room']}")
    return JSONResponse([member.user for member in occupancy.members or ()])


@tellwire.on_publish
def on_publish(client: Client, message: Publishing) -> Publishing:
    if not isinstance(message.data, str):
        raise Forbidden("only texts are taken here")
    return replace(message, data={"from": client.user, "text": message.data})


routes = [
    Mount("/realtime", tellwire.asgi),
    Route("/token", get_token, methods=["POST"]),
    Route("/rooms/{room}", who_is_here),
]
app = Starlette(routes=routes, lifespan=tellwire.lifespan)
