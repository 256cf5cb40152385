"""One UDP port for all data channels, and the lite half of ICE (RFC 8445, section 2.5).

A datagram belongs to whoever showed, in a STUN request from the same address, that it has the password of the answer.
The server itself checks nothing and gathers nothing: it is where it says, and the peers find it. So a connection needs
no socket of its own, and an offer costs no more than being read.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from aioice import stun

Address = tuple[Any, ...]
"""A peer's address, as the socket tells it."""

BUFFER_BYTES = 8 * 1024 * 1024
"""What the kernel is asked to keep for us: the acknowledgements of a thousand readers come at once."""

ADDRESSES_MAX = 16
"""Addresses of one peer from which it may come at a time; the oldest is forgotten for another."""

_SUCCESS = stun.Class.RESPONSE


class Peer(Protocol):
    """Who is behind a user name fragment."""

    password: str
    """With which its requests are signed."""
    addresses: list[Address]
    """From where it came with a signed request."""

    def reached(self, port: Port, address: Address, *, is_nominated: bool) -> None:
        """Take note that the peer can be reached there; where nominated, that it wants to be."""

    def received(self, data: bytes) -> None:
        """Take a datagram from one of its addresses that is no STUN."""


Find = Callable[[str], Peer | None]
"""Returns the peer of a user name fragment."""


class Port(asyncio.DatagramProtocol):
    """A bound UDP port."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._peers: dict[Address, Peer] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self.number = 0

    async def open(self, host: str, number: int) -> None:
        """Bind the port; 0 takes a free one. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                # The kernel gives what net.core.rmem_max allows, unless we may ask for more.
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, number))
            self.number = sock.getsockname()[1]
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Address) -> None:
        if not data:
            return
        if data[0] < 4:
            self._check(data, address)
        elif 19 < data[0] < 64 and (peer := self._peers.get(address)) is not None:
            # DTLS (RFC 7983, section 7); there is nothing else that we have asked for.
            peer.received(data)

    def send(self, data: bytes, address: Address) -> None:
        """Send a datagram; what the kernel has no room for is lost, as on the way."""
        if self._transport is not None:
            self._transport.sendto(data, address)

    def forget(self, peer: Peer) -> None:
        """Take nothing more from a peer."""
        for address in peer.addresses:
            if self._peers.get(address) is peer:
                del self._peers[address]

    def close(self) -> None:
        """Close the port; may be called twice."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _check(self, data: bytes, address: Address) -> None:
        """Answer a connectivity check (RFC 8445, section 7.3), if it is signed with a password of ours."""
        try:
            request = stun.parse_message(data)
            ufrag = request.attributes.get("USERNAME", "").partition(":")[0]
        except Exception:  # whatever else a stranger's bytes make of the parser
            return
        if request.message_class is not stun.Class.REQUEST or request.message_method is not stun.Method.BINDING:
            return
        peer = self._find(ufrag)
        if peer is None or not request.check_message_integrity(peer.password.encode()):
            return
        answer = stun.Message(stun.Method.BINDING, _SUCCESS, request.transaction_id)
        if "ICE-CONTROLLED" in request.attributes:
            # Who is lite is controlled; the peer changes its role (RFC 8445, section 7.3.1.1).
            answer.message_class = stun.Class.ERROR
            answer.attributes["ERROR-CODE"] = (487, "Role Conflict")
        else:
            answer.attributes["XOR-MAPPED-ADDRESS"] = (address[0], address[1])
        answer.add_message_integrity(peer.password.encode())
        self.send(bytes(answer), address)
        if answer.message_class is _SUCCESS:
            if self._peers.get(address) is not peer:
                self._peers[address] = peer
                peer.addresses.append(address)
                if len(peer.addresses) > ADDRESSES_MAX:
                    old = peer.addresses.pop(0)
                    if self._peers.get(old) is peer:
                        del self._peers[old]
            peer.reached(self, address, is_nominated="USE-CANDIDATE" in request.attributes)
