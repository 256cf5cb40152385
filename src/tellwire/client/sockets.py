"""WebSockets as the client needs them, over the library `websockets`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from tellwire.client.failures import as_failure, closed_with, lost, refused

MESSAGE_MAX_BYTES = 64 * 1024 * 1024
"""Largest message that is taken from a server."""

CLOSE_TIMEOUT_S = 0.5
"""How long a close frame may take to be answered: what was acknowledged is safe, and a dead server never answers."""


class Socket(Protocol):
    """An open WebSocket."""

    async def send(self, frame: bytes | str) -> None:
        """Send one message; raises Failure."""

    async def receive(self) -> bytes | str:
        """Return the next message; raises Failure when there comes none any more, with the close code."""

    async def aclose(self) -> None:
        """Close it."""


OpenSocket = Callable[[str, str, dict[str, str]], Awaitable[Socket]]
"""Opens a WebSocket at an address with a subprotocol and header fields; raises Failure."""


class _Socket:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, frame: bytes | str) -> None:
        try:
            await self._connection.send(frame)
        except ConnectionClosed as exc:
            raise _closed(exc) from exc

    async def receive(self) -> bytes | str:
        try:
            return await self._connection.recv()
        except ConnectionClosed as exc:
            raise _closed(exc) from exc

    async def aclose(self) -> None:
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await self._connection.close()
        except TimeoutError:
            self._connection.transport.abort()


def _closed(exc: ConnectionClosed) -> Exception:
    if exc.rcvd is None:
        return lost(f"the connection broke: {exc}")
    return closed_with(exc.rcvd.code, exc.rcvd.reason)


def opener(tls: ssl.SSLContext) -> OpenSocket:
    """Return what opens WebSockets, over TLS with this context."""

    async def open_socket(url: str, subprotocol: str, fields: dict[str, str]) -> Socket:
        options: dict[str, Any] = {"ssl": tls} if url.startswith("wss:") else {}
        try:
            connection = await websocket_connect(
                url,
                subprotocols=[Subprotocol(subprotocol)],
                additional_headers=fields,
                # The server beats, and the client listens for that.
                ping_interval=None,
                # Deadlines are the caller's.
                open_timeout=None,
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=MESSAGE_MAX_BYTES,
                **options,
            )
        except InvalidStatus as exc:
            answer = exc.response
            failure = refused(answer.status_code, bytes(answer.body or b""), answer.headers.get("Retry-After"))
            # A proxy that forbids upgrades says nothing of credentials, but our server does, with a code.
            if failure.is_final and answer.headers.get("Content-Type") != "application/problem+json":
                failure = lost(f"the WebSocket was refused with {answer.status_code}")
            raise failure from exc
        except (WebSocketException, OSError, EOFError) as exc:
            raise as_failure(exc) from exc
        return _Socket(connection)

    return open_socket
