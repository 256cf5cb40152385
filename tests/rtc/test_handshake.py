"""DTLS handshakes as browsers and networks make them: the first message in pieces, out of order and twice."""

from __future__ import annotations

import struct

import pytest

from tests.rtc.peers import Peer, run
from tests.rtc.relay import Address, Relay
from tests.serving import Server

RECORD_BYTES = 13
"""Content type, version, epoch, sequence number and length of a DTLS record (RFC 6347, section 4.1)."""

HEADER_BYTES = 12
"""Type, length, number, offset and length of the fragment of a handshake message (RFC 6347, section 4.2.2)."""

HANDSHAKE, CLIENT_HELLO = 22, 1

PLAIN = b"\0\0"
"""The epoch before there are keys."""


class Splitting(Relay):
    """Cuts every ClientHello in two, as Firefox does with its keys for post-quantum cryptography.

    Args:
        order: Which of the halves go on, one after the other.
    """

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.split = 0
        self._order = order
        self._number = 40  # within the window in which records may come late, and far from those of the peer

    def datagram_received(self, data: bytes, address: Address) -> None:
        if data[0] != HANDSHAKE or data[3:5] != PLAIN or data[RECORD_BYTES] != CLIENT_HELLO:
            super().datagram_received(data, address)
            return
        self.split += 1
        halves = self._halves(data)
        for which in self._order:
            super().datagram_received(halves[which], address)

    def _halves(self, data: bytes) -> list[bytes]:
        """Return two datagrams with a record each, for one with a single one."""
        (length,) = struct.unpack_from("!H", data, RECORD_BYTES - 2)
        assert len(data) == RECORD_BYTES + length, "more than a ClientHello"
        start = int.from_bytes(data[RECORD_BYTES + 6 : RECORD_BYTES + 9])
        body = data[RECORD_BYTES + HEADER_BYTES :]
        middle = len(body) // 2
        halves = []
        for at, piece in ((start, body[:middle]), (start + middle, body[middle:])):
            fragment = data[RECORD_BYTES : RECORD_BYTES + 6] + at.to_bytes(3) + len(piece).to_bytes(3) + piece
            number = self._number.to_bytes(6)
            self._number += 1
            halves.append(data[:5] + number + len(fragment).to_bytes(2) + fragment)
        return halves


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 1, 0, 0)])
def test_client_hello_comes_in_two_datagrams(rtc_server: Server, channel: str, order: tuple[int, ...]) -> None:
    async def test() -> None:
        async with Splitting(order) as relay, Peer(rtc_server, relay=relay) as peer:
            await peer.subscribe(channel)
            rtc_server.publish(channel, "through")
            assert await peer.read_data(1) == ["through"]
            assert relay.split

    run(test())
