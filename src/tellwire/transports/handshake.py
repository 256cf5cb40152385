"""The opening handshake of a WebSocket (RFC 6455, section 4.2), and how an endpoint takes the connection over.

What a client of any kind sends is read from the header fields that the HTTP parser has found already. Whatever is
out of the ordinary goes the long way round, through uvicorn and websockets, which know how to answer it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from hashlib import sha1
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension
from websockets.protocol import OPEN

from tellwire.limits import Visit
from tellwire.tasks import Tasks
from tellwire.transports.frames import FrameParser, FrameProtocol
from tellwire.transports.writer import write_at_once

WEBSOCKET = "tellwire.websocket"
"""Name of the extension that hands a WebSocket over."""

Connections = set[Any]
"""uvicorn's open connections: whoever takes one over is in it, and leaves it."""

MakeDoor = Callable[[asyncio.Transport, FrameParser, Connections], FrameProtocol]

EARLY_MAX_BYTES = 65_536
"""What may come from a client before its handshake is answered; none should (RFC 6455, section 4.1)."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3

_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n"
)

# Without context a compressed message can be shared by all who get it (RFC 7692, section 7.1.1), and an idle
# connection keeps no 32 KiB windows.
_DEFLATE = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)

_log = logging.getLogger("tellwire.websocket")
_log.setLevel(logging.WARNING)  # the parser would note every connection that opens and closes

_app_log = logging.getLogger("uvicorn.error")


# RFC 9110, sections 5.6.1 and 5.6.2; lists with holes in them go the long way, too.
_NAMES = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")


class Opening(NamedTuple):
    """A handshake that can be accepted."""

    accept: bytes
    """Value of ``Sec-WebSocket-Accept``."""
    subprotocols: list[str]
    compression: tuple[bytes, PerMessageDeflate] | None
    """What the client is answered, and an example of the extension."""


def read_opening(headers: list[tuple[bytes, bytes]], *, has_deflate: bool = True) -> Opening | None:
    """Read the fields of a ``GET`` over HTTP/1.1 that asks for a WebSocket; None where they are out of the ordinary.

    `headers` have lower-case names. Checked is what RFC 6455, section 4.2.1 lists; no field may come twice, and none
    may announce a body.
    """
    fields = dict(headers)
    if len(fields) != len(headers) or b"content-length" in fields or b"transfer-encoding" in fields:
        return None
    key = fields.get(b"sec-websocket-key", b"")
    connection = fields.get(b"connection", b"")
    names = fields.get(b"sec-websocket-protocol")
    if (
        b"host" not in fields
        or fields.get(b"upgrade", b"").lower() != b"websocket"
        or fields.get(b"sec-websocket-version") != b"13"
        or not _NAMES.fullmatch(connection)
        or b"upgrade" not in map(bytes.strip, connection.lower().split(b","))
        or (names is not None and not _NAMES.fullmatch(names))
    ):
        return None
    try:
        if len(key) != 24 or len(a2b_base64(key, strict_mode=True)) != 16:
            return None
        offer = fields.get(b"sec-websocket-extensions")
        compression = negotiate(offer) if offer is not None and has_deflate else None
    except (Error, InvalidHandshake):
        return None
    return Opening(
        b64encode(sha1(key + _GUID, usedforsecurity=False).digest()),
        [] if names is None else [name.strip() for name in names.decode("latin-1").split(",")],
        compression,
    )


@lru_cache(maxsize=64)  # browsers have a handful of ways to offer it
def negotiate(offer: bytes) -> tuple[bytes, PerMessageDeflate] | None:
    """Choose compression from what a client offers; return the answer and an example of the extension, None for none.

    Raises InvalidHandshake where the offer cannot be read.
    """
    for name, parameters in parse_extension(offer.decode("latin-1")):
        if name == _DEFLATE.name:
            try:
                chosen, extension = _DEFLATE.process_request_params(parameters, [])
            except InvalidHandshake:
                continue  # another of its offers may do
            return build_extension([(name, chosen)]).encode(), extension
    return None


class DirectHandshake(asyncio.Protocol):
    """A handshake that the application answers: by the extension if it takes the connection, else by ASGI."""

    def __init__(
        self, transport: asyncio.Transport, opening: Opening, visit: Visit | None, connections: Connections
    ) -> None:
        self.transport = transport
        self.visit = visit
        """The connection's place in the counts, which goes to whoever takes it over."""
        self._opening = opening
        self._connections = connections
        self._answered = False
        self._taken = False
        self._gone = asyncio.Event()
        self._early: list[bytes] = []
        self._told = False
        self._start: dict[str, Any] | None = None
        self.max_size = 2**20
        self.default_headers: list[tuple[bytes, bytes]] = []

    # For the server

    def run(self, app: Any, scope: dict[str, Any], tasks: Tasks) -> asyncio.Task[None] | None:
        """Ask the application; returns a task where it has to wait before it says yes or no."""
        scope["extensions"][WEBSOCKET] = self
        self._connections.add(self)
        task = tasks.start(_call(app, scope, self.receive, self.send), self._ended)
        if not self._taken:
            self.transport.set_protocol(self)
        return task

    def _ended(self, _: None, exc: BaseException | None) -> None:
        if exc is not None and not isinstance(exc, asyncio.CancelledError):
            _app_log.error("Exception in ASGI application\n", exc_info=exc)
        if not self._answered:
            self._refuse(500, [], b"")
        elif exc is not None and not self._taken:
            self.transport.abort()

    # For the application, as an extension

    def hand_over(self, subprotocol: str | None, make: MakeDoor) -> None:
        """Finish the handshake with a subprotocol, and hand the connection to what `make` returns."""
        if self._gone.is_set() or self._answered:
            return
        self._answered = True
        opening = self._opening
        answer = [_SWITCHING % opening.accept]
        for name, value in self.default_headers:
            answer += (name, b": ", value, b"\r\n")
        parser = FrameParser(state=OPEN, max_size=self.max_size, logger=_log)
        parser.is_before_frame = True
        if opening.compression is not None:
            value, like = opening.compression
            answer.append(b"Sec-WebSocket-Extensions: %b\r\n" % value)
            parser.extensions = [
                PerMessageDeflate(
                    like.remote_no_context_takeover,
                    like.local_no_context_takeover,
                    like.remote_max_window_bits,
                    like.local_max_window_bits,
                    like.compress_settings,
                )
            ]
        if subprotocol is not None:
            answer.append(b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode("latin-1"))
        answer.append(b"\r\n")
        write_at_once(self.transport, b"".join(answer))
        protocol = make(self.transport, parser, self._connections)
        self._taken = True
        take_over(self, protocol, self._connections)
        if self._early:
            early, self._early = b"".join(self._early), []
            protocol.data_received(early)

    # For the application, as ASGI

    async def receive(self) -> dict[str, Any]:
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        await self._gone.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "websocket.http.response.start":
                self._start = message
            case "websocket.http.response.body" if self._start is not None:
                self._refuse(self._start["status"], self._start.get("headers", []), message.get("body", b""))
            case "websocket.close":
                self._refuse(403, [], b"")
            case other:
                raise RuntimeError(f"{other!r} is not sent here: a WebSocket at this path is taken by its extension")

    def _refuse(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        if self._gone.is_set() or self._answered:
            return
        self._answered = True
        fields = [*self.default_headers, *headers, (b"connection", b"close")]
        if not any(name.lower() == b"content-length" for name, _ in fields):
            fields.append((b"content-length", b"%d" % len(body)))
        lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % field for field in fields), b"\r\n", body]
        self.transport.write(b"".join(lines))
        self.transport.close()

    # From the transport, while the application thinks

    def data_received(self, data: bytes) -> None:
        self._early.append(data)
        if sum(map(len, self._early)) > EARLY_MAX_BYTES:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._gone.set()
        if self.visit is not None:
            self.visit.leave()

    def shutdown(self) -> None:
        """Refuse because the server stops; uvicorn calls it."""
        self._refuse(503, [], b"")


