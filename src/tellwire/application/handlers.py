"""The handlers that an application registers, one for each question."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast, overload

from tellwire.auth import Identity, Operation
from tellwire.hooks import Client, ConnectRequest, Disconnected, Hooks, Publishing

METHOD_MAX_CHARS = 128
"""Longest name of a method that can be called."""

OnConnect = TypeVar("OnConnect", bound=Callable[[ConnectRequest], Identity | Awaitable[Identity | None] | None])
Authorize = TypeVar("Authorize", bound=Callable[[Client, Operation, str], bool | Awaitable[bool | None] | None])
OnSubscribe = TypeVar("OnSubscribe", bound=Callable[[Client, str], Awaitable[None] | None])
OnPublish = TypeVar("OnPublish", bound=Callable[[Client, Publishing], Publishing | Awaitable[Publishing | None] | None])
OnDisconnect = TypeVar("OnDisconnect", bound=Callable[[Disconnected], Awaitable[None] | None])
Rpc = TypeVar("Rpc", bound=Callable[[Client, Any], Any])


class Handlers:
    """Decorators that register an application's functions, ``def`` or ``async def`` (see tellwire.hooks).

    Each is for one function, and for the time before the first client: what is not asked from the beginning would let
    in whom it should have refused.
    """

    def __init__(self, timeout_s: float) -> None:
        self.hooks = Hooks(timeout_s=timeout_s)
        self._sealed = False

    def on_connect(self, handler: OnConnect) -> OnConnect:
        """Register who says who a client is: an Identity, or None to let its token say it."""
        self._register("connect", handler, ("request",))
        return handler

    def authorize(self, handler: Authorize) -> Authorize:
        """Register who says whether a client may do something: True, False, or None to let its grants decide."""
        self._register("authorize", handler, ("client", "operation", "name"))
        return handler

    def on_subscribe(self, handler: OnSubscribe) -> OnSubscribe:
        """Register who is asked before a client that may read a channel begins to; it raises Forbidden to refuse."""
        self._register("subscribe", handler, ("client", "channel"))
        return handler

    def on_publish(self, handler: OnPublish) -> OnPublish:
        """Register who sees each message of a client first: returns another to alter it, raises Forbidden to refuse."""
        self._register("publish", handler, ("client", "publishing"))
        return handler

    def on_disconnect(self, handler: OnDisconnect) -> OnDisconnect:
        """Register who is told once of each connection that ended, also of those of a process that died."""
        self._register("disconnect", handler, ("disconnected",))
        return handler

    @overload
    def rpc(self, method: str, /) -> Callable[[Rpc], Rpc]: ...
    @overload
    def rpc(self, method: Rpc, /) -> Rpc: ...
    def rpc(self, method: str | Rpc, /) -> Rpc | Callable[[Rpc], Rpc]:
        """Register a function that clients may call: ``@rpc`` by its own name, ``@rpc("name")`` by another."""
        if isinstance(method, str):
            return lambda handler: self._register_rpc(method, handler)
        return self._register_rpc(getattr(method, "__name__", ""), method)

    def _register_rpc(self, method: str, handler: Rpc) -> Rpc:
        if not 1 <= len(method) <= METHOD_MAX_CHARS or not method.isprintable():
            raise ValueError(f"a method's name has 1 to {METHOD_MAX_CHARS} printable characters, not {method[:60]!a}")
        if (before := self.hooks.rpc.get(method)) is not None:
            raise RuntimeError(f"the method {method!r} is registered already: it is {_name(before)}")
        self._check(f"the method {method!r}", handler, ("client", "data"))
        self.hooks.rpc[method] = handler
        return handler

    def _register(self, hook: str, handler: object, arguments: tuple[str, ...]) -> None:
        what = hook if hook == "authorize" else f"on_{hook}"
        before: object = getattr(self.hooks, hook)
        if before is not None:
            raise RuntimeError(f"{what} is registered already: it is {_name(before)}, and there can be one")
        self._check(what, handler, arguments)
        setattr(self.hooks, hook, handler)

    def _check(self, what: str, handler: object, arguments: tuple[str, ...]) -> None:
        """Refuse what could not be called; by its type checker the application knows this beforehand."""
        if self._sealed:
            raise RuntimeError(f"{what} comes too late: register handlers before Tellwire is started")
        takes = f"({', '.join(arguments)})"
        if not callable(handler):
            raise TypeError(f"{what} takes a function of {takes}, not a {type(handler).__qualname__}")
        try:
            signature = inspect.signature(cast(Callable[..., object], handler))
        except ValueError:  # some of C have none
            return
        try:
            signature.bind(*arguments)
        except TypeError:
            raise TypeError(f"{what} is called with {takes}; {_name(handler)} takes {signature}") from None


def _name(handler: object) -> str:
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return f"{getattr(handler, '__module__', '')}.{name}".lstrip(".")
