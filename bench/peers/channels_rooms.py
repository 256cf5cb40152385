"""Django Channels on uvicorn: rooms by path as groups, over the in-memory layer.

That layer is the fastest there is for one process; its documentation names Redis for more than one. Its capacity is
raised so that it drops nothing. `/pub` publishes to the group of `/sub`; any other path is a member of its own group.
"""

import sys

import django
import uvicorn
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.conf import settings
from django.urls import re_path

settings.configure(
    SECRET_KEY="bench",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={
        "default": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 1_000_000}},
    },
)
django.setup()


class Talk(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        path = self.scope["path"].strip("/").replace("/", ".")
        self.room = "sub" if path == "pub" else path
        if path != "pub":
            await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send(self.room, {"type": "said", "text": text_data})

    async def said(self, event: dict[str, str]) -> None:
        await self.send(text_data=event["text"])


if __name__ == "__main__":
    uvicorn.run(
        URLRouter([re_path(r"", Talk.as_asgi())]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        access_log=False,
        lifespan="off",
        log_level="warning",
    )