async def _call(app: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    await app(*arguments)


def take_over(before: Any, protocol: FrameProtocol, connections: Connections) -> None:
    """Put a door in the place of what has carried the handshake."""
    protocol.visit, before.visit = before.visit, None
    connections.discard(before)
    connections.add(protocol)
    before.transport.set_protocol(protocol)


def websocket_scope(scope: dict[str, Any], url: bytes, opening: Opening) -> dict[str, Any]:
    """Make the scope of a WebSocket out of that of its request."""
    raw_path, _, query = url.partition(b"?")
    root: str = scope["root_path"]
    path = raw_path.decode("ascii")
    return {
        **scope,
        "type": "websocket",
        "asgi": {**scope["asgi"], "spec_version": "2.4"},
        "scheme": "wss" if scope["scheme"] == "https" else "ws",
        "path": root + (unquote(path) if "%" in path else path),
        "raw_path": root.encode("ascii") + raw_path,
        "query_string": query,
        "subprotocols": opening.subprotocols,
        "extensions": {"websocket.http.response": {}},
    }


class DirectWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with the extension; once the connection is handed over it has no part in it."""

    visit: Visit | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = FrameParser(
            extensions=[_DEFLATE] if self.config.ws_per_message_deflate else None,
            max_size=self.config.ws_max_size,
            logger=_log,
        )

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            cast(dict[str, Any], self.scope)["extensions"][WEBSOCKET] = self

    def hand_over(self, subprotocol: str | None, make: MakeDoor) -> None:
        """Finish the handshake with a subprotocol, and hand the connection to what `make` returns."""
        if self.disconnected:
            return
        if subprotocol is not None:
            self.response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self.conn.send_response(self.response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.handshake_complete = True
        # run_asgi closes the transport of an application that is done, unless a closing handshake is under way.
        self.close_timer = self.loop.call_later(0, lambda: None)
        take_over(self, make(self.transport, cast(FrameParser, self.conn), self.connections), self.connections)
        # Nothing is left in a circle, for the garbage collector to find.
        cast(dict[str, Any], self.scope)["extensions"].pop(WEBSOCKET)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.visit is not None:
            self.visit.leave()
