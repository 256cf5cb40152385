"""WebSocket on a transport (RFC 6455): frames in, messages out, the closing handshake.

The parser is websockets' sans-I/O ``ServerProtocol``. Messages that came whole, in one frame without compression, are
taken past it, for a third of the time; everything else, and whatever is wrong, is the parser's. What is written does
not go through it, either, so that a frame is made once for all who get it.
"""

from __future__ import annotations

import asyncio
import sys
from abc import abstractmethod
from codecs import getincrementaldecoder
from typing import cast

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import BINARY, CLOSE, CONT, PING, TEXT, Frame
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from tellwire.errors import CloseCode
from tellwire.limits import Visit
from tellwire.transports.writer import KEPT_MAX_BYTES, SocketWriter

try:
    from websockets.speedups import apply_mask
except ImportError:  # where there is no compiled one
    from websockets.utils import apply_mask

CLOSE_TIMEOUT_S = 5.0
"""Seconds that a peer has to answer a close frame before the connection is cut."""

FRAGMENTS_MAX = 131_072
"""Frames that one message may come in: empty ones add nothing to its size, and would never end."""

READ_MUCH_BYTES = 65_536
"""What is as long is answered at once: of a peer that floods, one turn of the loop may read 32 times."""

# The first two bytes of a frame (RFC 6455, section 5.2): FIN and no reserved bit, with the opcode; MASK.
_FIN = 0x80
_WHOLE = (TEXT | _FIN, BINARY | _FIN)
_MASKED = 0x80

_Utf8Decoder = getincrementaldecoder("utf-8")


