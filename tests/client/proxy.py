"""A TCP proxy between client and server, which does to what passes what networks do."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

CHUNK_BYTES = 65_536


class Proxy:
    """Listens on a port of its own and passes on; its attributes say what goes wrong from now on.

    Args:
        upstream: Port of the server; may be changed when that comes back elsewhere.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.forbidden: set[str] = set()
        """Requests whose first line has one of these texts in it are cut off."""
        self.refused: set[str] = set()
        """Requests whose first line has one of these are answered with 403 by the proxy."""
        self.buffered: set[str] = set()
        """Answers to requests whose first line has one of these do not get past their head."""
        self.is_silent = False
        """Nothing is passed on, and no connection is closed."""
        self.pieces = 1
        """In how many pieces each chunk goes on."""
        self.delay_s = 0.0
        """How much later each chunk goes on."""
        self.corrupt_after: int | None = None
        """After so many bytes more, one chunk to the client is garbage; then None again."""
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut every connection (RST)."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        back: asyncio.Task[None] | None = None
        upstream: asyncio.StreamWriter | None = None
        state = {"is_buffered": False}
        try:
            answers, upstream = await asyncio.open_connection("127.0.0.1", self.upstream)
            self._writers.add(upstream)
            back = asyncio.create_task(self._answer(answers, writer, state))
            while data := await reader.read(CHUNK_BYTES):
                line = data.partition(b"\r\n")[0].decode("latin-1")
                if any(text in line for text in self.forbidden):
                    return
                if any(text in line for text in self.refused):
                    writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno")
                    await writer.drain()
                    return
                if line.startswith(("GET ", "POST ")):
                    state["is_buffered"] = any(text in line for text in self.buffered)
                await self._pass_on(data, upstream)
        except OSError:
            return
        finally:
            if back is not None:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
            for each in (writer, upstream):
                if each is not None:
                    self._writers.discard(each)
                    each.close()

    async def _answer(
        self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, state: dict[str, bool]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await answers.read(CHUNK_BYTES):
                if state["is_buffered"]:
                    data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if data.startswith(b"HTTP/") else b""
                if self.corrupt_after is not None:
                    self.corrupt_after -= len(data)
                    if self.corrupt_after < 0:
                        self.corrupt_after, data = None, b"\xff" * len(data)
                await self._pass_on(data, writer)
        writer.close()

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        size = max(1, len(data) // self.pieces)
        for at in range(0, len(data), size):
            if self.is_silent:
                return
            writer.write(data[at : at + size])
            await writer.drain()
