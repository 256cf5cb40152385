"""The token, and who gives a new one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from tellwire.client.failures import Failure, as_failure
from tellwire.errors import Unauthorized

TokenSource = str | Callable[[], str | Awaitable[str | None] | None] | None
"""A token, or a function that gets one: it is asked again when the server says that the token has expired, and a little
before. Whatever it raises is a failure to be tried again, but for a TellwireError that is final."""


class Tokens:
    """Keeps the present token."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._token: str | None = None
        self._is_known = False
        self._asking = asyncio.Lock()

    @property
    def can_renew(self) -> bool:
        """Whether there is somebody to ask for another one."""
        return callable(self._source)

    async def get(self) -> str | None:
        """Return the token, None where there is none; raises Failure where none can be got."""
        async with self._asking:
            if not self._is_known:
                self._token = await self._ask()
                self._is_known = True
            return self._token

    async def _ask(self) -> str | None:
        if not callable(self._source):
            return self._source
        try:
            answer = self._source()
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as exc:
            raise as_failure(exc) from exc

    def forget(self, token: str | None = None) -> None:
        """Ask anew the next time; where a token is named, only if it is still that one."""
        if token is None or token == self._token:
            self._is_known = False

    def expire(self, token: str | None = None) -> None:
        """Forget a token that the server does not take any more; raises Failure where there is no other."""
        if not self.can_renew:
            raise Failure(
                Unauthorized("the token has expired; give `token` as a function that gets a fresh one each time")
            )
        self.forget(token)
