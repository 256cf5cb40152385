"""Frames that are taken past the parser mean what they mean to the parser, however they are cut and mixed."""

from __future__ import annotations

import asyncio
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import OPEN

from tellwire.transports.frames import FrameParser, FrameProtocol
from tests.transports.test_writes import Writes
from tests.wires import BINARY, CLOSE, CONT, PING, PONG, TEXT, write_frame

SIZE_MAX = 70_000
"""Above what has a length of 16 bits, so that all three sizes of a header are met."""


class Line(Writes):
    """A transport that notes its end."""

    is_over = False

    def close(self) -> None:
        self.is_over = True

    abort = close

    def pause_reading(self) -> None:
        """What is cut off here was read already."""


class Heard(FrameProtocol):
    """A WebSocket that notes what it hears, and may be the one to close."""

    def __init__(self, *, has_deflate: bool, is_before_frame: bool, goodbye: bytes | None = None) -> None:
        self.to_peer = Line()
        self.messages: list[tuple[bool, bytes]] = []
        self.has_closed = False
        self._goodbye = goodbye
        parser = FrameParser(state=OPEN, max_size=SIZE_MAX)
        parser.is_before_frame = is_before_frame
        if has_deflate:
            parser.extensions = [PerMessageDeflate(True, True, 15, 15)]
        super().__init__(self.to_peer, parser)

    def on_message(self, payload: bytes, *, binary: bool) -> None:
        self.messages.append((binary, payload))
        if payload == self._goodbye:
            self.close_frames(1000, "goodbye")

    def close_frames(self, code: int, reason: str) -> None:
        self.has_closed = True
        super().close_frames(code, reason)

    def on_gone(self) -> None:
        """Nothing is held."""

    async def hear(self, pieces: list[bytes]) -> tuple[list[tuple[bool, bytes]], bytes]:
        """Take what comes, in these pieces; return the messages, and all that the peer was sent."""
        for piece in pieces:
            if not self.to_peer.is_over:
                self.data_received(piece)
        await asyncio.sleep(0)
        self.connection_lost(None)
        return self.messages, b"".join(self.to_peer.kept)


def compressed(payload: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


payloads = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=12).map(str.encode),
    st.sampled_from([125, 126, 127, 65_535, 65_536, SIZE_MAX, SIZE_MAX + 1]).map(lambda size: b"x" * size),
)
keys = st.binary(min_size=4, max_size=4)
whole = st.builds(write_frame, st.sampled_from([TEXT, BINARY]), payloads, key=keys)
texts = st.builds(write_frame, st.just(TEXT), st.text(max_size=12).map(str.encode), key=keys)
control = st.builds(write_frame, st.sampled_from([PING, PONG, CLOSE]), st.binary(max_size=125), key=keys)
packed = st.builds(
    lambda text, key: write_frame(TEXT, compressed(text.encode()), rsv=4, key=key), st.text(max_size=12), keys
)
fragments = st.builds(
    lambda opcode, first, more, last, key: b"".join(
        [write_frame(opcode, first, fin=False, key=key), *more, write_frame(CONT, last, key=key)]
    ),
    st.sampled_from([TEXT, BINARY]),
    payloads,
    st.lists(
        st.one_of(control, whole, st.builds(write_frame, st.just(CONT), payloads, fin=st.just(False))), max_size=3
    ),
    payloads,
    keys,
)
wrong = st.one_of(
    st.builds(
        write_frame, st.integers(0, 15), payloads, fin=st.booleans(), rsv=st.integers(0, 7), masked=st.booleans()
    ),
    st.builds(write_frame, st.just(BINARY), payloads, length=st.sampled_from([0, 5, 126, 2**16, 2**40, 2**63])),
    st.binary(max_size=20),
)


@given(
    # Mostly what is right, so that what is wrong comes late.
    frames=st.lists(st.one_of(texts, texts, whole, control, packed, fragments, wrong), max_size=8),
    cuts=st.lists(st.integers(0, 200_000), max_size=8),
    has_deflate=st.booleans(),
    goodbye=st.sampled_from([None, b"", b"x" * 125]),
)
def test_frames_mean_the_same_past_the_parser(
    frames: list[bytes], cuts: list[int], has_deflate: bool, goodbye: bytes | None
) -> None:
    stream = b"".join(frames)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[start:stop] for start, stop in pairwise(places)]
    # The parser refuses a header before it is whole; with this each of them is.
    pieces.append(bytes(14))

    async def both() -> None:
        past, through = (
            Heard(has_deflate=has_deflate, is_before_frame=each, goodbye=goodbye) for each in (True, False)
        )
        (messages, written), expected = await past.hear(pieces), await through.hear(pieces)
        assert messages == expected[0]
        # The parser is ahead of the messages: it answers what stands behind the one that the connection was closed for.
        assert written == expected[1] or past.has_closed

    asyncio.run(both())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, SIZE_MAX])
def test_each_byte_by_itself(size: int) -> None:
    stream = write_frame(TEXT, b"a" * size, key=b"\1\2\3\4") + write_frame(BINARY, b"end", key=b"\4\3\2\1")

    async def one() -> None:
        heard = Heard(has_deflate=False, is_before_frame=True)
        messages, written = await heard.hear([bytes([byte]) for byte in stream])
        assert messages == [(False, b"a" * size), (True, b"end")]
        assert not written

    asyncio.run(one())
