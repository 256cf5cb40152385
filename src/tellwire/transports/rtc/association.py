"""aiortc's DTLS and SCTP for one peer, over a path that somebody else has found, with their bounds.

aiortc trusts its peer with much: what it reassembles, in how many streams, and what waits to be sent are not bounded
there. Everything of aiortc's that Tellwire touches is in this module, and behind `Association`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from aiortc import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcdtlstransport import SRTP_PROFILES
from aiortc.rtcsctptransport import (
    USERDATA_MAX_LENGTH,
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    WEBRTC_STRING_EMPTY,
    DataChunk,
    RTCSctpCapabilities,
)
from OpenSSL import SSL

from tellwire.errors import CloseCode
from tellwire.tasks import Tasks
from tellwire.transports.rtc.description import MESSAGE_MAX_BYTES

WINDOW_BYTES = 256 * 1024
"""What a peer may have on its way to us, assembled or not, before it has to wait (the SCTP receiver window)."""

CHUNKS_MAX = 2048
"""Pieces that may wait to be assembled, however small."""

STREAMS_MAX = 16
"""Streams on which a peer may say something; two are used."""

FLIGHT_MAX_BYTES = 256 * 1024
"""What may be on its way to a peer without having been acknowledged."""

DATAGRAMS_MAX = 1024
"""Datagrams of one peer that may wait to be read; more are lost, as on the way."""


_TOO_BIG = f"a message on a data channel has at most {MESSAGE_MAX_BYTES} bytes; send more in parts"


class Violation(Exception):
    """The peer does what no peer does, or more than it may; the connection cannot go on."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Handler(Protocol):
    """Who is told what becomes of an association. Plain functions; those that take something may raise Violation."""

    def opened(self, channel: RTCDataChannel) -> None:
        """Take note of a channel that the peer opened."""

    def closed(self, stream: int) -> None:
        """Take note that the peer closed a channel."""

    def message(self, stream: int, payload: bytes, *, binary: bool) -> None:
        """Take a message."""

    def heard(self) -> None:
        """Take note of a sign of life: something came that only the peer can have sent."""

    def drained(self) -> None:
        """Take note that less waits to be sent than before."""

    def violated(self, exc: Violation) -> None:
        """End the connection for what the peer did; nothing more is taken of it."""

    def lost(self, reason: str) -> None:
        """Take note that it is over; may be called twice."""


class Certificate(RTCCertificate):
    """The certificate of this process: its key takes longer to make than a handshake, and so does its context."""

    _context: SSL.Context | None = None

    def _create_ssl_context(self, srtp_profiles: Any) -> SSL.Context:
        if self._context is None:
            self._context = super()._create_ssl_context(srtp_profiles)
        return self._context

    def prepare(self) -> None:
        """Make the context now; raises ValueError where the system does not let it be."""
        try:
            self._create_ssl_context(SRTP_PROFILES)
        except MemoryError:
            raise ValueError(
                "rtc needs memory that can be written and run (callbacks of OpenSSL), which is forbidden to this "
                "process: in a systemd unit say MemoryDenyWriteExecute=no, or leave rtc off"
            ) from None

    @property
    def fingerprints(self) -> list[tuple[str, str]]:
        """What the answer says of it."""
        return [(each.algorithm, each.value) for each in self.getFingerprints() if each.algorithm == "sha-256"]


class _Path:
    """What aiortc takes for an ICE transport: datagrams in, datagrams out."""

    role = "controlled"

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._out = send
        self._waiting: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def put(self, data: bytes) -> None:
        if len(self._waiting) < DATAGRAMS_MAX:
            self._waiting.append(data)
            self._wake()

    def close(self) -> None:
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _recv(self) -> bytes:
        while not self._waiting:
            if self._is_closed:
                raise ConnectionError
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._waiting.popleft()

    async def _send(self, data: bytes) -> None:
        self._out(data)


class _Dtls(RTCDtlsTransport):
    """DTLS without the keys of media, which peers without media need not agree upon."""

    handler: Handler

    def _setup_srtp(self) -> None:
        """Nothing: only data is carried."""

    def _set_state(self, state: Any) -> None:
        super()._set_state(state)
        if self.state in ("closed", "failed"):
            self.handler.lost(f"DTLS {self.state}")