class FrameParser(ServerProtocol):
    """websockets' parser, but that a close frame may come in the middle of a fragmented message.

    RFC 6455, section 5.4: "Control frames MAY be injected in the middle of a fragmented message"; websockets answers
    this one with 1002.
    """

    is_before_frame = False
    """Whether the next byte is the first of a frame; not known where it has parsed the handshake, and what followed."""

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class FrameProtocol(SocketWriter, asyncio.Protocol):
    """One WebSocket connection after its handshake; subclasses say what its messages mean."""

    __slots__ = (
        "__weakref__", "_close_timer", "_closing", "_decoder", "_fragment_count",
        "_fragments", "_held", "_opcode", "_owed", "_parser", "_paused", "_size_max",
        "visit",
    )  # fmt: skip

    visit: Visit | None
    """The connection's place in the counts; given to it when it has taken the connection over."""

    def __init__(
        self, transport: asyncio.Transport, parser: FrameParser, pending_max_bytes: int = KEPT_MAX_BYTES
    ) -> None:
        super().__init__(transport, pending_max_bytes)
        self.visit = None
        self._parser = parser
        self._size_max = parser.max_message_size or sys.maxsize
        self._owed = 0 if parser.is_before_frame else sys.maxsize  # bytes still to come of what the parser has begun
        self._held = b""  # of a header that is not whole yet
        self._fragments = bytearray()
        self._fragment_count = 0
        self._decoder: object | None = None
        self._opcode = TEXT
        self._paused = 0  # reasons not to read: 1 whoever takes the messages, 2 a peer that does not read
        self._closing = False
        self._close_timer: asyncio.TimerHandle | None = None

    @property
    def window_bits(self) -> int:
        """LZ77 window for what is sent, as negotiated (RFC 7692, section 7.1.2); 0 without compression."""
        for extension in self._parser.extensions:
            if isinstance(extension, PerMessageDeflate):
                return extension.local_max_window_bits
        return 0

    @abstractmethod
    def on_message(self, payload: bytes, *, binary: bool) -> None:
        """Take a whole message; text is valid UTF-8."""

    @abstractmethod
    def on_gone(self) -> None:
        """Note that the connection is over; called once."""

    # From the transport

    def data_received(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        parser = self._parser
        at, end = 0, len(data)
        if self._owed:
            at = self._parse(data, 0, self._owed)
        while at < end:
            start, stop = _payload(data, at, end)
            if not start:
                self._held = data[at:]
                break
            first = data[at]
            if (
                first in _WHOLE
                and data[at + 1] >= _MASKED
                and stop <= end
                and stop - start <= self._size_max
                and parser.current_size is None
                and parser.state is OPEN
                and not self._closing
            ):
                at = stop
                self._on_whole(apply_mask(data[start:stop], data[start - 4 : start]), binary=first == _WHOLE[1])
            else:
                at = self._parse(data, at, stop)
        if end >= READ_MUCH_BYTES or parser.state is not OPEN:
            self._flush_out()
        if parser.state is not OPEN:
            self._end()

    def _parse(self, data: bytes, start: int, stop: int) -> int:
        """Let the parser have a frame, or what is there of it; return where it ended."""
        end = min(stop, len(data))
        self._owed = stop - end
        parser = self._parser
        parser.receive_data(data[start:end])
        answers = parser.data_to_send()
        for frame in cast(list[Frame], parser.events_received()):
            # The parser has answered pings already; a pong goes out where its ping stood among the messages.
            if frame.opcode is PING:
                self._put(answers.pop(0))
            elif not self._closing:
                self._on_frame(frame)
        for answer in filter(None, answers):
            self._put(answer)
        return end

    def _on_whole(self, payload: bytes, *, binary: bool) -> None:
        if binary or _is_utf8(payload):
            self.on_message(payload, binary=binary)
        else:
            self._not_utf8()

    def _on_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is TEXT or opcode is BINARY:
            if frame.fin:
                self._on_whole(bytes(frame.data), binary=opcode is BINARY)
                return
            self._opcode = opcode
            self._fragment_count = 0
            self._decoder = _Utf8Decoder() if opcode is TEXT else None
        elif opcode is not CONT:
            return
        self._on_fragment(bytes(frame.data), last=frame.fin)

    def _on_fragment(self, payload: bytes, *, last: bool) -> None:
        # RFC 6455, section 8.1: text that is not UTF-8 fails the connection; as soon as it is seen.
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, last)  # type: ignore[attr-defined]
            except UnicodeDecodeError:
                self._not_utf8()
                return
        self._fragment_count += 1
        if self._fragment_count > FRAGMENTS_MAX:
            self.close_frames(CloseCode.MESSAGE_TOO_BIG, f"a message has at most {FRAGMENTS_MAX} fragments")
            return
        self._fragments += payload
        if last:
            whole, self._fragments, self._decoder = bytes(self._fragments), bytearray(), None
            self.on_message(whole, binary=self._opcode is BINARY)

    def _not_utf8(self) -> None:
        self.close_frames(CloseCode.INVALID_DATA, "a text message is not UTF-8")

    def eof_received(self) -> None:
        """Let the transport close: a peer that sends nothing more is gone."""

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = not self._closing
        if self._paused & 2:
            self._resume(2)
        if self.writable:
            self.on_writable()

    def on_writable(self) -> None:
        """Note that the socket has taken everything."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost()
        self._closing = True
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        if self.visit is not None:
            self.visit.leave()
        self.on_gone()
        # A generator, which is in a method of the parser that has it: a circle, until it is closed. So is an error that
        # was raised in there.
        self._parser.parser.close()
        self._parser.parser_exc = None

    # To the transport

    def write_soon(self, frame: bytes) -> None:
        """Send a frame together with the others of this turn of the loop, and with what the hub's flush has for it."""
        if not self._closing:
            self._put(frame)

    def _put(self, frame: bytes) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush_out)
        self._out.append(frame)

    def _flush_out(self) -> None:
        if self._out:
            self.write(self._out.pop())
        if self.is_overfull:
            self._pause(2)

    def close_frames(self, code: int, reason: str) -> None:
        """Begin the closing handshake (RFC 6455, section 7.1.2)."""
        if self._closing:
            return
        if self._parser.state is OPEN:
            self._parser.send_close(code, _cut(reason))
            self._out += [piece for piece in self._parser.data_to_send() if piece]
        self._flush_out()
        self._end()

    def _end(self) -> None:
        """Send nothing more, and see that the connection goes."""
        self._closing = True
        self.writable = False
        self._fragments, self._decoder = bytearray(), None
        if self._parser.eof_sent:
            # RFC 6455, section 7.1.1: the server closes the TCP connection first, once close frames went both ways.
            self.transport.close()
        if self._close_timer is None:
            self._close_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def cut(self) -> None:
        """Drop the connection without a word."""
        self._closing = True
        self.lost()
        self.transport.abort()

    def shutdown(self) -> None:
        """Close because the server stops; uvicorn calls it."""
        self.close_frames(CloseCode.GOING_AWAY, "the server stops")

    # Flow control

    def pause_reading(self) -> None:
        self._pause(1)

    def resume_reading(self) -> None:
        self._resume(1)

    def _pause(self, why: int) -> None:
        if not self._paused and not self.transport.is_closing():
            self.transport.pause_reading()
        self._paused |= why

    def _resume(self, why: int) -> None:
        if self._paused == why and not self.transport.is_closing():
            self.transport.resume_reading()
        self._paused &= ~why


def _payload(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Find where the payload of the frame at `at` starts and stops; zeros while its header is not whole."""
    if end - at < 2:
        return 0, 0
    size = data[at + 1] & 0x7F
    start = at + 2
    if size > 125:
        start += 2 if size == 126 else 8
        size = int.from_bytes(data[at + 2 : start])
    if data[at + 1] >= _MASKED:
        start += 4
    return (start, start + size) if start <= end else (0, 0)


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cut(reason: str) -> str:
    """Fit a reason into a close frame: 123 bytes of UTF-8 (RFC 6455, section 5.5)."""
    return reason.encode()[:123].decode(errors="ignore")
