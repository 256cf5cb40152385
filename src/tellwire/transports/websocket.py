"""WebSocket: commands and pushes both ways, text or binary as the subprotocol says."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from tellwire.errors import CloseCode, Draining, Forbidden, RequestError, TellwireError, TooManyConnections
from tellwire.node import Caller, Node
from tellwire.protocol.codecs import CODECS, JSON, Codec
from tellwire.protocol.encodings import payload_encoding, websocket_encoding
from tellwire.protocol.pushes import Closing, Push
from tellwire.protocol.session import Session, describe
from tellwire.subscriber import Subscriber
from tellwire.transports.conversation import Conversation
from tellwire.transports.direct import WEBSOCKET, Connections, DirectWebSocketProtocol
from tellwire.transports.frames import FrameParser, FrameProtocol
from tellwire.transports.requests import Query, Receive, Scope, Send, handshake, problem
from tellwire.transports.writer import SLOT_MAX_BYTES

TRANSPORT = "websocket"


class WebSocketDoor(FrameProtocol):
    """A WebSocket that the flush writes to itself."""

    __slots__ = ("_connections", "_encoding", "conversation", "subscriber")

    hears = True

    def __init__(
        self,
        node: Node,
        caller: Caller,
        codec: Codec,
        transport: asyncio.Transport,
        parser: FrameParser,
        connections: Connections,
    ) -> None:
        super().__init__(transport, parser, node.limits.pending_max_bytes)
        self._connections = connections
        self._encoding = websocket_encoding(codec, self.window_bits)
        self.subscriber: Subscriber = node.admit(self, self._encoding, caller)
        self.conversation = Conversation(node, self, self.subscriber, Session(codec))

    def data_received(self, data: bytes) -> None:
        self.subscriber.silent_beats = 0
        super().data_received(data)

    def on_message(self, payload: bytes, *, binary: bool) -> None:
        self.conversation.receive(payload, binary=binary)

    def on_writable(self) -> None:
        self.subscriber.silent_beats = 0
        self.subscriber.advance()

    def on_gone(self) -> None:
        self._connections.discard(self)
        self.conversation.end()

    def send(self, push: Push) -> None:
        self.write_soon(self._encoding.push(push))

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        self.conversation.end(code, reason)
        if code is CloseCode.DEAD and not self.writable:
            # It would not hear a word; what waits for it is let go of at once.
            self.cut()
            return
        self.send(Closing(code, reason, reconnect_in_ms))
        self.close_frames(code, reason)
        if code is CloseCode.DEAD:
            # Whoever does not answer a Ping does not answer this either.
            self.cut()

    def make_room(self, exc: TooManyConnections) -> None:
        """Go, so that another can come."""
        self.close(CloseCode.TRY_AGAIN_LATER, exc.detail)

    def shutdown(self) -> None:
        self.close(CloseCode.GOING_AWAY, "the server stops")


class RefusedWebSocket(FrameProtocol):
    """A WebSocket that is opened just to say why it is closed: a page cannot see the status of a handshake."""

    __slots__ = ("_connections",)

    def __init__(
        self,
        exc: TellwireError,
        codec: Codec,
        transport: asyncio.Transport,
        parser: FrameParser,
        connections: Connections,
    ) -> None:
        super().__init__(transport, parser)
        self._connections = connections
        encoding = websocket_encoding(codec, self.window_bits)
        for push in _farewell(exc):
            self.write_soon(encoding.push(push))
        self.close_frames(_close_code(exc), exc.detail)

    def on_message(self, payload: bytes, *, binary: bool) -> None:
        """Nobody listens."""

    def on_writable(self) -> None:
        """Nothing more is said."""

    def on_gone(self) -> None:
        self._connections.discard(self)

    def shutdown(self) -> None:
        self.cut()


def _farewell(exc: TellwireError) -> tuple[Push, ...]:
    return describe(exc, None), Closing(_close_code(exc), exc.detail)


def _close_code(exc: TellwireError) -> CloseCode:
    return exc.close_code or (CloseCode.FORBIDDEN if isinstance(exc, Forbidden) else CloseCode.POLICY_VIOLATION)


class AsgiWebSocketDoor:
    """A WebSocket through ASGI: what is written waits, bounded, until the server has sent it."""

    hears = True  # a peer that lives takes the heartbeat that it is sent; whether it answers is the server's affair

    def __init__(self, node: Node, caller: Caller, codec: Codec, receive: Receive, send: Send) -> None:
        self.writable = True
        self._codec = codec
        self._receive = receive
        self._send = send
        self._out: deque[bytes] = deque()
        self._size = 0  # bytes in it
        self._pending_max_bytes = node.limits.pending_max_bytes
        self._wake = asyncio.Event()
        self._close: tuple[CloseCode, str] | None = None
        self._is_dead = False
        self._serving: asyncio.Task[None] | None = None
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._drained = asyncio.Event()
        self._encoding = payload_encoding(codec)
        self.subscriber = node.admit(self, self._encoding, caller)
        self.conversation = Conversation(node, self, self.subscriber, Session(codec))

    def write(self, batch: tuple[bytes, ...]) -> None:
        self._keep(batch)
        self.writable = self._size < SLOT_MAX_BYTES and self._close is None

    def send(self, push: Push) -> None:
        self._keep(self._encoding.push(push))
        self._drained.clear()

    def _keep(self, batch: tuple[bytes, ...]) -> None:
        self._out += batch
        self._size += sum(map(len, batch))
        self._wake.set()

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        if self._close is None:
            self.conversation.end(code, reason)
            self.send(Closing(code, reason, reconnect_in_ms))
            self._close = (code, reason)
            self.writable = False
            if code is CloseCode.DEAD and self._serving is not None:
                # The server waits for a socket that takes nothing; the way out is to end without a word.
                self._is_dead = True
                self._serving.cancel()

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    async def serve(self) -> None:
        """Carry the connection until either side closes it."""
        reader = asyncio.ensure_future(self._read())
        self._serving = asyncio.current_task()
        try:
            await self._write()
        except asyncio.CancelledError:
            if not self._is_dead:
                raise
        finally:
            self._serving = None
            self.conversation.end()
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _read(self) -> None:
        try:
            while (message := await self._receive())["type"] != "websocket.disconnect":
                text = message.get("text")
                payload = message.get("bytes") if text is None else text.encode()
                self.conversation.receive(payload or b"", binary=text is None)
                await self._may_read.wait()
                if self._size > self._pending_max_bytes:
                    await self._drained.wait()
        finally:
            self._close = self._close or (CloseCode.NORMAL, "")
            self._out.clear()
            self._size = 0
            self._wake.set()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._out:
                payload = self._out.popleft()
                if self._codec.binary:
                    await self._send({"type": "websocket.send", "bytes": payload})
                else:
                    await self._send({"type": "websocket.send", "text": payload.decode()})
                self._size = max(0, self._size - len(payload))
            if self._close is not None:
                code, reason = self._close
                with contextlib.suppress(Exception):  # servers differ in what they raise when the peer is gone already
                    await self._send({"type": "websocket.close", "code": int(code), "reason": reason[:100]})
                return
            self._drained.set()
            self.writable = True
            self.subscriber.silent_beats = 0
            self.subscriber.advance()


class WebSocketEndpoint:
    """``/v1/ws``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        node = self._node
        extension: DirectWebSocketProtocol | None = scope.get("extensions", {}).get(WEBSOCKET)
        refusal: TellwireError | None = None
        try:
            node.access.check(scope["headers"], scope["scheme"])
            if node.turns_away:
                raise Draining("this node is going away; connect again")
            said = handshake(node, scope, TRANSPORT)
            try:
                identity = await node.entrance.identify(said)
            except RequestError as exc:
                refusal = exc
                identity = None
            caller = Caller(identity, TRANSPORT, said.address)
            node.check_room(caller)
            query = Query(scope)
            caller.session = query.session
            since = query.text("since")
        except TellwireError as exc:
            node.counters.rejects[exc.code] += 1
            await self._refuse(exc, scope, receive, send)
            return
        subprotocol = next((name for name in scope.get("subprotocols", ()) if name in CODECS), None)
        codec = CODECS[subprotocol] if subprotocol else JSON
        if refusal is not None:
            node.counters.rejects[refusal.code] += 1
            await self._turn_away(refusal, subprotocol, codec, extension, receive, send)
            return
        if extension is not None:
            door: list[WebSocketDoor] = []

            def make(transport: asyncio.Transport, parser: FrameParser, open_: Connections) -> WebSocketDoor:
                door.append(WebSocketDoor(node, caller, codec, transport, parser, open_))
                return door[0]

            extension.hand_over(subprotocol, make)
            if door and caller.identity is None and door[0].visit is not None:
                # One that still has to say who it is makes room for others, should there be many of its kind.
                caller.visit = door[0].visit
                caller.visit.unknown(door[0].make_room)
            if door and node.own_channels(caller):
                door[0].conversation.open(since)
            return
        await receive()
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        asgi = AsgiWebSocketDoor(node, caller, codec, receive, send)
        if node.own_channels(caller):
            asgi.conversation.open(since)
        await asgi.serve()

    async def _turn_away(
        self,
        exc: TellwireError,
        subprotocol: str | None,
        codec: Codec,
        extension: DirectWebSocketProtocol | None,
        receive: Receive,
        send: Send,
    ) -> None:
        """Open the connection, say why it cannot be, and close it."""
        if extension is not None:
            extension.hand_over(
                subprotocol, lambda transport, parser, open_: RefusedWebSocket(exc, codec, transport, parser, open_)
            )
            return
        await receive()
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        for push in _farewell(exc):
            payload = codec.encode(push)
            field = {"bytes": payload} if codec.binary else {"text": payload.decode()}
            await send({"type": "websocket.send", **field})
        await send({"type": "websocket.close", "code": int(_close_code(exc)), "reason": exc.detail[:100]})

    async def _refuse(self, exc: TellwireError, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the handshake with an error; servers that cannot give it a body answer 403."""
        await receive()
        if "websocket.http.response" in scope.get("extensions", {}):
            answer = problem(exc)
            await send(
                {"type": "websocket.http.response.start", "status": answer.status, "headers": answer.headers(())}
            )
            await send({"type": "websocket.http.response.body", "body": answer.body})
        else:
            await send({"type": "websocket.close", "code": int(CloseCode.POLICY_VIOLATION), "reason": exc.detail[:100]})
