"""What a reader's pushes go through on their way into a stream of gRPC."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from tellwire.errors import CloseCode, RequestError, TellwireError, TooManyConnections
from tellwire.node import Caller, Node
from tellwire.protocol.proto import tellwire_pb2 as pb
from tellwire.protocol.protobuf import CHUNK_BYTES, ProtobufEncoding, parse, read_command
from tellwire.protocol.pushes import Closing, Push
from tellwire.protocol.session import Session
from tellwire.subscriber import Subscriber
from tellwire.transports.conversation import Conversation
from tellwire.transports.grpc.statuses import Context, error_of_close, refuse
from tellwire.transports.writer import SLOT_MAX_BYTES

GATHER_S = 0.001
"""Seconds for which the answers to a peer that has many commands under way are gathered into one message."""

FAREWELL_S = 5.0
"""Seconds that a peer has to take the last push before the stream is cut."""


class StreamDoor:
    """A stream of pushes: what is written waits, bounded, until gRPC's flow control has let it go.

    All that waits goes into one message: several `Pushes` behind each other are one.
    """

    hears = True  # a peer that lives takes the heartbeat that it is sent

    def __init__(self, node: Node, encoding: ProtobufEncoding, caller: Caller, context: Context) -> None:
        self.writable = True
        self._node = node
        self._encoding = encoding
        self._context = context
        self._out: deque[bytes] = deque()
        self._size = 0  # bytes in it, and in what is being sent
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._end: tuple[CloseCode, str] | None = None
        self._cut_later: asyncio.TimerHandle | None = None
        self._serving: asyncio.Task[None] | None = None
        self._is_cut = False
        self.is_writing = False
        self.hears_more = False
        """Whether the peer said something while it was being answered: one that waits for the answer could not."""
        self.subscriber: Subscriber = node.admit(self, encoding, caller)

    def write(self, batch: tuple[bytes, ...]) -> None:
        self._keep(batch)
        self.writable = self._size < SLOT_MAX_BYTES and self._end is None

    def send(self, push: Push) -> None:
        """Send something of the server's own."""
        self._keep(self._encoding.push(push))

    def _keep(self, batch: tuple[bytes, ...]) -> None:
        if self._end is None:
            self._out += batch
            self._size += sum(map(len, batch))
            self._drained.clear()
            self._wake.set()

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        if self._end is not None:
            return
        self.dismiss(code, reason)
        if code is not CloseCode.NORMAL:
            self.send(Closing(code, reason, reconnect_in_ms))
        self._end = (code, reason)
        self.writable = False
        self._wake.set()
        if code is CloseCode.DEAD:
            self._cut()
        else:
            self._cut_later = asyncio.get_running_loop().call_later(FAREWELL_S, self._cut)

    def _cut(self) -> None:
        """End what is being sent: gRPC waits for a peer that takes nothing. The status comes behind what it takes."""
        if self._serving is not None:
            self._is_cut = True
            self._serving.cancel()

    def make_room(self, exc: TooManyConnections) -> None:
        """Go, so that another can come."""
        self.close(CloseCode.TRY_AGAIN_LATER, exc.detail)

    def dismiss(self, code: CloseCode | None = None, reason: str = "") -> None:
        """Let go of the reader; may be called twice."""
        self._node.dismiss(self.subscriber, code, reason)

    async def serve(self) -> None:
        """Send until the peer goes away or the stream is closed; then end the call."""
        self._serving = serving = asyncio.current_task()
        try:
            await self._write()
        except asyncio.CancelledError:
            if not self._is_cut or serving is None:
                raise
            # gRPC resets nothing where a call ends so: a peer that wakes up would wait for ever.
            serving.uncancel()
        finally:
            self._serving = None
            if self._cut_later is not None:
                self._cut_later.cancel()
            self.dismiss()
        assert self._end is not None
        error = error_of_close(*self._end)
        if error is not None:
            await refuse(self._context, error)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self.hears_more:
                # A write costs more than all that is in it, so that it waits for the answers that are about to come.
                self.hears_more = False
                await asyncio.sleep(GATHER_S)
            while self._out:
                message = self._next()
                self.is_writing = True
                await self._context.write(message)
                self.is_writing = False
                self._size -= len(message)
            if self._end is not None:
                return
            self._drained.set()
            self.on_drained()
            self.writable = True
            self.subscriber.silent_beats = 0
            self.subscriber.advance()

    def on_drained(self) -> None:
        """Everything was sent."""

    def _next(self) -> bytes:
        """Take what goes into the next message: what is alone goes as it is, the same object for all its readers."""
        first = self._out.popleft()
        size = len(first)
        if not self._out or size + len(self._out[0]) > CHUNK_BYTES:
            return first
        parts = [first]
        while self._out and size + len(self._out[0]) <= CHUNK_BYTES:
            size += len(self._out[0])
            parts.append(self._out.popleft())
        return b"".join(parts)


class ConversationDoor(StreamDoor):
    """A stream both ways: commands up, their replies and pushes down."""

    def __init__(self, node: Node, encoding: ProtobufEncoding, caller: Caller, context: Context) -> None:
        super().__init__(node, encoding, caller, context)
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._has_heard_all = False
        self.conversation = Conversation(node, self, self.subscriber, Session(encoding.codec))

    def dismiss(self, code: CloseCode | None = None, reason: str = "") -> None:
        self.conversation.end(code, reason)

    def pause_reading(self) -> None:
        """Take nothing more from the peer until resume_reading; may be called twice."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Take from the peer again; may be called twice."""
        self._may_read.set()

    async def converse(self, requests: AsyncIterator[bytes]) -> None:
        """Carry the stream until either side ends it."""
        reader = asyncio.ensure_future(self._read(requests))
        try:
            await self.serve()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        try:
            async for payload in requests:
                self.subscriber.silent_beats = 0
                self.hears_more = self.hears_more or self.is_writing
                for command in parse(pb.Commands, payload).commands:
                    self._take(command)
                    await self._may_read.wait()
                    if self._size > self._node.limits.pending_max_bytes:
                        await self._drained.wait()
        except TellwireError as exc:
            self.close(exc.close_code or CloseCode.POLICY_VIOLATION, exc.detail)
        except Exception as exc:
            self._node.hub.report("a stream of commands could not be read", exc)
            self.close(CloseCode.INTERNAL_ERROR, "the server failed to read; its log says why")
        else:
            # It says nothing more; what it reads goes on until it goes away.
            self._has_heard_all = True
            self._wake.set()

    def _take(self, command: pb.Command) -> None:
        try:
            given, packed = read_command(command, packed=self._encoding.codec.binary)
        except RequestError as exc:
            self.conversation.refuse(exc)
        else:
            self.conversation.take(given, packed=packed)

    def on_drained(self) -> None:
        if self._has_heard_all and self.conversation.is_idle and not self.subscriber.channels:
            self.close(CloseCode.NORMAL, "")
