"""Hooks: where a node asks the application that it is part of, and tells it what happened.

A handler is a function, ``def`` or ``async def``. A ``def`` runs on the event loop and must not wait; what blocks
belongs into ``await asyncio.to_thread(...)`` in an ``async def`` (a thread cannot be stopped, so no deadline could be
kept for it here). Every ``async def`` runs in a task of its own, which is cancelled when its time is up.

A handler refuses by raising ``Forbidden`` or ``Unauthorized`` (or any other TellwireError): the client gets its code
and text. Anything else that it raises is logged with its traceback, and the client is told ``hook_failed`` and nothing
more. A handler that returns what its hook does not take has failed too: nothing is ever allowed by a mistake.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from tellwire.auth import Identity, Operation
from tellwire.errors import HookFailed, InvalidData, NotFound, TellwireError, Timeout
from tellwire.protocol.data import BYTES_KEY, check_json

_log = logging.getLogger("tellwire.hooks")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    """Somebody who wants to come in: what their handshake or request said.

    ``transport`` is one of websocket, sse, stream, longpoll, poll, publish, presence, send, call, admin. Header names
    are lower case; ``query`` has the first value of each parameter and never the token. The token has not been
    checked yet when a connect handler is asked.
    """

    token: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    path: str = "/"
    address: str | None = None
    transport: str = "websocket"
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: the public id of a client, and what is known of whoever is behind it."""

    client: str
    identity: Identity
    transport: str

    @property
    def user(self) -> str | None:
        return self.identity.user

    @property
    def info(self) -> Any:
        """What the token, or the connect handler, said about the user; None where nothing was said."""
        return None if self.identity.info is None else msgspec.json.decode(self.identity.info)