class _Sctp(RTCSctpTransport):
    """SCTP with bounds, and with messages as bytes."""

    def __init__(self, dtls: _Dtls, handler: Handler) -> None:
        super().__init__(dtls)
        self._handler = handler
        self._advertised_rwnd = WINDOW_BYTES
        self._is_deaf = False  # what it is closed with is sent still, but nothing more is taken
        self.on("datachannel", handler.opened)

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent, those on their way aside."""
        waiting = sum(channel.bufferedAmount for channel in self._data_channels.values())
        return waiting + USERDATA_MAX_LENGTH * len(self._outbound_queue)

    @property
    def is_idle(self) -> bool:
        """Whether the peer has acknowledged everything."""
        return not (self._data_channel_queue or self._outbound_queue or self._sent_queue)

    async def _handle_data(self, data: bytes) -> None:
        try:
            await super()._handle_data(data)
        except Violation as exc:
            self._is_deaf = True
            self._handler.violated(exc)
        except Exception as exc:
            # aiortc asserts what a well-behaved peer does, and its parsers raise what they raise.
            self._handler.lost(f"SCTP: {type(exc).__name__}")

    async def _receive_chunk(self, chunk: Any) -> None:
        self._handler.heard()  # its packet bore our verification tag
        await super()._receive_chunk(chunk)

    async def _send_chunk(self, chunk: Any) -> None:
        # Timers of aiortc's send too, and whatever they raise nobody would take.
        try:
            await super()._send_chunk(chunk)
        except (ConnectionError, SSL.Error) as exc:
            self._handler.lost(f"sending failed: {type(exc).__name__}")

    def _get_inbound_stream(self, stream_id: int) -> Any:
        if stream_id not in self._inbound_streams and len(self._inbound_streams) >= STREAMS_MAX:
            raise Violation(CloseCode.POLICY_VIOLATION, f"more than {STREAMS_MAX} channels")
        return super()._get_inbound_stream(stream_id)

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        if self._is_deaf:
            return
        await super()._receive_data_chunk(chunk)
        stream = self._inbound_streams.get(chunk.stream_id)
        if stream is None or not stream.reassembly:
            return
        if self._advertised_rwnd < -MESSAGE_MAX_BYTES:
            raise Violation(CloseCode.MESSAGE_TOO_BIG, "more came than the receiver window had room for")
        if sum(len(each.reassembly) for each in self._inbound_streams.values()) > CHUNKS_MAX:
            raise Violation(CloseCode.MESSAGE_TOO_BIG, "too many pieces of messages")
        if self._advertised_rwnd < WINDOW_BYTES - MESSAGE_MAX_BYTES and _largest(stream.reassembly) > MESSAGE_MAX_BYTES:
            raise Violation(CloseCode.MESSAGE_TOO_BIG, _TOO_BIG)

    async def _receive_sack_chunk(self, chunk: Any) -> None:
        await super()._receive_sack_chunk(chunk)
        # aiortc's window grows as long as all arrives, whatever the peer has room for.
        self._cwnd = min(self._cwnd, FLIGHT_MAX_BYTES, max(chunk.advertised_rwnd, 4 * USERDATA_MAX_LENGTH))
        self._handler.drained()

    async def _data_channel_receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if pp_id == WEBRTC_DCEP:
            await super()._data_channel_receive(stream_id, pp_id, data)
        elif stream_id in self._data_channels:
            if len(data) > MESSAGE_MAX_BYTES:
                raise Violation(CloseCode.MESSAGE_TOO_BIG, _TOO_BIG)
            empty = pp_id in (WEBRTC_STRING_EMPTY, WEBRTC_BINARY_EMPTY)
            binary = pp_id in (WEBRTC_BINARY, WEBRTC_BINARY_EMPTY)
            self._handler.message(stream_id, b"" if empty else data, binary=binary)

    def _data_channel_closed(self, stream_id: int) -> None:
        super()._data_channel_closed(stream_id)
        self._handler.closed(stream_id)

    def _set_state(self, state: Any) -> None:
        super()._set_state(state)
        if self.state == "closed":
            self._handler.lost("SCTP closed")

    def put(self, channel: RTCDataChannel, payload: bytes, *, binary: bool) -> None:
        """Queue a message for a channel, for `push_out` to send."""
        channel._addBufferedAmount(len(payload) or 1)
        if payload:
            self._data_channel_queue.append((channel, WEBRTC_BINARY if binary else WEBRTC_STRING, payload))
        else:
            self._data_channel_queue.append((channel, WEBRTC_BINARY_EMPTY if binary else WEBRTC_STRING_EMPTY, b"\0"))

    async def push_out(self) -> None:
        """Send what waits, as far as the peer has acknowledged what went before."""
        await self._data_channel_flush()


def _largest(pieces: list[DataChunk]) -> int:
    """Return the size of the largest message of which pieces are there, one after the other."""
    largest = size = 0
    after = -1
    for piece in pieces:
        if piece.flags & 0x02 or piece.tsn != after:
            size = 0
        size += len(piece.user_data)
        largest = max(largest, size)
        after = (piece.tsn + 1) % 2**32
    return largest


class Association:
    """One peer's DTLS and SCTP.

    Args:
        certificate: This process' own.
        tasks: Who keeps what has to wait.
        send: Sends a datagram to the peer.
        handler: Who is told.
    """

    def __init__(self, certificate: Certificate, tasks: Tasks, send: Callable[[bytes], None], handler: Handler) -> None:
        self._tasks = tasks
        self._handler = handler
        self._path = _Path(send)
        self._dtls = _Dtls(cast(Any, self._path), [certificate])
        self._dtls.handler = handler
        self._sctp = _Sctp(self._dtls, handler)
        self._is_over = False
        self.take = self._path.put
        """Takes a datagram of the peer."""

    def start(self, fingerprints: tuple[tuple[str, str], ...], *, is_client: bool, port: int, max_bytes: int) -> None:
        """Begin the handshake, or wait for the peer to do so."""
        self._dtls._set_role("client" if is_client else "server")
        remote = RTCDtlsParameters([RTCDtlsFingerprint(name, value) for name, value in fingerprints])
        self._tasks.start(self._run(remote, port, max_bytes), self._started)

    async def _run(self, remote: RTCDtlsParameters, port: int, max_bytes: int) -> None:
        await self._dtls.start(remote)
        if self._dtls.state == "connected":
            await self._sctp.start(RTCSctpCapabilities(maxMessageSize=max_bytes), port)

    def _started(self, _: None, exc: BaseException | None) -> None:
        if exc is not None:
            self._handler.lost(f"the handshake failed: {type(exc).__name__}")

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""
        return self._sctp.backlog

    @property
    def is_idle(self) -> bool:
        """Whether the peer has acknowledged everything."""
        return self._sctp.is_idle

    def put(self, channel: RTCDataChannel, payload: bytes, *, binary: bool) -> None:
        """Queue a message for a channel; `flush` sends it."""
        self._sctp.put(channel, payload, binary=binary)

    def flush(self) -> None:
        """Send what waits."""
        if not self._is_over:
            self._tasks.start(self._sctp.push_out(), self._flushed)

    def _flushed(self, _: None, exc: BaseException | None) -> None:
        if exc is not None:
            self._handler.lost(f"sending failed: {type(exc).__name__}")

    def hold(self, size: int) -> None:
        """Make the peer's window smaller by what was received and is not taken yet."""
        self._sctp._advertised_rwnd -= size

    def release(self, size: int) -> None:
        """Give the window back."""
        was_shut = self._sctp._advertised_rwnd < MESSAGE_MAX_BYTES
        self._sctp._advertised_rwnd += size
        if was_shut and not self._is_over:
            # The peer waits for word of it, and would else only ask now and then.
            self._tasks.start(self._sctp._send_sack(), self._flushed)

    def refuse(self, channel: RTCDataChannel) -> None:
        """Close a channel of the peer's."""
        channel.close()

    def abort(self) -> None:
        """End it at once; the peer is told, but not waited for. May be called twice."""
        if not self._is_over:
            self._is_over = True
            self._tasks.start(self._end())

    async def _end(self) -> None:
        await self._sctp.stop()
        await self._dtls.stop()
        self._path.close()
