"""Tellwire inside Litestar, where a function decides each time: ``uvicorn litestar_app:app``."""

from litestar import Litestar, asgi, get, post
from litestar.types import Receive, Scope, Send

from tellwire import Client, Tellwire

tellwire = Tellwire(broker="memory://")


@asgi("/realtime", is_mount=True, copy_scope=True)
async def realtime(scope: Scope, receive: Receive, send: Send) -> None:
    await tellwire.asgi(scope, receive, send)


@tellwire.authorize
def authorize(client: Client, operation: str, name: str) -> bool:
    return operation == "subscribe" and name.startswith("news")


@post("/news")
async def post_news(text: str) -> str:
    published = await tellwire.publish("news", {"text": text}, event="headline")
    return str(published.position)


@get("/news")
async def get_news(last: int = 10) -> list[str]:
    history = await tellwire.read("news", last=last)
    return [message.data["text"] for message in history.messages]


app = Litestar([realtime, post_news, get_news], lifespan=[tellwire.lifespan])