@dataclass(frozen=True, slots=True)
class Publishing:
    """A message on its way in. A publish handler may return ``dataclasses.replace(publishing, data=...)``.

    ``channel`` and ``id`` stay what they are: the one was what the publisher may write to, by the other retries are
    recognised.
    """

    channel: str
    data: Any
    event: str = "message"
    id: str | None = None
    key: str | None = None
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A connection that is over, also one of a node that died.

    ``since`` is when it began, in seconds since 1970; ``code`` its close code, None where there was none to see.
    """

    client: str
    user: str | None
    info: Any
    transport: str
    code: int | None
    reason: str
    since: float


class HookCounters(Protocol):
    """What counts hooks, if anything does (tellwire.counters); ``begin_s`` is of `time.perf_counter`."""

    def hooked(self, name: str, begin_s: float, *, failed: bool) -> None: ...


@dataclass(eq=False, repr=False)
class Hooks:
    """The application's handlers; those that are None are not asked, and then cost nothing.

    The fields are what an application sets. The methods are what a node calls; each raises what the handler raised
    (see the module), Timeout, or HookFailed.
    """

    connect: Callable[[ConnectRequest], Identity | Awaitable[Identity | None] | None] | None = None
    """Says who somebody is; None: their token does. May raise Unauthorized or Forbidden."""
    authorize: Callable[[Client, Operation, str], bool | Awaitable[bool | None] | None] | None = None
    """Asked with an operation and a name whether a client may; None: the token's grants decide."""
    subscribe: Callable[[Client, str], Awaitable[None] | None] | None = None
    """Asked before a client that may read a channel begins to; raises Forbidden to refuse."""
    publish: Callable[[Client | None, Publishing], Publishing | Awaitable[Publishing | None] | None] | None = None
    """Asked before a message is let in, without a client where the application itself publishes. Returns another
    Publishing to alter it, None to let it in as it is. Asked again if a publisher retries."""
    disconnect: Callable[[Disconnected], Awaitable[None] | None] | None = None
    """Told once for each connection that ended."""
    rpc: dict[str, Callable[[Client, Any], Any]] = field(default_factory=dict)
    """What clients may ``call``, by method."""
    call: Callable[[Client, str, Any], Any] | None = None
    """What answers the methods that are not in ``rpc``."""

    timeout_s: float | None = 5.0
    """Seconds that an ``async def`` may take; None where the handlers keep a deadline of their own."""
    counters: HookCounters | None = None
    _left: set[asyncio.Future[Any]] = field(default_factory=set, init=False, repr=False)

    async def ask_connect(self, request: ConnectRequest) -> Identity | None:
        """Return who this is, None if the token decides."""
        if self.connect is None:
            return None
        found: object = await self.run("connect", self.connect, request)
        if found is None:
            return None
        if isinstance(found, Identity):
            if _is_one_value(found.info):
                return found
            _log.error("the connect handler returned an Identity whose info is not the text of one JSON value")
            raise _failed("connect")
        raise _wrong("connect", found, "an Identity, or None to go on with the token")

    async def ask_authorize(self, client: Client, operation: Operation, name: str) -> bool | None:
        """Return whether a client may, None if its grants decide."""
        if self.authorize is None:
            return None
        found = await self.run("authorize", self.authorize, client, operation, name)
        if found is None or isinstance(found, bool):
            return found
        raise _wrong("authorize", found, "True, False, or None to let the token's grants decide")

    async def ask_subscribe(self, client: Client, channel: str) -> None:
        """Return if a client may read a channel."""
        if self.subscribe is not None:
            found: object = await self.run("subscribe", self.subscribe, client, channel)
            if found is not None:
                raise _wrong("subscribe", found, "None; it refuses by raising Forbidden")

    async def ask_publish(self, client: Client | None, publishing: Publishing) -> Publishing | None:
        """Return a message in whose place another is let in, None to let it in as it is.

        The data of what is returned is any value yet: `encode_value` makes it text, or fails.
        """
        if self.publish is None:
            return None
        found = await self.run("publish", self.publish, client, publishing)
        if found is None:
            return None
        if not isinstance(found, Publishing):
            raise _wrong("publish", found, "a Publishing, or None to let the message in as it is")
        if (found.channel, found.id) != (publishing.channel, publishing.id):
            raise _wrong("publish", found, "a Publishing of the same channel and id")
        return found  # the same one, too: its data may have been altered in place

    async def tell_disconnect(self, disconnected: Disconnected) -> None:
        """Tell the application; what goes wrong is logged, since nobody waits for it."""
        if self.disconnect is None:
            return
        try:
            await self.run("disconnect", self.disconnect, disconnected)
        except TellwireError as exc:
            _log.warning("the disconnect hook failed for client %s: %s", disconnected.client, exc)

    async def ask_call(self, client: Client, method: str, data: Any, timeout_s: float | None = None) -> Any:
        """Return what a method answers; raise NotFound where nothing does. See `encode_value` for the value."""
        handler = self.rpc.get(method)
        if handler is not None:
            return await self.run("call", handler, client, data, timeout_s=timeout_s)
        if self.call is not None:
            return await self.run("call", self.call, client, method, data, timeout_s=timeout_s)
        raise NotFound(f"there is no method {method[:60]!a} to call")

    async def run(
        self, hook: str, handler: Callable[..., T | Awaitable[T]], *arguments: Any, timeout_s: float | None = None
    ) -> T:
        """Call a handler as every handler is called; return what it returned.

        `timeout_s` shortens, and never lengthens, what handlers are given. If the caller is cancelled, so is the
        handler.
        """
        began = time.perf_counter()
        failed = True
        try:
            try:
                found = handler(*arguments)
                if inspect.isawaitable(found):
                    result: T = await self._finish(f"{hook} handler {_name(handler)}", found, timeout_s)
                else:
                    result = found
            except TellwireError as exc:
                failed = exc.status >= 500
                raise
            except Exception as exc:
                _log.exception("the %s handler %s failed", hook, _name(handler))
                raise _failed(hook) from exc
            failed = False
            return result
        except asyncio.CancelledError:
            failed = False  # nobody waits for it any more; that says nothing about the handler
            raise
        finally:
            if self.counters is not None:
                self.counters.hooked(hook, began, failed=failed)

    async def _finish(self, what: str, awaitable: Awaitable[T], timeout_s: float | None) -> T:
        # Not asyncio.timeout: that needs a task, and the caller may not be in one (see tellwire.tasks).
        limits = [limit for limit in (self.timeout_s, timeout_s) if limit is not None]
        limit = min(limits, default=None)
        task = asyncio.ensure_future(awaitable)
        self._left.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait({task}, timeout=limit)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            # It is not waited for: a handler that does not let itself be cancelled would hold its client for ever.
            task.cancel()
            _log.error("the %s took longer than %g s and was cancelled", what, limit)
            raise Timeout(f"the application did not answer within {limit:g} s")
        if task.cancelled():
            raise RuntimeError("the handler was cancelled, and not by who called it")
        return task.result()

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # taken, so that asyncio does not report what nobody waited for

    async def aclose(self) -> None:
        """Cancel the handlers that still run and wait for them; may be called twice."""
        for task in list(self._left):
            task.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)


def encode_data(value: Any) -> bytes:
    """Return a value as the text of a JSON value that every wire can carry; raise InvalidData.

    Bytes become ``{"$bytes": ...}``; dates, UUIDs, dataclasses and msgspec Structs what msgspec makes of them.
    """
    try:
        plain = msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview), str_keys=True)
        text = json.dumps(plain, default=wrap_bytes, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return check_json(text.encode())
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidData(str(exc)) from None


def encode_value(hook: str, value: Any) -> bytes:
    """Return what a handler gave as `encode_data` does; raise HookFailed."""
    try:
        return encode_data(value)
    except InvalidData as exc:
        _log.error("the %s handler gave data that cannot be sent: %s", hook, exc)
        raise _failed(hook) from None


def _is_one_value(info: bytes | None) -> bool:
    """Tell whether this is nothing, or the text of one JSON value on one line: it becomes a part of frames."""
    try:
        return info is None or check_json(info) == info
    except (InvalidData, TypeError):
        return False


def wrap_bytes(value: Any) -> dict[str, str]:
    """Return bytes as JSON has them: the ``default`` of `json.dumps` for data."""
    return {BYTES_KEY: base64.b64encode(value).decode("ascii")}


def _name(handler: object) -> str:
    return str(getattr(handler, "__qualname__", None) or type(handler).__qualname__)


def _failed(hook: str) -> HookFailed:
    return HookFailed(f"the application's {hook} handler failed; its log says why")


def _wrong(hook: str, found: object, wanted: str) -> HookFailed:
    _log.error("the %s handler returned a %s; it should return %s", hook, type(found).__qualname__, wanted)
    return _failed(hook)
