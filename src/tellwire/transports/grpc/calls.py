"""What every call has to go through: who asks, and how much they may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast
from urllib.parse import unquote

import grpc

from tellwire.auth import Identity
from tellwire.errors import BadRequest, Internal, RequestTimeout, TellwireError, TooManyConnections, Unauthorized
from tellwire.limits import Visit, client_address
from tellwire.node import Caller, Handshake, Node, check_session
from tellwire.protocol.protobuf import ProtobufEncoding, protobuf_encoding
from tellwire.transports.grpc.statuses import Context, refuse

TRANSPORT = "grpc"
"""The wire's name, for the application and in metrics."""

SPARE_STREAMS = 100
"""Calls of one connection that HTTP/2 lets in beyond its streams: requests, and those that are told that it is full."""

T = TypeVar("T")


class Calls:
    """The calls of a node: those that last are counted by their connection."""

    def __init__(self, node: Node, *, has_tls: bool) -> None:
        self.node = node
        self._scheme = "https" if has_tls else "http"
        self._streams: dict[str, int] = {}  # by the connection, which is called by its other end

    async def identify(self, context: Context, method: str) -> tuple[Caller, ProtobufEncoding]:
        """Find out who calls, and which data they want; the caller is nobody where they still may say who they are."""
        node = self.node
        headers = _headers(context)
        if any(name == b"origin" for name, _ in headers):
            node.access.check(headers, self._scheme)
        # A cookie would be of a browser, and that a page made it send.
        headers = [(name, value) for name, value in headers if name != b"cookie"]
        address = client_address(peer_address(context.peer()), headers, node.trusted_proxies)
        said = Handshake(headers, b"", method, address, TRANSPORT)
        caller = Caller(await node.entrance.identify(said), TRANSPORT, address)
        caller.session = check_session(text_of(headers, b"tellwire-session"))
        encoding = protobuf_encoding(text_of(headers, b"tellwire-accept") or "")
        node.throttle(caller, lasts=False)
        return caller, encoding

    async def ask(self, context: Context, method: str) -> tuple[Caller, Identity, ProtobufEncoding]:
        """As `identify`, of a call that has to say at once who it is of."""
        caller, encoding = await self.identify(context, method)
        if caller.identity is None:
            raise Unauthorized("this server wants a token; send one in the metadata: authorization: Bearer TOKEN")
        return caller, caller.identity, encoding

    @asynccontextmanager
    async def guarded(self, context: Context, name: str) -> AsyncIterator[None]:
        """Make statuses of what is raised within."""
        try:
            yield
        except grpc.aio.AbortError:
            raise
        except TellwireError as exc:
            self.node.counters.rejects[exc.code] += 1
            await refuse(context, exc)
        except Exception as exc:
            self.node.hub.report(f"{name} failed", exc)
            await refuse(context, Internal("the server failed to answer; its log says why"))

    @asynccontextmanager
    async def lasting(self, context: Context, caller: Caller) -> AsyncIterator[Visit]:
        """Count a call that lasts, as a connection of its address and a stream of its connection.

        Raises TooManyConnections.
        """
        node, peer = self.node, context.peer()
        node.check_room(caller)
        most = node.limits.grpc_streams_max
        if self._streams.get(peer, 0) >= most:
            node.counters.limit_hit("grpc_streams_max")
            raise TooManyConnections(f"one gRPC connection has at most {most} streams; open another one for more")
        visit = node.turnstile.enter(caller.address)
        self._streams[peer] = self._streams.get(peer, 0) + 1
        try:
            yield visit
        finally:
            visit.leave()
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]

    async def complete(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry something out to its end, also where whoever asked goes away meanwhile."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(result: T | None, exc: BaseException | None) -> None:
            if done.cancelled():
                return
            if exc is None:
                done.set_result(result)  # type: ignore[arg-type]  # a result of None is one
            else:
                done.set_exception(exc)

        self.node.tasks.start(work, settle)
        return await done


def _headers(context: Context) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode("latin-1"), value if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in context.invocation_metadata() or ()
    ]


def text_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """Return the first value of a field, None where there is none."""
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


def metadata_text(context: Context, name: str) -> str | None:
    """Return the first value of a field of a call's metadata, None where there is none."""
    return text_of(_headers(context), name.encode())


def peer_address(peer: str) -> str:
    """Return the address of gRPC's name for a peer, such as ``ipv6:%5B::1%5D:4711``; empty for a Unix socket."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")


def need_session(caller: Caller) -> None:
    """Raise BadRequest where a call that is about a member does not say whose it is."""
    if caller.session is None:
        raise BadRequest("the metadata tellwire-session is missing: the secret text by which the client is known again")


def time_left_ms(context: Context) -> int | None:
    """Return how long the caller waits, None for ever; raises RequestTimeout where that is over."""
    left_s = cast(float | None, context.time_remaining())  # None where there is no deadline, whatever its type says
    if left_s is None or left_s > 86_400:
        return None
    if left_s <= 0:
        raise RequestTimeout("the call's deadline was over before it was looked at")
    return max(1, int(left_s * 1000))
