"""The client: one connection to one server, for as many channels as are wanted."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import httpx
from msgspec import Raw

from tellwire.client import channels
from tellwire.client.connection import Connection
from tellwire.client.failures import Closed, ConnectionLost, Failure
from tellwire.client.feed import Feed
from tellwire.client.host import GrpcSide, Host, Transport, stop
from tellwire.client.http import Http
from tellwire.client.messages import ELSEWHERE, ON_REQUEST, ORDER, Page, Published, Signal, State, TransportName
from tellwire.client.outbox import Outbox
from tellwire.client.place import split
from tellwire.client.presence import Presence
from tellwire.client.rooms import Rooms
from tellwire.client.settings import Settings
from tellwire.client.sockets import OpenSocket, opener
from tellwire.client.subscription import OnGap, Subscription
from tellwire.client.tokens import Tokens, TokenSource
from tellwire.client.wire import JSON, Incoming, Language, pack
from tellwire.errors import BadRequest, TellwireError, Timeout
from tellwire.message import Gap
from tellwire.names import Policy, check_channel
from tellwire.protocol.commands import SESSION_MAX_CHARS, Call, Publish, Send

OnState = Callable[[State], object]


class Client:
    """A client of one server: it connects by itself, and comes back by itself, until it is left.

    Made by `connect`. Its methods belong to the event loop in which it was entered.
    """

    def __init__(
        self,
        url: str,
        *,
        token: TokenSource,
        session: str | None,
        grpc: str | None,
        transports: Sequence[TransportName] | None,
        on_state: OnState | None,
        settings: Settings,
        http_transport: httpx.AsyncBaseTransport | None,
        open_socket: OpenSocket | None,
        open_channels: OpenSocket | None,
        tls: ssl.SSLContext,
        grpc_credentials: Any,
        grpc_name: str | None,
    ) -> None:
        has_http = not url.startswith(("grpc://", "grpcs://"))
        grpc = grpc if has_http else url
        if transports is None:
            first = ELSEWHERE if grpc is not None else ()
            transports = (*first, *ORDER) if has_http else first
        known = (*ON_REQUEST, *ELSEWHERE, *ORDER)
        if not transports or any(name not in known for name in transports):
            raise ValueError(f"transports: {list(transports)!r}; there are {', '.join(known)}, and one has to be named")
        if not has_http and any(name != "grpc" for name in transports):
            raise ValueError(f"transports: there is only gRPC at {url!a}; name an http address, and that one as `grpc`")
        if "grpc" in transports and grpc is None:
            raise ValueError("transports: grpc has an address of its own; give it as `grpc`, or as the url")
        if "webrtc" in transports and open_channels is None:
            channels.check_installed()
        if session is not None and not (
            0 < len(session) <= SESSION_MAX_CHARS and session.isascii() and session.isprintable()
        ):
            raise ValueError("session: a text of 1 to 64 printable ASCII characters, random and secret")
        # Deadlines are our own, and the server decides how long a stream lasts.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=30)
        client = httpx.AsyncClient(
            transport=http_transport,
            timeout=httpx.Timeout(None),
            limits=limits,
            verify=tls,
        )
        tokens = Tokens(token)
        http = Http(url, tokens, client)
        self._settings = settings
        self._has_http = has_http
        self._transports = tuple(dict.fromkeys(transports))
        self._listeners: list[OnState] = [] if on_state is None else [on_state]
        self._subscriptions: dict[str, Subscription] = {}
        self._state_changed = asyncio.Event()
        self._host = Host(
            settings=settings,
            session=session or secrets.token_urlsafe(24),
            tokens=tokens,
            http=http,
            open_socket=open_socket or opener(tls),
            open_channels=open_channels or channels.opener(client),
            outbox=Outbox(settings),
            grpc=None if grpc is None else _grpc_side(grpc, tokens, tls, grpc_credentials, grpc_name),
            readings=self._readings,
            take_push=lambda *push: self._rooms.take_push(*push),
            take_gap=lambda gap: self._rooms.take_gap(gap),
            is_current=lambda transport: transport is self._connection.current,
            heartbeat_s=settings.heartbeat_s,
        )
        self._connection = Connection(self._host, self._transports, self)
        self._rooms = Rooms(self._host, self._connection)
        self._life: asyncio.Task[None] | None = None
        self._is_closed = False
        self._sync_soon: asyncio.Handle | None = None

    async def __aenter__(self) -> Self:
        self._life = asyncio.create_task(self._live())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _live(self) -> None:
        try:
            await self._connection.run()
        except Exception as exc:
            # A fault of ours must neither leave anybody waiting, nor go unseen.
            self._connection.fail(ConnectionLost(f"the client has stopped by a fault of its own: {exc!r}"))
            _show(exc)

    @property
    def state(self) -> State:
        """Where the connection is."""
        return self._connection.state

    @property
    def client_id(self) -> str | None:
        """The name by which others see this client; known after a first connection or a first presence."""
        return self._host.client

    @property
    def session(self) -> str:
        """The secret that keeps `client_id`: give it to `connect` to be the same client again."""
        return self._host.session

    def on_state(self, listener: OnState) -> Callable[[], None]:
        """Call `listener` with each new state; return what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def connected(self) -> None:
        """Wait until there is a connection; raises what makes that impossible."""
        while self.state.name != "connected":
            self._check()
            await self._state_changed.wait()

    def subscribe(
        self,
        channel: str,
        *,
        since: str | int | None = None,
        last: int | None = None,
        policy: Policy | None = None,
        on_gap: OnGap | Callable[[Gap], object] | None = None,
        unreliable: bool = False,
    ) -> Subscription:
        """Read a channel: return an async iterator of its messages.

        Args:
            channel: Its name.
            since: ``now`` (the default), ``earliest``, a cursor, or a seq.
            last: Begin before the newest so many, in place of `since`.
            policy: What becomes of a reader that lags: ``catch_up``, ``latest`` or ``disconnect``.
            on_gap: Where to go on after a gap, ``oldest`` (the default) or ``newest``; or who is to be told of it.
            unreliable: Its messages may be lost on their way, over data channels; elsewhere it is policy ``latest``.
        """
        self._check()
        if unreliable and policy not in (None, "latest"):
            raise BadRequest(f"unreliable goes with the policy latest, not with {policy}")
        check_channel(channel)
        if channel in self._subscriptions:
            raise BadRequest(f"{channel} is read already: use that subscription, or another client")
        subscription = Subscription(
            channel,
            self,
            self._settings,
            since=since,
            last=last,
            policy="latest" if unreliable else policy,
            on_gap=on_gap,
            unreliable=unreliable,
        )
        self._subscriptions[channel] = subscription
        # Ten channels that are subscribed to together are asked for together.
        if self._sync_soon is None:
            self._sync_soon = asyncio.get_running_loop().call_soon(self._sync)
        return subscription

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        id: str | None = None,  # noqa: A002  # as the field is called
        event: str = "message",
        key: str | None = None,
        ephemeral: bool = False,
        expect: str | None = None,
        echo: bool = True,
    ) -> Published:
        """Publish; return when the message is in the log.

        Without a connection it waits for one, and it is sent again with the same id until it is acknowledged. Messages
        take their places in the order of the calls. An ephemeral one is dropped where there is no connection.

        Raises what the server says, such as Forbidden, or Conflict where `expect` did not hold; OutboxFull where too
        much waits already; Uncertain where it was not acknowledged while the server remembers ids; InvalidData.
        """
        self._check()
        check_channel(channel)
        return await self._host.outbox.add(
            Publish(
                channel=channel,
                data=Raw(pack(data)),
                id=id if id is not None else secrets.token_urlsafe(15),
                event=event,
                key=key,
                ephemeral=ephemeral,
                expect=expect,
                echo=echo,
                session=None if echo else self.session,
            )
        )

    async def flush(self) -> None:
        """Wait until all publishes of this client are acknowledged."""
        await self._host.outbox.flushed()

    async def history(self, channel: str, *, before: str | int | None = None, limit: int = 100) -> Page:
        """Return messages of the past, in ascending order: the newest `limit` before a place.

        Go on with the ``position`` of the first one as `before`.
        """
        self._check()
        timeout_s = self._settings.request_timeout_s
        if not self._has_http and self._host.grpc is not None:
            try:
                return await self._host.grpc.history(channel, before, limit, timeout_s)
            except Failure as failure:
                raise failure.error from failure
        # Without a place to begin before: what `last` brings.
        query = [
            ("channel", channel),
            ("before", before),
            ("last", limit if before is None else None),
            ("limit", limit),
        ]
        try:
            page = await self._host.http.json("v1/messages", query=query, timeout_s=timeout_s)
        except Failure as failure:
            raise failure.error from failure
        place = split(page.cursor)
        epoch = place.epoch if place else ""
        messages = [JSON.message(JSON.decode(bytes(raw)), epoch) for raw in page.messages]
        return Page(messages, page.cursor, page.gap)

    def presence(self, channel: str) -> Presence:
        """Watch who is in a channel; `Presence.enter` makes this client a member too."""
        self._check()
        check_channel(channel)
        return self._rooms.presence(channel)

    def signals(self) -> Feed[Signal]:
        """Return an async iterator of what is sent to this client alone, from now on."""
        self._check()
        return self._rooms.signals()

    async def send(
        self,
        channel: str,
        to: str,
        data: Any,
        *,
        event: str = "message",
        id: str | None = None,  # noqa: A002  # as the field is called
        timeout_s: float | None = None,
    ) -> Published:
        """Say something to one client, which has to be in the channel, as this one has to."""
        command = Send(channel=channel, to=to, data=Raw(pack(data)), event=event, id=id or secrets.token_urlsafe(15))
        reply, _ = await self._request(command, timeout_s)
        return Published(reply.position, reply.duplicate)

    async def call(self, method: str, data: Any = None, *, timeout_s: float | None = None) -> Any:
        """Call a procedure of the application behind the server; return its result.

        It is not tried again: only the caller knows whether that is safe.
        """
        timeout_s = self._settings.request_timeout_s if timeout_s is None else timeout_s
        command = Call(method=method, data=Raw(pack(data)), timeout_ms=max(1, round(timeout_s * 1000)))
        reply, language = await self._request(command, timeout_s)
        return language.value(reply.data)

    async def aclose(self) -> None:
        """End everything; what waits to be published fails with Closed. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._life is not None:
            await stop(self._life)
        self._connection.close()
        self._end(Closed("the client was closed"))
        await self._rooms.aclose()
        await self._host.outbox.aclose()
        await self._host.http.aclose()

    def _check(self) -> None:
        if self.state.name == "failed" and self.state.error is not None:
            raise self.state.error
        if self._is_closed:
            raise Closed("this client is closed")
        if self._life is None:
            raise RuntimeError("a client has to be entered first: async with connect(...) as client")

    async def _request(self, command: Send | Call, timeout_s: float | None) -> tuple[Incoming, Language]:
        """Ask over the present connection, or the next one."""
        self._check()
        timeout_s = self._settings.request_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self.connected()
                transport = self._connection.current
                if transport is None:
                    raise ConnectionLost("there is no connection")
                return await transport.request(command, timeout_s)
        except TimeoutError:
            name = "send" if isinstance(command, Send) else "call"
            raise Timeout(f"{name}: no answer within {timeout_s:g} s") from None
        except Failure as failure:
            raise failure.error from failure

    # What follows is called by the parts of the client.

    def _readings(self) -> Mapping[str, Subscription]:
        return {channel: each for channel, each in self._subscriptions.items() if each.is_wanted}

    def _sync(self) -> None:
        self._sync_soon = None
        self._connection.sync()

    def changed(self) -> None:
        """A subscription wants to be read, or no longer."""
        self._connection.sync()

    def ended(self, subscription: Subscription) -> None:
        """A subscription is over."""
        if self._subscriptions.get(subscription.channel) is subscription:
            del self._subscriptions[subscription.channel]
        self._connection.sync()

    def adopt(self, transport: Transport) -> None:
        """A transport is used from now on."""
        self._host.outbox.attach(transport)
        self._rooms.ask_all()

    def part(self) -> None:
        """There is no transport any more."""
        self._host.outbox.detach()

    def change(self, state: State) -> None:
        """The state has changed."""
        self._state_changed.set()
        self._state_changed = asyncio.Event()
        if state.name == "failed":
            self._end(state.error)
        for listener in list(self._listeners):
            try:
                listener(state)
            except Exception as exc:
                _show(exc)

    def _end(self, error: TellwireError | None) -> None:
        """Tell everybody that nothing comes any more; iterators just end where the client was closed."""
        why = None if isinstance(error, Closed) else error
        self._host.outbox.close(error or Closed("the client was closed"))
        for subscription in list(self._subscriptions.values()):
            subscription.end(why)
        self._rooms.end(why)


def _grpc_side(url: str, tokens: Tokens, tls: ssl.SSLContext, credentials: Any, name: str | None) -> GrpcSide:
    try:
        from tellwire.client.grpc import GrpcServer  # its library is loaded where it is asked for
    except ModuleNotFoundError as exc:
        raise ValueError(f"{url!a}: gRPC is not installed ({exc.name} is missing); install tellwire[grpc]") from None
    return GrpcServer(url, tokens, tls, credentials, name)


def _show(exc: Exception) -> None:
    context = {"message": "a listener of a Tellwire client, or the client itself, has failed", "exception": exc}
    asyncio.get_running_loop().call_exception_handler(context)
