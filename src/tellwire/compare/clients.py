"""Readers and publishers that are the Python client's: for what no few lines can speak, gRPC and data channels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self, cast

from tellwire.client import Client, Settings, State, Subscription, TransportName, connect
from tellwire.compare.failures import Unmeasured, coded
from tellwire.compare.publishers import Publisher
from tellwire.compare.reader import Reader, Take
from tellwire.compare.site import Site
from tellwire.errors import TellwireError

_closing: set[asyncio.Task[None]] = set()
"""Clients that say goodbye while something else is measured."""


def _told(error: TellwireError | None) -> Unmeasured:
    if error is None:
        return Unmeasured("broken", "the connection was closed")
    if error.code == "not_found":
        return Unmeasured("absent", f"the server does not have it: {error}")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        says = "its certificate is not accepted; --ca-file gives the authority that is to be trusted"
        return Unmeasured("broken", f"{says}, and --insecure is nothing that gRPC knows")
    nobody, _, why = str(error).partition("; last error: ")
    if why:  # gRPC's own words, whichever status it gave them
        return Unmeasured("broken", f"{nobody}: {why}")
    return coded(error.code, str(error))


class _Connection:
    """A client that keeps to one transport."""

    def __init__(self, site: Site, transport: TransportName) -> None:
        self._site = site
        self._transport = transport
        self._client: Client | None = None
        self.on_lost: Callable[[Unmeasured], None] = lambda _: None

    async def open(self) -> Client:
        site = self._site
        options: dict[str, Any] = {}
        url: str = site.url
        if self._transport == "grpc":
            host, port = (site.host, site.port) if site.via is None else ("127.0.0.1", site.via)
            url = f"grpc{'s' if site.tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
            if site.tls and site.via is not None:
                options = {"grpc_name": site.host}
        else:
            options = {"transports": (self._transport,)}
        kept = Settings(queue_max_messages=100_000, queue_max_bytes=256_000_000)
        try:
            client = connect(
                url,
                token=site.token,
                on_state=self._heard,
                settings=kept,
                tls=site.tls,
                **options,
            )
        except ValueError as exc:  # an extra that is missing
            raise Unmeasured("unmeasured", str(exc)) from exc
        self._client = await client.__aenter__()
        return client

    def abort(self) -> None:
        """Begin to close it."""
        client, self._client = self._client, None
        if client is None:
            return
        task = asyncio.get_running_loop().create_task(_close(client))
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    def _heard(self, state: State) -> None:
        if self._client is None or state.name not in ("disconnected", "failed"):
            return
        # Of too many at once the client comes back by itself.
        if state.error is None or state.error.code != "rate_limited":
            self.on_lost(_told(state.error))


async def _close(client: Client) -> None:
    await client.__aexit__(None, None, None)


class ClientReader(Reader):
    """Reads over one transport of the Python client."""

    transport: TransportName = "grpc"

    def __init__(self, site: Site, channel: str, take: Take, *, poll_s: float = 1.0) -> None:
        super().__init__(site, channel, take, poll_s=poll_s)
        self._connection = _Connection(site, self.transport)
        self._connection.on_lost = self.fail
        self._task: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None

    async def open(self, since: str = "") -> None:
        client = await self._connection.open()
        self._subscription = client.subscribe(self.channel, since=since or None)
        self._task = asyncio.create_task(self._read(self._subscription))
        ready = asyncio.ensure_future(self._subscription.ready())
        try:
            await asyncio.wait([ready, self.lost], return_when=asyncio.FIRST_COMPLETED)
            if self.lost.done():
                self.lost.result()
            await ready
        except TellwireError as exc:
            raise _told(exc) from exc
        finally:
            ready.cancel()
        self.cursor = self._subscription.place.cursor or ""

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._connection.abort()

    async def _read(self, subscription: Subscription) -> None:
        async for message in subscription:
            self.arrivals += 1
            self.cursor = message.position or self.cursor
            self.take(message.data)


class GrpcReader(ClientReader):
    """Reads over gRPC."""

    transport: TransportName = "grpc"


class WebRtcReader(ClientReader):
    """Reads over a data channel."""

    transport: TransportName = "webrtc"


class ClientPublisher(Publisher):
    """Publishes over one transport of the Python client."""

    transport: TransportName = "grpc"

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._connection = _Connection(site, self.transport)
        self._client: Client | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._client = await self._connection.open()

    def send(self, channel: str, text: str) -> None:
        self.sent += 1
        task = asyncio.create_task(self._publish(channel, text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def abort(self) -> None:
        self._connection.abort()

    async def _publish(self, channel: str, text: str) -> None:
        assert self._client is not None
        try:
            await self._client.publish(channel, text)
        except TellwireError as exc:
            self.has_answer(_told(exc))
        else:
            self.has_answer()


class GrpcPublisher(ClientPublisher):
    """Publishes over gRPC."""

    by = "gRPC"
    transport: TransportName = "grpc"


class WebRtcPublisher(ClientPublisher):
    """Publishes over a data channel."""

    by = "a data channel in MessagePack"
    transport: TransportName = "webrtc"


class Datagrams:
    """Counts what the UDP sockets carry that are opened within: ``with Datagrams() as count``."""

    def __init__(self) -> None:
        self.up_bytes = 0
        self.down_bytes = 0

    def __enter__(self) -> Self:
        self._loop = cast(Any, asyncio.get_running_loop())
        self._before: Any = self._loop.create_datagram_endpoint
        outer = getattr(self._before, "__self__", None)
        # Within another count only the inner one counts.
        self._plain: Any = outer._plain if isinstance(outer, Datagrams) else self._before
        # The library that opens them asks the running loop, and nobody else.
        self._loop.create_datagram_endpoint = self._create
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.create_datagram_endpoint = self._before

    async def _create(self, factory: Any, *args: Any, **kwargs: Any) -> Any:
        _, counted = await self._plain(lambda: _CountedProtocol(factory(), self), *args, **kwargs)
        return counted.transport, counted.protocol


class _CountedProtocol(asyncio.DatagramProtocol):
    def __init__(self, protocol: asyncio.DatagramProtocol, count: Datagrams) -> None:
        self.protocol = protocol
        self._count = count
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.error_received = protocol.error_received  # type: ignore[method-assign]

    def connection_made(self, transport: Any) -> None:
        self.transport = _CountedTransport(transport, self._count)
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]  # in all that it is asked for

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._count.down_bytes += len(data)
        self.protocol.datagram_received(data, addr)


class _CountedTransport:
    def __init__(self, transport: Any, count: Datagrams) -> None:
        self._transport = transport
        self._count = count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def sendto(self, data: bytes, addr: Any = None) -> None:
        """Send, and count."""
        self._count.up_bytes += len(data)
        self._transport.sendto(data, addr)
