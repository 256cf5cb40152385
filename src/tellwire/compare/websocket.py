"""A WebSocket that reads a channel, or publishes (spec, sections 6, 7 and 10)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tellwire.compare.failures import Unmeasured, answered, coded
from tellwire.compare.reader import Reader, Take
from tellwire.compare.site import Site, reset

MESSAGE_MAX_BYTES = 64 * 1024 * 1024
"""Largest message that is taken."""


class Push(msgspec.Struct):
    """What is read of a push or a reply; the data of a message is a text here."""

    type: str = ""
    data: str = ""
    seq: int = 0
    cursor: str = ""
    code: str | int = ""
    message: str = ""
    reason: str = ""


class WebSocket(asyncio.Protocol):
    """A connection; what comes is handed to `on_push`, and why it ended to `on_lost`."""

    def __init__(self, site: Site, *, packed: bool) -> None:
        self._site = site
        self._packed = packed
        module: Any = msgspec.msgpack if packed else msgspec.json
        self._encode = module.Encoder().encode
        self._decode = module.Decoder(Push).decode
        scheme = "wss" if site.tls else "ws"
        self._protocol = ClientProtocol(
            parse_uri(f"{scheme}://{site.netloc}{site.target('/v1/ws')}"),
            subprotocols=[Subprotocol("tellwire.v1.msgpack" if packed else "tellwire.v1.json")],
            max_size=MESSAGE_MAX_BYTES,
        )
        self._transport: asyncio.Transport | None = None
        self._open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pushes: list[Push] = []

    async def open(self) -> None:
        """Connect and shake hands; raises Unmeasured."""
        await self._site.dial(self)
        request = self._protocol.connect()
        for name, value in self._site.fields().items():
            if name not in request.headers:
                request.headers[name] = value
        self._protocol.send_request(request)
        self._write()
        await self._open

    def send(self, command: dict[str, Any]) -> None:
        """Send a command; once it is lost, of which `on_lost` has told, nothing is sent any more."""
        if self._protocol.state is not State.OPEN:
            return
        encoded: bytes = self._encode(command)
        if self._packed:
            self._protocol.send_binary(encoded)
        else:
            self._protocol.send_text(encoded)
        self._write()

    def abort(self) -> None:
        """Cut it (RST)."""
        reset(self._transport)

    def on_pushes(self, pushes: list[Push]) -> None:
        """Take what one read brought."""

    def on_lost(self, why: Unmeasured) -> None:
        """Take notice that it cannot go on."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by inheritance.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        pushes: list[Push] = []
        try:
            for event in self._protocol.events_received():
                if isinstance(event, Response):
                    self._shaken()
                elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                    pushes.append(self._decode(event.data))
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            self._fail(Unmeasured("broken", f"what came is not this protocol: {exc}"))
            return
        self._write()
        for push in pushes:
            if push.type == "error" and push.code in ("unauthorized", "expired", "revoked", "forbidden"):
                self._fail(coded(str(push.code), push.message))
                return
        if pushes:
            self.on_pushes(pushes)

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        # A refusal without a length ends with the connection: only now the handshake has failed.
        self._shaken()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(self._why_lost(exc))

    def _why_lost(self, exc: Exception | None) -> Unmeasured:
        if self._protocol.close_code not in (None, 1006):
            said = f" {self._protocol.close_reason}" if self._protocol.close_reason else ""
            return Unmeasured("broken", f"the server closed the WebSocket: {self._protocol.close_code}{said}")
        return Unmeasured("broken", f"the WebSocket to {self._site.netloc} broke{f': {exc}' if exc else ''}")

    def _shaken(self) -> None:
        if self._open.done():
            return
        failure = self._protocol.handshake_exc
        if failure is None:
            if self._protocol.state.name == "OPEN":
                self._open.set_result(None)
            return
        if isinstance(failure, InvalidStatus):
            answer = failure.response
            content_type = answer.headers.get("Content-Type", "")
            self._fail(answered(answer.status_code, content_type, bytes(answer.body or b"")))
        elif isinstance(failure, InvalidHandshake):
            self._fail(Unmeasured("blocked", f"something on the way changed the handshake: {failure}"))
        else:
            self._fail(Unmeasured("broken", f"there came no answer to the handshake: {failure}"))

    def _fail(self, why: Unmeasured) -> None:
        if not self._open.done():
            self._open.set_exception(why)
            self._open.exception()
        if self._transport is not None:
            self._transport.abort()
        self.on_lost(why)

    def _write(self) -> None:
        if self._transport is None:
            return
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)


class _Reading(WebSocket):
    def __init__(self, reader: WebSocketReader, *, packed: bool) -> None:
        super().__init__(reader.site, packed=packed)
        self._reader = reader

    def on_pushes(self, pushes: list[Push]) -> None:
        self._reader.read(pushes)

    def on_lost(self, why: Unmeasured) -> None:
        self._reader.fail(why)


class WebSocketReader(Reader):
    """Reads over a WebSocket in JSON."""

    packed = False

    def __init__(self, site: Site, channel: str, take: Take, *, poll_s: float = 1.0) -> None:
        super().__init__(site, channel, take, poll_s=poll_s)
        self._socket = _Reading(self, packed=self.packed)
        self._live: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._epoch = ""

    async def open(self, since: str = "") -> None:
        await self._socket.open()
        place = {"since": since} if since else {}
        self._socket.send({"type": "subscribe", "ref": 1, "channel": self.channel, **place})
        await self._live

    def abort(self) -> None:
        self._socket.abort()

    def fail(self, why: Unmeasured) -> None:
        super().fail(why)
        if not self._live.done():
            self._live.set_exception(why)
            self._live.exception()

    def read(self, pushes: list[Push]) -> None:
        """Take what one read brought."""
        has_messages = False
        for push in pushes:
            if push.type == "message":
                has_messages = True
                self.cursor = f"{self._epoch}.{push.seq}"
                self.take(push.data)
            elif push.type == "subscribed":
                self.cursor = push.cursor
                self._epoch = push.cursor.partition(".")[0]
                if not self._live.done():
                    self._live.set_result(None)
            elif push.type == "error" and not self._live.done():
                self.fail(coded(str(push.code), push.message))
        self.arrivals += has_messages


class PackedWebSocketReader(WebSocketReader):
    """Reads over a WebSocket in MessagePack."""

    packed = True
