"""Requests to one server: the token, a deadline, and errors that say what happened."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from tellwire.client.failures import Failure, as_failure, refused
from tellwire.client.tokens import Tokens
from tellwire.client.wire import JSON, Incoming
from tellwire.errors import Unauthorized

Query = Sequence[tuple[str, str | int | None]]
"""Parameters; those that are None are left out."""


def bearer(token: str | None) -> dict[str, str]:
    """Return the header fields that carry a token; raises Failure for what cannot stand in one."""
    if not token:
        return {}
    if not (token.isascii() and token.isprintable() and " " not in token):
        # Not shown, as it may be a real token with something at its end.
        raise Failure(Unauthorized("the token holds characters that none has; it is three parts joined by dots"))
    return {"Authorization": f"Bearer {token}"}


class Http:
    """The HTTP side of one server.

    `url` is where Tellwire is, also below a path; ``ws`` and ``wss`` are understood as ``http`` and ``https``.
    """

    def __init__(self, url: str, tokens: Tokens, client: httpx.AsyncClient) -> None:
        try:
            parts = urlsplit(url)
            scheme = {"ws": "http", "wss": "https", "grpc": "http", "grpcs": "https"}.get(parts.scheme, parts.scheme)
            is_one = scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # of a port or an address in brackets
            is_one = False
        if not is_one:
            raise ValueError(f"{url!a} is not the address of a server; one looks like http://127.0.0.1:8000")
        self.base = urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/", "", ""))
        self.tokens = tokens
        self._client = client

    def websocket_url(self) -> str:
        """Return where WebSockets are opened."""
        return "ws" + self.base.removeprefix("http") + "v1/ws"

    @contextlib.asynccontextmanager
    async def ask(
        self, path: str, *, query: Query = (), body: Any = None, timeout_s: float, accept: str = "application/json"
    ) -> AsyncIterator[tuple[httpx.Response, asyncio.Timeout]]:
        """Ask; give the answer as soon as its head is there, and the deadline for what the caller awaits of it.

        Raises Failure, also for what goes wrong within. A token that has expired is renewed once.
        """
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                response = await self._send(path, query, body, accept)
                try:
                    yield response, deadline
                finally:
                    await response.aclose()
        except Exception as exc:
            failure = as_failure(exc)
            if failure.code == "timeout" and isinstance(exc, TimeoutError):
                failure.error.detail = f"{path}: no answer within {timeout_s:g} s"
            raise failure from exc

    async def _send(self, path: str, query: Query, body: Any, accept: str) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        params: Any = [(name, str(value)) for name, value in query if value is not None]
        is_renewed = False
        while True:
            token = await self.tokens.get()
            headers = {"Accept": accept, **bearer(token)}
            if content is not None:
                headers["Content-Type"] = "application/json"
            request = self._client.build_request(
                "GET" if content is None else "POST", self.base + path, params=params, content=content, headers=headers
            )
            response = await self._client.send(request, stream=True)
            if response.is_success:
                return response
            try:
                failure = refused(response.status_code, await response.aread(), response.headers.get("Retry-After"))
            finally:
                await response.aclose()
            if is_renewed or failure.code != "expired":
                raise failure
            self.tokens.expire(token)
            is_renewed = True

    async def json(self, path: str, *, query: Query = (), body: Any = None, timeout_s: float) -> Incoming:
        """Ask for one object."""
        async with self.ask(path, query=query, body=body, timeout_s=timeout_s) as (response, deadline):
            content = bytearray()
            async for chunk in response.aiter_bytes():
                # A long answer over a slow line may take its time, as long as it comes.
                deadline.reschedule(asyncio.get_running_loop().time() + timeout_s)
                content += chunk
            return JSON.decode(bytes(content))

    async def json_list(self, path: str, *, body: Any, timeout_s: float) -> list[Incoming]:
        """Ask for a list of objects."""
        async with self.ask(path, body=body, timeout_s=timeout_s) as (response, _):
            return JSON.decode_list(await response.aread())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()
