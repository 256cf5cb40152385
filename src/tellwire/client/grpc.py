"""The session over gRPC: as over a WebSocket, in the messages of spec/tellwire.proto (spec, section 19).

Loaded where somebody asks for it, for it needs the extra tellwire[grpc].
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

import grpc
import msgspec
from msgspec import Raw

from tellwire.client.failures import ConnectionLost, Failure, lost, told
from tellwire.client.host import Host
from tellwire.client.http import bearer
from tellwire.client.messages import Page, TransportName
from tellwire.client.sockets import MESSAGE_MAX_BYTES, Socket
from tellwire.client.tokens import Tokens
from tellwire.client.websocket import WebSocketTransport
from tellwire.client.wire import Incoming, Language, MemberIn
from tellwire.errors import Forbidden, Malformed, TellwireError, Timeout, Unauthorized, Unavailable
from tellwire.message import Gap
from tellwire.protocol.commands import Command
from tellwire.protocol.proto import tellwire_pb2 as pb
from tellwire.protocol.protobuf import CHUNK_BYTES, PACKED_TYPE, parse, read_fields, write_command

SERVICE = f"/{pb.DESCRIPTOR.services_by_name['Tellwire'].full_name}"

_OPTIONS = [
    # Each try is a connection of its own, with a deadline of ours: no waiting for what another one has found out.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
]
_KINDS: dict[grpc.StatusCode, type[TellwireError]] = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.DEADLINE_EXCEEDED: Timeout,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
}
"""What a status means that did not come from Tellwire, but from a proxy or from gRPC itself."""


class GrpcLanguage(Language):
    """Commands and pushes as messages of protocol buffers, with their data in MessagePack."""

    def __init__(self) -> None:
        super().__init__(msgspec.msgpack, packed=True)

    def encode(self, command: Command) -> bytes:
        return write_command(command, packed=True)


GRPC = GrpcLanguage()


class GrpcServer:
    """The gRPC side of one server: ``grpc://host:port``, over TLS ``grpcs://``.

    Args:
        url: Where it is.
        tokens: Who calls.
        tls: Which certificates are accepted.
        credentials: Keys of gRPC's own in its place, as for a certificate that the client shows.
        name: Whom the server's certificate has to be for, if not the host of `url`.
    """

    def __init__(
        self, url: str, tokens: Tokens, tls: ssl.SSLContext, credentials: Any = None, name: str | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("grpc", "grpcs") or not parts.hostname or parts.port is None:
            raise ValueError(f"{url!a} is not where gRPC is served; that looks like grpc://127.0.0.1:50051")
        self._target = parts.netloc.rpartition("@")[2]
        self._tokens = tokens
        self._is_secure = parts.scheme == "grpcs"
        self._tls = tls
        self._credentials = credentials
        # The authority goes with it (grpc_types.h, GRPC_SSL_TARGET_NAME_OVERRIDE_ARG).
        self._options = [*_OPTIONS, *([] if name is None else [("grpc.ssl_target_name_override", name)])]

    def _channel(self) -> grpc.aio.Channel:
        if not self._is_secure:
            return grpc.aio.insecure_channel(self._target, self._options)
        if self._credentials is None:
            roots = "".join(map(ssl.DER_cert_to_PEM_cert, self._tls.get_ca_certs(binary_form=True)))
            self._credentials = grpc.ssl_channel_credentials(roots.encode() or None)
        return grpc.aio.secure_channel(self._target, self._credentials, self._options)

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        fields = {**bearer(await self._tokens.get()), "tellwire-accept": PACKED_TYPE}
        return tuple((name.lower(), value) for name, value in fields.items())

    async def open_stream(self) -> Socket:
        """Begin a conversation."""
        metadata = await self._metadata()
        channel = self._channel()
        connect: Any = channel.stream_stream(f"{SERVICE}/Connect")
        return _Stream(channel, connect(metadata=metadata))

    async def history(self, channel: str, before: str | int | None, limit: int, timeout_s: float) -> Page:
        """Return the newest messages before a place; raises Failure. A token that has expired is renewed once."""
        request = pb.HistoryRequest(channels=[channel], limit=limit)
        if before is not None:
            request.before = str(before)
        for is_renewed in (False, True):
            connection = self._channel()
            try:
                ask: Any = connection.unary_unary(f"{SERVICE}/History")
                answer = await ask(request.SerializeToString(), metadata=await self._metadata(), timeout=timeout_s)
                break
            except grpc.aio.AioRpcError as exc:
                failure = failure_of(exc)
                if is_renewed or failure.code != "expired":
                    raise failure from exc
                self._tokens.expire()
            finally:
                await connection.close()
        page: pb.HistoryPage = parse(pb.HistoryPage, answer)
        messages = [GRPC.message(_message(each), each.position.rpartition(".")[0]) for each in page.messages]
        gap = Gap(**_gap_fields(read_fields(page.gap))) if page.HasField("gap") else None
        return Page(messages, page.cursor, gap)


class _Stream:
    def __init__(self, channel: grpc.aio.Channel, call: Any) -> None:
        self._channel = channel
        self._call = call

    async def send(self, frame: bytes | str) -> None:
        try:
            await self._call.write(frame)
        except grpc.aio.AioRpcError as exc:
            raise failure_of(exc) from exc
        except asyncio.InvalidStateError as exc:  # it is over; whoever reads knows why
            raise lost("the stream has ended") from exc

    async def receive(self) -> bytes:
        try:
            payload = await self._call.read()
        except grpc.aio.AioRpcError as exc:
            raise failure_of(exc) from exc
        if payload is grpc.aio.EOF:
            raise lost("the stream has ended", close_code=1000)
        received: bytes = payload
        return received

    async def aclose(self) -> None:
        self._call.cancel()
        await self._channel.close()


def failure_of(exc: grpc.aio.AioRpcError) -> Failure:
    """Make the failure that a status stands for."""
    trailer = dict(exc.trailing_metadata())
    details = exc.details() or exc.code().name
    payload = trailer.get("tellwire-error-bin")
    if isinstance(payload, bytes):
        error: pb.Error = parse(pb.Error, payload)
        wait_ms = error.retry_after_ms if error.HasField("retry_after_ms") else None
        status = 500 if exc.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE) else 400
        return told(error.code, error.message, head=error.head or None, retry_after_ms=wait_ms, status=status)
    if exc.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return lost(details, close_code=1009)
    kind = _KINDS.get(exc.code(), ConnectionLost)
    return Failure(kind(details))


class GrpcTransport(WebSocketTransport):
    """A stream of gRPC that was opened by the client."""

    name: TransportName = "grpc"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._language = GRPC

    async def _open_socket(self, fields: dict[str, str]) -> Socket:
        assert self.host.grpc is not None, "whoever asks for grpc says where it is"
        return await self.host.grpc.open_stream()

    def _next_frame(self) -> bytes | str:
        frames: list[bytes] = []
        size = 0
        while self._outgoing and (not frames or size + len(self._outgoing[0]) <= CHUNK_BYTES):
            frame = self._outgoing.popleft()
            assert isinstance(frame, bytes)
            frames.append(frame)
            size += len(frame)
        # `Commands` behind each other are one.
        return b"".join(frames)

    def _take_frame(self, frame: bytes | str) -> None:
        assert isinstance(frame, bytes)
        try:
            pushes: pb.Pushes = parse(pb.Pushes, frame)
        except Malformed as exc:
            raise lost(f"what came is not of this protocol: {exc}") from exc
        for push in pushes.pushes:
            self._take(incoming(push))


_FIELDS = frozenset(Incoming.__struct_fields__)
"""What the client looks at."""


def incoming(push: pb.Push) -> Incoming:
    """Return a push as all transports have it; one of an unknown type comes with nothing but that."""
    kind = push.WhichOneof("push")
    ref = push.ref if push.HasField("ref") else None
    if kind is None:
        return Incoming(ref=ref)
    if kind == "message":
        return _message(push.message)
    fields = read_fields(getattr(push, kind))
    if kind == "gap":
        fields = _gap_fields(fields)
    if "gap" in fields:
        fields["gap"] = Gap(**_gap_fields(fields["gap"]))
    if "sender" in fields:
        fields["from_"] = fields.pop("sender")
    if "data" in fields:
        fields["data"] = Raw(fields["data"])
    if "member" in fields:
        fields["member"] = _member(fields["member"])
    if kind == "presence":
        is_counted = fields.pop("counted_only", False)
        fields["members"] = None if is_counted else [_member(each) for each in fields.get("members", ())]
    return Incoming(type=kind, ref=ref, **{name: value for name, value in fields.items() if name in _FIELDS})


def _message(message: pb.Message) -> Incoming:
    return Incoming(
        type="message",
        channel=message.channel,
        seq=message.seq,
        id=message.id,
        time=message.time,
        event=message.event or "message",
        data=Raw(message.data.value),
        key=message.key if message.HasField("key") else None,
        ephemeral=message.ephemeral,
        trace=message.trace,
    )


def _gap_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "from_": fields.get("from_cursor", ""),
        "to": fields.get("to_position", ""),
        "reason": fields.get("reason", "trimmed"),
        "channels": fields.get("channels", ()),
    }


def _member(fields: dict[str, Any]) -> MemberIn:
    for name in ("info", "state"):
        if name in fields:
            fields[name] = Raw(fields[name])
    return MemberIn(**fields)
