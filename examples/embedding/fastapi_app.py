"""Tellwire inside FastAPI: ``uvicorn fastapi_app:app``."""

import secrets
from typing import Annotated, Any

from fastapi import Cookie, FastAPI, HTTPException, Response

from tellwire import Client, ConnectRequest, Grants, Identity, Tellwire, Unauthorized

tellwire = Tellwire()
app = FastAPI(lifespan=tellwire.lifespan)
app.mount("/realtime", tellwire.asgi)
users: dict[str, str] = {}  # by their session


@app.post("/login")
def log_in(user: str, response: Response) -> None:
    users[session := secrets.token_urlsafe()] = user  # a real one asks for a password
    response.set_cookie("session", session, httponly=True, samesite="lax")


@tellwire.on_connect
def on_connect(request: ConnectRequest) -> Identity:
    if (user := users.get(request.cookies.get("session", ""))) is None:
        raise Unauthorized("log in first")
    return Identity(user=user, grants=Grants.of({"subscribe": ["news", f"user:{user}"], "call": ["*"]}))


@app.post("/news")
async def post_news(text: str, session: Annotated[str, Cookie()] = "") -> str:
    if session not in users:
        raise HTTPException(401)
    published = await tellwire.publish("news", {"from": users[session], "text": text})
    return str(published.position)


@tellwire.rpc
async def shout(client: Client, data: Any) -> str:
    return f"{client.user}: {str(data).upper()}"
