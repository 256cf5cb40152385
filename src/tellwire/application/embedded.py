"""Tellwire inside a Python program: to mount, to publish with, to read."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import Raw

from tellwire.application.reading import History, Occupancy, Received, Subscription
from tellwire.application.running import NOT_STARTED, Running
from tellwire.config import InvalidSetting, Settings, load_settings
from tellwire.errors import BadRequest, Timeout
from tellwire.hooks import encode_data
from tellwire.limits import Limits
from tellwire.message import Appended, Position
from tellwire.names import Namespace, Policy, check_channel
from tellwire.node import check_count
from tellwire.protocol.commands import OnGap, Publish


class Tellwire(Running):
    """A node inside this program.

    It is closed until it is told who may come in: by `on_connect`, by `authorize`, by a key for tokens, or by `open`,
    which lets everybody in who can reach the application.

    Args:
        settings: All settings, as of `tellwire.config.load_settings`; then none of those below may be given.
        broker: Where messages are kept: ``memory://``, or ``sqlite:///path``.
        token_key: Key that tokens are signed with: a secret of at least 32 bytes, or a public key in PEM.
        token_jwks: File or URL of a JWK set with the keys of tokens instead.
        origins: Origins of pages that may connect besides the application's own, such as https://example.org.
        trusted_proxies: Addresses or networks of proxies whose X-Forwarded-For is believed.
        open: Whether everybody may do everything, but what is for operators.
        hook_timeout_s: Seconds that an ``async def`` handler may take.
        namespaces: Settings of channels, by what stands before the colon in their names.
        limits: Bounds on what clients can do.
        grpc_port: TCP port for gRPC, on 127.0.0.1; 0 takes a free one (`grpc_url`). Needs the extra ``tellwire[grpc]``.
        rtc: Whether WebRTC data channels are taken; needs the extra ``tellwire[webrtc]``.
        page: Whether the page that shows all this at work is served at the prefix itself.

    Raises InvalidSetting where the settings cannot be met, `start` also ValueError and Unavailable.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        broker: str | None = None,
        token_key: str | None = None,
        token_jwks: str | None = None,
        origins: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
        open: bool = False,  # noqa: A002  # it is called so everywhere
        hook_timeout_s: float | None = None,
        namespaces: Iterable[Namespace] = (),
        limits: Limits | None = None,
        grpc_port: int | None = None,
        rtc: bool = False,
        page: bool = False,
    ) -> None:
        given = {
            "broker": broker,
            "token_key": token_key,
            "token_jwks": token_jwks,
            "origins": tuple(origins),
            "trusted_proxies": tuple(trusted_proxies),
            "open": open or None,
            "grpc_port": grpc_port,
            "rtc": rtc or None,
            "hook_timeout_s": hook_timeout_s,
        }
        named = [*(name for name, value in given.items() if value not in (None, ())), *(("limits",) if limits else ())]
        spaces = tuple(namespaces)
        if settings is None:
            settings = _settings(given)
            if limits is not None:
                settings = replace(settings, limits=limits)
            if spaces:
                settings = replace(settings, namespaces=spaces)
        elif named or spaces:
            raise ValueError(f"{(*named, 'namespaces')[0]} and settings are both given; put it into the settings")
        super().__init__(settings, page=page)

    # Publishing

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        id: str | None = None,  # noqa: A002  # it is called so everywhere
        event: str = "message",
        key: str | None = None,
        ephemeral: bool = False,
        expect: Position | str | None = None,
    ) -> Appended:
        """Publish a message; done once it is in the log.

        `data` is what JSON has, also with bytes, dates, UUIDs and dataclasses in it. `id` makes a retry harmless.
        `expect` lets the message in only if the channel's newest one is still at that position, else Conflict is
        raised. Whether clients may is not asked, nor is `on_publish`. Raises RequestError for what cannot be.
        """
        node = self._running_node()
        command = Publish(
            channel=channel,
            data=Raw(encode_data(data)),
            id=id,
            event=event,
            key=key,
            ephemeral=ephemeral,
            expect=None if expect is None else str(expect),
        )
        return await node.publish_own(command)

    def publish_sync(
        self,
        channel: str,
        data: Any,
        *,
        id: str | None = None,  # noqa: A002  # as above
        event: str = "message",
        key: str | None = None,
        ephemeral: bool = False,
        expect: Position | str | None = None,
        timeout_s: float = 10.0,
    ) -> Appended:
        """Publish from another thread, such as that of a ``def`` view; else as `publish`.

        Raises Timeout after `timeout_s`; the message may be published nevertheless, and again with the same ``id``
        without harm.
        """
        loop = self._loop
        if loop is None or self._node is None or loop.is_closed():
            raise RuntimeError(NOT_STARTED)
        try:
            blocks = asyncio.get_running_loop() is loop
        except RuntimeError:
            blocks = False
        if blocks:
            raise RuntimeError("publish_sync would stop the event loop for ever: await tellwire.publish(...) here")
        publishing = self.publish(channel, data, id=id, event=event, key=key, ephemeral=ephemeral, expect=expect)
        done = asyncio.run_coroutine_threadsafe(publishing, loop)
        try:
            return done.result(timeout_s)
        except concurrent.futures.CancelledError:
            raise RuntimeError("Tellwire was stopped before the message was published") from None
        except TimeoutError:
            done.cancel()
            raise Timeout(f"publishing took longer than {timeout_s:g} s; the message may be published yet") from None

    # Reading

    async def read(
        self, *channels: str, since: str | int = "earliest", last: int | None = None, limit: int = 1000
    ) -> History:
        """Read what is in the log: at most `limit` messages after a cursor, or the newest `last`.

        Fewer come where they are large; the cursor of what came leads to the next.
        """
        node = self._running_node()
        wanted = node.reading.wanted(channels or _no_channels(), None)
        start = None if last is not None else since
        found = await node.reading.read(list(wanted), start, limit=check_count("limit", limit, 1), last=last)
        epoch = found.position.epoch
        messages = tuple(Received.of(message, epoch) for message in found.messages)
        return History(messages, str(found.position), found.gap)

    def subscribe(
        self,
        *channels: str,
        since: str | int = "now",
        last: int | None = None,
        policy: Policy = "catch_up",
        on_gap: OnGap = "oldest",
    ) -> Subscription:
        """Read channels as messages come: an async iterator of `Received`, and of `Gap` where some may be missing.

        `policy` ``latest`` gives a reader that lags only the newest message of each key. `on_gap` is where to go on
        after a gap: at the ``oldest`` message that is left, or the ``newest``.
        """
        return Subscription(self._running_node, channels or _no_channels(), since, last, policy, on_gap)

    # Clients

    async def presence(self, channel: str) -> Occupancy:
        """Return who is in a channel."""
        return Occupancy.of(await self._running_node().members.look(check_channel(channel), ""))

    async def disconnect(
        self, *, user: str | None = None, client: str | None = None, reason: str = "", reconnect: bool = True
    ) -> None:
        """Close all connections of a user or of a client; without `reconnect` it is told to stay away."""
        _need_one(user=user, client=client)
        await self._running_node().control.disconnect(user=user, client=client, reason=reason, comes_back=reconnect)

    async def revoke(self, *, user: str | None = None, token_id: str | None = None) -> None:
        """Refuse the tokens that a user has by now, or one token, and close the connections that came with them."""
        _need_one(user=user, token_id=token_id)
        await self._running_node().control.revoke(user=user, token_id=token_id)

    def token(
        self,
        user: str | None = None,
        *,
        subscribe: Iterable[str] = (),
        publish: Iterable[str] = (),
        presence: Iterable[str] = (),
        call: Iterable[str] = (),
        admin: Iterable[str] = (),
        channels: Iterable[str] = (),
        info: Any = None,
        expires_s: float = 3600.0,
    ) -> str:
        """Return a token for a client, signed with the key that tokens are checked with.

        All but `channels`, which the client reads without asking for them, are patterns. `info` is what others see of
        the user. Raises UnusableKey where there is no key that can sign, Unauthorized for what no token can say.
        """
        from tellwire.auth.keys import UnusableKey
        from tellwire.auth.making import make_token  # what signs takes a moment to load

        auth = self.settings.auth
        if auth.token_key is not None:
            key = auth.token_key.encode()
        elif auth.token_key_file is not None:
            key = Path(auth.token_key_file).read_bytes()
        else:
            raise UnusableKey("there is no key to sign tokens with: give token_key or token_key_file")
        grants = {"subscribe": subscribe, "publish": publish, "presence": presence, "call": call, "admin": admin}
        claims: dict[str, Any] = {
            "can": {name: patterns for name, given in grants.items() if (patterns := _listed(name, given))}
        }
        optional = {"sub": user, "channels": _listed("channels", channels), "info": info}
        claims |= {name: value for name, value in optional.items() if value}
        claims |= {"iss": auth.token_issuer} if auth.token_issuer else {}
        claims |= {"aud": auth.token_audience} if auth.token_audience else {}
        algorithm = auth.token_algorithms[0] if auth.token_algorithms else None
        return make_token(claims, key, expires_s, algorithm)


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return load_settings(given, {})
    except InvalidSetting as exc:
        name = exc.where.removeprefix("--").replace("-", "_")
        raise InvalidSetting(name, exc.detail) from None


def _no_channels() -> tuple[str, ...]:
    raise BadRequest("no channel is named")


def _need_one(**given: str | None) -> None:
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError(f"give one of {' and '.join(given)}")


def _listed(name: str, patterns: Iterable[str]) -> list[str]:
    if isinstance(patterns, str):
        raise TypeError(
            f"{name} is a list of texts, such as [{patterns!r}]; a text alone would be taken for its letters"
        )
    return list(patterns)
