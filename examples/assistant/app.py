"""An assistant whose answer comes word by word, and is not lost when the connection is.

.venv/bin/pip install -q fastapi && .venv/bin/python examples/assistant/app.py

Then open http://127.0.0.1:8002/assistant/. The answer is written into a channel by a task of its own, whoever reads it
or not; the handler reads that channel from where the browser was. Cut the connection, or reload: nothing is missing.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Body, Depends, FastAPI, Header, HTTPException
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles

from tellwire import Gap, Tellwire, TellwireError
from tellwire.names import Namespace

# Not mounted: only the handlers below read and publish, so the application's own rules say who may.
tellwire = Tellwire(open=True, namespaces=[Namespace(name="answer", history_messages=5000, history_age_s=3600)])
app = FastAPI(lifespan=tellwire.lifespan)
app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
writing: set[asyncio.Task[None]] = set()
TOKEN_S = float(os.environ.get("TOKEN_S", "0.06"))


async def generate(question: str) -> AsyncIterator[str]:
    """Stand in for a model: yield an answer in pieces."""
    answer = (
        f"You asked: “{question}” I am a few lines of Python and know nothing, but I can show how an answer travels. "
        "Each of these words is a message in the log of a channel that is this answer's own. Your browser reads it as "
        "Server-Sent Events, and each event's id is the place behind it. When the connection breaks, the browser comes "
        "back with the last id it had, and the log goes on from there: no word is missing, and none comes twice. "
        "Meanwhile I went on writing, as nothing here waits for you."
    )
    for word in answer.split(" "):
        await asyncio.sleep(TOKEN_S)
        yield word + " "


async def write(channel: str, question: str) -> None:
    try:
        async for token in generate(question):
            await tellwire.publish(channel, token, event="token")
        await tellwire.publish(channel, "", event="done")  # an event without data is none to a browser
    except Exception:
        await tellwire.publish(channel, "The answer could not be written.", event="failed")
        raise


@app.post("/answers")
async def ask(question: Annotated[str, Body(embed=True, max_length=500)]) -> dict[str, str]:
    answer = secrets.token_urlsafe(16)  # who knows it may read it
    await tellwire.publish(f"answer:{answer}", question, event="question")
    task = asyncio.create_task(write(f"answer:{answer}", question))
    writing.add(task)  # else nothing would keep it
    task.add_done_callback(writing.discard)
    return {"answer": answer}


async def find(answer: str) -> str:
    """Return the channel of an answer; one that nobody asked for would be waited for without end."""
    try:
        known = await tellwire.read(f"answer:{answer}", limit=1)
    except TellwireError:
        raise HTTPException(404) from None
    if not known.messages:
        raise HTTPException(404)
    return f"answer:{answer}"


@app.get("/answers/{answer}", response_class=EventSourceResponse)
async def read(
    channel: Annotated[str, Depends(find)], last_event_id: Annotated[str, Header()] = "earliest"
) -> AsyncIterator[ServerSentEvent]:
    async with tellwire.subscribe(channel, since=last_event_id) as messages:
        async for message in messages:
            if isinstance(message, Gap):  # an hour later, or after a restart
                yield ServerSentEvent(event="failed", data="This answer is no longer kept.")
                return
            yield ServerSentEvent(event=message.event, id=message.position, data=message.data)
            if message.event in ("done", "failed"):
                return


app.mount("/", StaticFiles(directory=Path(__file__).parent.parent, html=True))

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8002")), timeout_graceful_shutdown=5)
