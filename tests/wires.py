"""Clients on bare sockets, which send what the test says and show what really came.

They know HTTP/1.1 and RFC 6455 by themselves and share no code with the server, so that a broken frame can be sent and
a wrong one is seen. None of them sleeps: each waits for bytes, until a watchdog gives up.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import select
import socket
import ssl
import struct
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, Self

import msgspec

WATCHDOG_S = 60.0
"""Seconds after which bytes that should come are given up; no test measures a time."""

Fields = Iterable[tuple[str, str]]


class Address(Protocol):
    """What a client has to know of a server."""

    @property
    def port(self) -> int: ...


class At(NamedTuple):
    """Where a server is, whichever it is at the moment."""

    port: int


class Closed(Exception):
    """The server closed the connection; the bytes that came before are in ``args[0]``."""


class Connection:
    """A TCP connection, buffered; with `context` over TLS, with `receive_buffer` bytes of window of its own."""

    def __init__(
        self, server: Address, *, context: ssl.SSLContext | None = None, receive_buffer: int | None = None
    ) -> None:
        raw = socket.socket()
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(WATCHDOG_S)
        try:
            raw.connect(("127.0.0.1", server.port))
        except OSError:
            raw.close()
            raise
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = raw if context is None else context.wrap_socket(raw, server_hostname="localhost")
        self.host = f"127.0.0.1:{server.port}"
        self._buffer = bytearray()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.socket.sendall(data)

    def send_while_taken(self, piece: bytes, most: int) -> int:
        """Send `piece` again and again until the server takes no more, or `most` bytes; return how many it took."""
        self.socket.setblocking(False)
        sent = 0
        while sent < most and select.select([], [self.socket], [], 0.5)[1]:
            sent += self.socket.send(memoryview(piece)[sent % len(piece) :])
        self.socket.settimeout(WATCHDOG_S)
        return sent

    def read_exactly(self, count: int) -> bytes:
        """Read `count` bytes; raises Closed where fewer come."""
        while len(self._buffer) < count:
            self._fill()
        return self._take(count)

    def read_until(self, mark: bytes) -> bytes:
        """Read up to `mark`, which is taken but not returned."""
        start = 0
        while (place := self._buffer.find(mark, start)) < 0:
            start = max(0, len(self._buffer) - len(mark) + 1)
            self._fill()
        return self._take(place + len(mark))[: -len(mark)]

    def read_to_end(self) -> bytes:
        """Read until the server closes."""
        while True:
            try:
                self._fill()
            except Closed:
                return self._take(len(self._buffer))

    def is_silent(self, seconds: float = 0.05) -> bool:
        """Tell whether nothing has come that was not read; for what must not come, after what shows that it was due."""
        if self._buffer:
            return False
        self.socket.settimeout(seconds)
        try:
            self._fill()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(WATCHDOG_S)
        return False

    def close(self) -> None:
        """Close; may be called twice."""
        self.socket.close()

    def _fill(self) -> None:
        try:
            data = self.socket.recv(1 << 18)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        if not data:
            raise Closed(bytes(self._buffer))
        self._buffer += data

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Response(NamedTuple):
    """A whole HTTP response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, which is JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code of problem+json."""
        assert self.headers["content-type"] == "application/problem+json", self
        problem = self.json()
        assert problem["status"] == self.status
        assert problem["detail"]
        code: str = problem["code"]
        return code


class Http(Connection):
    """An HTTP/1.1 connection."""

    chunked = False

    def request(
        self, method: str, target: str, *, headers: Fields = (), body: bytes | None = None, version: str = "1.1"
    ) -> Response:
        """Send a request and read its answer."""
        self.send_request(method, target, headers=headers, body=body, version=version)
        return self.read_response(method)

    def get(self, target: str, *, headers: Fields = ()) -> Response:
        """Send a GET and read its answer."""
        return self.request("GET", target, headers=headers)

    def post(self, target: str, value: Any, *, headers: Fields = ()) -> Response:
        """Post `value` as JSON and read the answer."""
        return self.request(
            "POST", target, headers=[("Content-Type", "application/json"), *headers], body=json.dumps(value).encode()
        )

    def send_request(
        self, method: str, target: str, *, headers: Fields = (), body: bytes | None = None, version: str = "1.1"
    ) -> None:
        """Send a request."""
        fields = list(headers)
        if not any(name.lower() == "host" for name, _ in fields):
            fields.insert(0, ("Host", self.host))
        if body is not None:
            fields.append(("Content-Length", str(len(body))))
        head = f"{method} {target} HTTP/{version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
        self.send(head.encode("latin-1") + b"\r\n" + (body or b""))

    def read_head(self) -> tuple[int, dict[str, str]]:
        """Read a status line and header fields; the body is then to be read by `read_piece`."""
        status_line, *lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.chunked = headers.get("transfer-encoding") == "chunked"
        return int(status_line.split(" ")[1]), headers

    def read_granted_head(self) -> dict[str, str]:
        """Read the head of a response that is to be a stream; raises Refused with the whole where it is not 200."""
        status, headers = self.read_head()
        if status != 200:
            raise Refused(Response(status, headers, self.read_exactly(int(headers.get("content-length", 0)))))
        return headers

    def read_piece(self) -> bytes:
        """Read the next piece of a body without a length; empty at its end."""
        if not self.chunked:
            try:
                if not self._buffer:
                    self._fill()
            except Closed:
                return b""
            return self._take(len(self._buffer))
        size = int(self.read_until(b"\r\n"), 16)
        piece = self.read_exactly(size)
        assert self.read_exactly(2) == b"\r\n"
        return piece

    def read_response(self, method: str = "GET") -> Response:
        """Read a whole response."""
        status, headers = self.read_head()
        if method == "HEAD" or status in (204, 304):
            return Response(status, headers, b"")
        if "content-length" in headers:
            return Response(status, headers, self.read_exactly(int(headers["content-length"])))
        pieces = []
        while piece := self.read_piece():
            pieces.append(piece)
        return Response(status, headers, b"".join(pieces))


class Frame(NamedTuple):
    """A WebSocket frame as it came; ``rsv`` is the three reserved bits."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int


CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def write_frame(
    opcode: int,
    payload: bytes,
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length: int | None = None,
    key: bytes = b"\0\0\0\0",
) -> bytes:
    """Write a client's frame, or one that is wrong in some way; `length` is what it claims, where that is not true.

    A key of zeros is a masking key; the bytes stay as they are.
    """
    claimed = len(payload) if length is None else length
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if claimed < 126:
        head += bytes([mask_bit | claimed])
    elif claimed < 65_536:
        head += struct.pack("!BH", mask_bit | 126, claimed)
    else:
        head += struct.pack("!BQ", mask_bit | 127, claimed)
    if not masked:
        return head + payload
    return head + key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


class WebSocket(Http):
    """A WebSocket on ``/v1/ws``; `packed` speaks MessagePack, `deflate` offers compression.

    `query` goes into the address, `token` into the subprotocols.
    """

    def __init__(
        self,
        server: Address,
        *,
        packed: bool = False,
        deflate: str = "",
        query: str = "",
        token: str = "",
        headers: Fields = (),
        context: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        super().__init__(server, context=context, receive_buffer=receive_buffer)
        self.packed = packed
        self.answers = True  # pings
        self.waiting: list[dict[str, Any]] = []
        fields = handshake_fields(packed=packed, deflate=deflate, token=token)
        try:
            self.send_request("GET", f"/v1/ws?{query}" if query else "/v1/ws", headers=[*fields, *headers])
            status, self.headers = self.read_head()
            if status != 101:
                body = self.read_exactly(int(self.headers.get("content-length", 0)))
                raise Refused(Response(status, self.headers, body))
        except BaseException:
            self.close()
            raise

    def say(self, **command: Any) -> None:
        """Send a command."""
        if self.packed:
            self.send(write_frame(BINARY, msgspec.msgpack.encode(command)))
        else:
            self.send(write_frame(TEXT, json.dumps(command).encode()))

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and read its answer; pushes that come before wait for `read`."""
        ref = secrets.token_hex(4)
        self.say(ref=ref, **command)
        passed = []
        while (push := self.read()).get("ref") != ref:
            passed.append(push)
        self.waiting = passed + self.waiting
        return push

    def read(self) -> dict[str, Any]:
        """Read the next push that is not a heartbeat; raises Closed with the close code and reason."""
        if self.waiting:
            return self.waiting.pop(0)
        while True:
            push: dict[str, Any] = self.decode(self.read_data())
            if push["type"] != "heartbeat":
                return push

    def decode(self, payload: bytes) -> Any:
        """Read one payload."""
        return msgspec.msgpack.decode(payload) if self.packed else json.loads(payload)

    def read_data(self) -> bytes:
        """Read the next payload that is no control frame; answers pings, raises Closed at a close frame."""
        while True:
            frame = self.read_frame()
            if frame.opcode == PING:
                if self.answers:
                    self.send(write_frame(PONG, frame.payload))
            elif frame.opcode == CLOSE:
                code = struct.unpack("!H", frame.payload[:2])[0] if frame.payload else 1005
                raise Closed(code, frame.payload[2:].decode())
            elif frame.opcode in (TEXT, BINARY):
                assert frame.opcode == (BINARY if self.packed else TEXT)
                assert frame.fin
                if frame.rsv & 4:
                    return zlib.decompressobj(wbits=-15).decompress(frame.payload + b"\0\0\xff\xff")
                return frame.payload

    def read_frame(self) -> Frame:
        """Read a frame."""
        first, second = self.read_exactly(2)
        assert not second & 0x80, "a server masks nothing"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.read_exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.read_exactly(8))
        return Frame(first & 0x0F, self.read_exactly(size), bool(first & 0x80), first >> 4 & 7)

    def read_close(self) -> tuple[int, str]:
        """Read on to the close frame; return its code and reason. Answers it, and sees the connection end."""
        while True:
            try:
                self.waiting.clear()
                self.read()
            except Closed as exc:
                if len(exc.args) != 2:
                    raise
                code, reason = exc.args
                with contextlib.suppress(OSError):
                    self.send(write_frame(CLOSE, struct.pack("!H", code)))
                self.read_to_end()
                return code, reason


class Refused(Exception):
    """The handshake, or a reading, was refused; ``response`` says why."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response


def handshake_fields(*, packed: bool = False, deflate: str = "", token: str = "") -> list[tuple[str, str]]:
    """Return the fields of a WebSocket handshake (RFC 6455, section 4.1)."""
    subprotocol = "tellwire.v1.msgpack" if packed else "tellwire.v1.json"
    fields = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", f"{subprotocol}, tellwire.token.{token}" if token else subprotocol),
    ]
    if deflate:
        fields.append(("Sec-WebSocket-Extensions", deflate))
    return fields
