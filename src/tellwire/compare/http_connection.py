"""One HTTP/1.1 connection that says how many bytes of what passed were heads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, cast

import httptools

from tellwire.compare.failures import Unmeasured, answered
from tellwire.compare.site import Query, Site, reset

ANSWER_MAX_BYTES = 64 * 1024 * 1024
"""Largest answer that is taken."""
HEAD_MAX_BYTES = 64 * 1024
"""Largest head of one; httptools itself takes any."""


class Answer(NamedTuple):
    """What came for a request; the body is empty where it went elsewhere."""

    status: int
    content_type: str
    body: bytes


class HttpConnection(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._take: Callable[[bytes], None] | None = None
        self._head = b""
        self._is_head = False
        self._content_type = ""
        self._body = bytearray()
        self.heads_up = 0
        self.heads_down = 0
        self.on_lost: Callable[[], None] = lambda: None
        """Called when the other side has closed it, or the answer to the last request has ended."""

    async def open(self) -> None:
        """Connect; raises Unmeasured."""
        await self._site.dial(self)

    @property
    def is_open(self) -> bool:
        """Whether something can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(
        self,
        path: str,
        query: Query | None = None,
        *,
        body: bytes | None = None,
        take: Callable[[bytes], None] | None = None,
    ) -> Answer:
        """Ask, and return the whole answer; with `take` its head only, and hand over the body as it comes.

        Raises Unmeasured for an answer that is not 200, and where the connection breaks.
        """
        fields = self._site.fields()
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        line = f"{'GET' if body is None else 'POST'} {self._site.target(path, query)} HTTP/1.1"
        head = "\r\n".join([line, *(f"{name}: {value}" for name, value in fields.items()), "", ""]).encode()
        if self._transport is None or self._transport.is_closing():
            raise Unmeasured("broken", f"{self._site.netloc} closed the connection")
        self.heads_up += len(head)
        self._parser = httptools.HttpResponseParser(self)
        self._answer = asyncio.get_running_loop().create_future()
        self._take, self._is_head, self._head, self._content_type = take, True, b"", ""
        self._body.clear()
        self._transport.write(head + (body or b""))
        answer = await self._answer
        if answer.status != 200:
            raise answered(*answer)
        return answer

    def abort(self) -> None:
        """Cut it (RST), as a network does that is suddenly gone."""
        self.on_lost = lambda: None
        reset(self._transport)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by inheritance.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._is_head:
            before = len(self._head)
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            self.heads_down += len(data) if end < 0 else end + 4 - before
            self._is_head = end < 0
            if self._is_head and len(self._head) > HEAD_MAX_BYTES:
                self._fail(Unmeasured("broken", f"the head of an answer has more than {HEAD_MAX_BYTES} bytes"))
                return
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._fail(Unmeasured("broken", f"what came is not HTTP: {exc}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Unmeasured("broken", f"the connection to {self._site.netloc} broke{f': {exc}' if exc else ''}"))
        self.on_lost()

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._content_type = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._take is not None and self._status == 200:
            self._done()

    def on_body(self, body: bytes) -> None:
        if self._take is not None and self._status == 200:
            self._take(body)
            return
        self._body += body
        if len(self._body) > ANSWER_MAX_BYTES:
            self._fail(Unmeasured("broken", f"an answer has more than {ANSWER_MAX_BYTES} bytes"))

    def on_message_complete(self) -> None:
        is_stream = self._answer is not None and self._answer.done()
        self._done()
        if is_stream:
            self.on_lost()

    @property
    def _status(self) -> int:
        assert self._parser is not None
        status: int = self._parser.get_status_code()
        return status

    def _done(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(self._status, self._content_type, bytes(self._body)))

    def _fail(self, why: Unmeasured) -> None:
        self._parser = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(why)
        if self._transport is not None:
            self._transport.abort()
