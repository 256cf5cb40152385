"""An application whose handlers do what names tell them to, deep under a prefix, and without a lifespan.

A user ``refuse`` is refused, ``raise`` makes the handler fail, and so on; in channels and methods the word stands after
the colon. ``GET /asked`` shows whom the handlers were asked about, and
``POST /order/...`` calls a method of Tellwire; ``GET /connections`` counts them by transport.
"""

import asyncio
import itertools
from dataclasses import asdict, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from tellwire import Client, ConnectRequest, Disconnected, Forbidden, Grants, Identity, Occupancy, Publishing, Tellwire

tellwire = Tellwire(hook_timeout_s=1.0, page=True)
asked: list[Any] = []
numbers = itertools.count()


async def misbehave(word: str) -> Any:
    """Do what a word says."""
    match word:
        case "refuse":
            raise Forbidden("not you")
        case "raise":
            raise ZeroDivisionError("a secret")
        case "cancel":
            raise asyncio.CancelledError
        case "hang":
            await asyncio.Event().wait()
        case "stubborn":
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    asked.append("stubborn")
                    break
        case "nonsense":
            return 42
    return None


def note(hook: str, client: Client) -> None:
    asked.append([hook, client.user, client.info, client.transport, client.client])


@tellwire.on_connect
async def on_connect(request: ConnectRequest) -> Identity | None:
    user = request.query.get("user", "ann")
    if (found := await misbehave(user)) is not None:
        return found  # type: ignore[no-any-return]
    info = b"{\n}" if user == "lines" else b'{"name":"Ann"}'
    return Identity(user=user, info=info, grants=Grants.ALL)


@tellwire.authorize
async def authorize(client: Client, operation: str, name: str) -> bool | None:
    return await misbehave(name.removeprefix("authorize:"))  # type: ignore[no-any-return]


@tellwire.on_subscribe
async def on_subscribe(client: Client, channel: str) -> None:
    note("subscribe", client)
    return await misbehave(channel.removeprefix("subscribe:"))  # type: ignore[no-any-return]


@tellwire.on_publish
async def on_publish(client: Client, message: Publishing) -> Publishing | None:
    note("publish", client)
    word = message.channel.removeprefix("publish:")
    match word:
        case "alter":
            return replace(message, data={"was": message.data, "by": client.user}, event="altered", key="k")
        case "elsewhere":
            return replace(message, channel="news")
        case "unsendable":
            return replace(message, data=object())
        case "large":
            return replace(message, data="x" * 100_000)
        case "reserved":
            return replace(message, event="gap")
        case "later":
            # The first takes longest, so that nothing but the queue can keep the order; none is near its deadline.
            for _ in range(5 - next(numbers) % 5):
                await asyncio.sleep(0)
            if message.data == "no":
                raise Forbidden("no")
            return replace(message, data=[message.data])
    return await misbehave(word)  # type: ignore[no-any-return]


@tellwire.on_disconnect
async def on_disconnect(gone: Disconnected) -> None:
    asked.append(["disconnect", gone.user, gone.info, gone.transport, gone.client])
    raise ZeroDivisionError("nobody waits for it")


@tellwire.rpc("do")
async def do(client: Client, data: Any) -> Any:
    note("call", client)
    if data == "unsendable":
        return object()
    if data == "bytes":
        return {"bytes": b"\0"}
    return await misbehave(str(data))


@tellwire.rpc
def echo(client: Client, data: Any) -> Any:
    return data


async def show(request: Request) -> JSONResponse:
    return JSONResponse(asked)


async def order(request: Request) -> JSONResponse:
    found = await getattr(tellwire, request.path_params["what"])(**await request.json())
    return JSONResponse(asdict(found) if isinstance(found, Occupancy) else None)


async def count(request: Request) -> JSONResponse:
    return JSONResponse(tellwire._running_node().counters.connections)


routes = [Mount("/b/c", tellwire.asgi), Route("/asked", show), Route("/order/{what}", order, methods=["POST"])]
routes.append(Route("/connections", count))
inner = Starlette(routes=routes)
app = Starlette(routes=[Mount("/a", inner)])
