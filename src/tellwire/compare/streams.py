"""Readers of streams over HTTP: Server-Sent Events and NDJSON (spec, sections 8.4 and 8.5)."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

import msgspec

from tellwire.compare.failures import Unmeasured
from tellwire.compare.http_connection import HttpConnection
from tellwire.compare.polling import TextMessage
from tellwire.compare.reader import Reader, Take
from tellwire.compare.site import Site
from tellwire.protocol.sse import EventParser

LINE_MAX_BYTES = 16 * 1024 * 1024
"""Longest line of a stream that is taken."""


class _StreamReader(Reader):
    path = ""

    def __init__(self, site: Site, channel: str, take: Take, *, poll_s: float = 1.0) -> None:
        super().__init__(site, channel, take, poll_s=poll_s)
        self._connection = HttpConnection(site)
        self._live: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, since: str = "") -> None:
        await self._connection.open()
        self._connection.on_lost = self._ended
        query = {"channel": self.channel, **({"since": since} if since else {})}
        await self._connection.ask(self.path, query, take=self._read)
        # The head alone proves nothing: a proxy that keeps the stream to itself passes it on at once.
        await self._live

    def abort(self) -> None:
        self._connection.abort()

    @property
    def heads(self) -> tuple[int, int]:
        return self._connection.heads_up, self._connection.heads_down

    def is_live(self) -> None:
        """The server has said where the reading stands."""
        if not self._live.done():
            self._live.set_result(None)

    def fail(self, why: Unmeasured) -> None:
        super().fail(why)
        if not self._live.done():
            self._live.set_exception(why)
            self._live.exception()

    def _ended(self) -> None:
        self.fail(Unmeasured("broken", f"the stream from {self.site.netloc} ended"))

    def _read(self, chunk: bytes) -> None:
        try:
            self.arrivals += self.read(chunk)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            self.fail(Unmeasured("broken", f"what came is not this protocol: {exc}"))
            self.abort()

    @abstractmethod
    def read(self, chunk: bytes) -> bool:
        """Take what came; tell whether messages were in it."""


class SseReader(_StreamReader):
    """Reads Server-Sent Events, as an EventSource does."""

    path = "/v1/events"

    def __init__(self, site: Site, channel: str, take: Take, *, poll_s: float = 1.0) -> None:
        super().__init__(site, channel, take, poll_s=poll_s)
        self._parser = EventParser()
        self._decode = msgspec.json.Decoder(str).decode

    def read(self, chunk: bytes) -> bool:
        has_messages = False
        for event in self._parser.feed(chunk):
            if event.event == "message":
                has_messages = True
                self.take(self._decode(event.data))
        if self._parser.last_event_id:
            self.cursor = self._parser.last_event_id
            self.is_live()
        return has_messages


class _Line(TextMessage):
    cursor: str = ""
    epoch: str = ""


class NdjsonReader(_StreamReader):
    """Reads an NDJSON stream, as a program does."""

    path = "/v1/stream"

    def __init__(self, site: Site, channel: str, take: Take, *, poll_s: float = 1.0) -> None:
        super().__init__(site, channel, take, poll_s=poll_s)
        self._rest = b""
        self._epoch = ""
        self._decode = msgspec.json.Decoder(_Line).decode

    def read(self, chunk: bytes) -> bool:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_MAX_BYTES:
            raise ValueError(f"a line has more than {LINE_MAX_BYTES} bytes")
        has_messages = False
        for line in lines:
            if not line:
                continue
            push = self._decode(line)
            if push.type == "connected":
                self.cursor = push.cursor
                self._epoch = push.epoch
                self.is_live()
            elif push.type == "message":
                has_messages = True
                self.cursor = f"{self._epoch}.{push.seq}"
                self.take(push.data)
        return has_messages
