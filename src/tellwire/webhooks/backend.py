"""What the hooks say to a backend, and what they make of its answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tellwire import errors
from tellwire.auth import Identity
from tellwire.auth.claims import TIME_MAX, Claims, to_identity
from tellwire.errors import Expired, Forbidden, HookFailed, TellwireError, Timeout, Unauthorized, Unavailable
from tellwire.hooks import Client, ConnectRequest, Disconnected, HookCounters, Hooks, Publishing, wrap_bytes
from tellwire.webhooks.cache import IdentityCache
from tellwire.webhooks.endpoint import Endpoint, Surroundings, Unreachable
from tellwire.webhooks.outbox import Outbox
from tellwire.webhooks.settings import WebhookSettings

MESSAGE_MAX_CHARS = 300
"""Longest text of a refusal that is passed on to a client."""

REFUSALS: dict[str, type[TellwireError]] = {
    cls.code: cls
    for cls in (
        errors.BadRequest,
        errors.InvalidData,
        Unauthorized,
        Expired,
        errors.Revoked,
        Forbidden,
        errors.NotFound,
        errors.TooLarge,
        errors.RateLimited,
    )
}
"""What a backend may refuse with, by code."""


class _Error(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    message: str = ""


class _Reply(msgspec.Struct, forbid_unknown_fields=True):
    """Any answer. A field that is misspelt must not pass for one that was left out, and so let something in."""

    result: Raw = Raw(b"null")
    error: _Error | None = None


class _Who(msgspec.Struct, forbid_unknown_fields=True):
    """The result of connect: the claims of a token under plainer names."""

    user: str | None = None
    info: Raw | UnsetType = UNSET
    can: dict[str, Any] | None = None
    channels: list[str] | None = None
    expires_at: float | None = None


class _Altered(msgspec.Struct, forbid_unknown_fields=True):
    """The result of publish: what is to be different."""

    data: Any = UNSET
    event: str | UnsetType = UNSET
    key: str | UnsetType | None = UNSET
    ephemeral: bool | UnsetType = UNSET


class WebHooks(Hooks):
    """Asks a backend over HTTP; to be opened within a running loop and closed by `aclose`.

    Args:
        settings: Which URLs, and how.
        counters: What counts the hooks.
        around: Clocks and chance.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        counters: HookCounters | None = None,
        around: Surroundings | None = None,
    ) -> None:
        self._settings = settings
        self._around = around = around or Surroundings()
        urls = settings.urls()
        tls = ssl.create_default_context() if any(url.startswith("https:") for url in urls.values()) else None
        self._endpoints = {hook: Endpoint(hook, url, settings, around, tls) for hook, url in urls.items()}
        self._identities = IdentityCache(settings.hook_cache_s, around.clock, around.now)
        self._flights: dict[bytes, asyncio.Task[Identity | None]] = {}
        self._outbox = Outbox(self._endpoints["disconnect"], around) if "disconnect" in urls else None
        super().__init__(
            connect=self._connect if "connect" in urls else None,
            subscribe=self._subscribe if "subscribe" in urls else None,
            publish=self._publish if "publish" in urls else None,
            disconnect=self._disconnect if "disconnect" in urls else None,
            call=self._call if "call" in urls else None,
            timeout_s=None,  # the endpoints keep the deadline: they have to know by whose fault it passed
            counters=counters,
        )

    async def aclose(self) -> None:
        """Tell the backend what it has yet to be told, for at most ``hook_timeout_s``; then close."""
        if self._outbox is not None:
            await self._outbox.aclose(self._settings.hook_timeout_s)
        await super().aclose()
        for flight in list(self._flights.values()):
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        for endpoint in self._endpoints.values():
            await endpoint.aclose()

    # connect

    async def _connect(self, request: ConnectRequest) -> Identity | None:
        headers = _chosen(request.headers, map(str.lower, self._settings.hook_forward_headers))
        query = _chosen(request.query, self._settings.hook_forward_query)
        body = {
            "token": request.token,
            "headers": headers,
            "query": query,
            "path": request.path,
            "transport": request.transport,
            "address": request.address,
            "origin": request.origin,
        }
        if request.token is None and not headers and not query:
            return await self._ask_who(body, None)  # strangers have nothing that one could know them again by
        key = hashlib.sha256(json.dumps([request.token, headers, query, request.origin]).encode()).digest()
        known = self._identities.find(key)
        if known is not None:
            return known[0]
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.get_running_loop().create_task(self._ask_who(body, key))
            flight.add_done_callback(lambda done: self._landed(key, done))
        # A task of its own: others wait for the same answer, also when the first who asked hangs up.
        await asyncio.wait({flight})
        return flight.result()

    def _landed(self, key: bytes, flight: asyncio.Task[Identity | None]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # taken, in case that nobody waited any more

    async def _ask_who(self, body: dict[str, Any], key: bytes | None) -> Identity | None:
        asked_at = self._around.now()
        result = await self._ask("connect", body)
        if result is None:
            return None
        identity = None if result == b"null" else self._identity(result, asked_at)
        if key is not None:
            self._identities.keep(key, identity, len(result))
        return identity

    def _identity(self, result: bytes, asked_at: float) -> Identity:
        who = self._read("connect", result, _Who)
        until = who.expires_at
        if until is not None and not 0 <= until <= TIME_MAX:
            raise self._endpoints["connect"].bad("gave an expires_at that is not in seconds since 1970")
        if until is not None and until <= asked_at:
            raise Expired("what the application says of this client has expired")
        claims = Claims(
            # As old as the question: whoever is revoked after it was asked is, in spite of the answer.
            sub=who.user, info=who.info, can=who.can, channels=who.channels, exp=until, iat=asked_at,
        )  # fmt: skip
        try:
            return to_identity(claims)
        except Unauthorized as exc:
            raise self._endpoints["connect"].bad(f"gave an identity that cannot be taken: {exc}") from None

    # The other questions

    async def _subscribe(self, client: Client, channel: str) -> None:
        result = await self._ask("subscribe", {"client": _about(client), "channel": channel}, client)
        if result not in (None, b"null"):
            raise self._endpoints["subscribe"].bad("answered with a result; to refuse, it has to give an error")

    async def _publish(self, client: Client | None, publishing: Publishing) -> Publishing | None:
        body = {"client": None if client is None else _about(client)}
        body |= {name: getattr(publishing, name) for name in ("channel", "data", "event", "id", "key", "ephemeral")}
        result = await self._ask("publish", body, client)
        if result in (None, b"null"):
            return None
        altered = self._read("publish", result, _Altered)
        changes = {name: value for name in altered.__struct_fields__ if (value := getattr(altered, name)) is not UNSET}
        return replace(publishing, **changes)

    async def _call(self, client: Client, method: str, data: Any) -> Any:
        result = await self._ask("call", {"client": _about(client), "method": method, "data": data}, client)
        return None if result is None else msgspec.json.decode(result)

    def _disconnect(self, gone: Disconnected) -> None:
        assert self._outbox is not None
        client = {"client": gone.client, "user": gone.user, "info": gone.info, "transport": gone.transport}
        told = {"client": client, "code": gone.code, "reason": gone.reason, "since": gone.since}
        self._outbox.put(self._body("disconnect", told))

    async def _ask(self, hook: str, what: dict[str, Any], client: Client | None = None) -> bytes | None:
        """Return the result of an answer; None where none came and that is to be taken for a yes."""
        endpoint = self._endpoints[hook]
        try:
            # A procedure may have been carried out, answer or not; the other hooks are questions.
            status, answer = await endpoint.ask(
                self._body(hook, what), client=client.client if client else None, repeatable=hook != "call"
            )
        except Unreachable as exc:
            if self._settings.hook_unavailable == "allow" and hook != "call" and exc.why != "busy":
                return None
            raise _not_now(hook, exc) from None
        if status in (401, 403):
            message = _message(answer) or "the application does not allow this"
            raise Unauthorized(message) if status == 401 else Forbidden(message)
        if status == 204:
            return b"null"
        if status != 200:
            raise endpoint.bad(f"answered {status}, where 200, 204, 401 or 403 was expected")
        reply = self._read(hook, answer, _Reply)
        if reply.error is None:
            return bytes(reply.result)
        if reply.error.code not in REFUSALS:
            raise endpoint.bad(f"refused with the code {reply.error.code[:60]!a}; known are {', '.join(REFUSALS)}")
        raise REFUSALS[reply.error.code](_cut(reply.error.message) or REFUSALS[reply.error.code].meaning)

    def _body(self, hook: str, what: dict[str, Any]) -> bytes:
        body = {"hook": hook, "time": int(self._around.now() * 1000), **what}
        return json.dumps(body, default=wrap_bytes, ensure_ascii=False, separators=(",", ":")).encode()

    def _read(self, hook: str, text: bytes, kind: type[Any]) -> Any:
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise self._endpoints[hook].bad(f"gave an answer that cannot be read: {exc}") from None


def _about(client: Client) -> dict[str, Any]:
    return {"client": client.client, "user": client.user, "info": client.info, "transport": client.transport}


def _chosen(given: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: given[name] for name in names if name in given}


def _not_now(hook: str, exc: Unreachable) -> TellwireError:
    """Return what a client is told where there was no answer."""
    if hook == "connect":
        # Without an answer there is no connection, and coming back later is right.
        return Unavailable("the application that says who may come in does not answer now; try again")
    if exc.why == "slow":
        return Timeout(f"the application's {hook} handler took too long")
    if exc.why == "busy":
        return HookFailed(f"too many wait for the application's {hook} handler; try again")
    return HookFailed(f"the application's {hook} handler does not answer now; try again")


class _Problem(msgspec.Struct):
    """Where backends commonly put the text of a refusal: as we ask them to, as frameworks do, and RFC 9457."""

    error: Any = None
    message: Any = None
    detail: Any = None


def _message(answer: bytes) -> str:
    try:
        problem = msgspec.json.decode(answer, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    inner = problem.error.get("message") if isinstance(problem.error, dict) else None
    return next((_cut(text) for text in (inner, problem.message, problem.detail) if isinstance(text, str) and text), "")


def _cut(text: str) -> str:
    return text[:MESSAGE_MAX_CHARS]
