"""A UDP relay between peers and a server's port, which loses, delays and cuts as networks do."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any, Self

import httpx

Address = tuple[Any, ...]


class Relay(asyncio.DatagramProtocol):
    """Listens on a port of its own, and passes on; its attributes say what goes wrong from now on.

    Args:
        upstream: The server's UDP port; may be set when that is known.
    """

    def __init__(self, upstream: int = 0, *, seed: int = 1) -> None:
        self.upstream = upstream
        self.is_cut = False
        """Nothing is passed on."""
        self.loss = 0.0
        """Which part of the datagrams is lost, either way."""
        self.delay_s = 0.0
        """How much later each goes on."""
        self.passed = 0
        self.port = 0
        self._chance = random.Random(seed)
        self._ways: dict[Address, _Way] = {}
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._transport.close()
        for way in self._ways.values():
            way.close()

    def datagram_received(self, data: bytes, address: Address) -> None:
        way = self._ways.get(address)
        if way is None:
            way = self._ways[address] = _Way(self, address)
            way.opening = asyncio.ensure_future(way.open())
        way.send(data)

    def carry(self, send: Any, *arguments: Any) -> None:
        """Pass a datagram on, or do not."""
        if self.is_cut or self._chance.random() < self.loss:
            return
        self.passed += 1
        if self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, send, *arguments)
        else:
            send(*arguments)

    def answer(self, data: bytes, address: Address) -> None:
        """Pass a datagram of the server's back."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, address)

    def through(self, answer: str) -> str:
        """Return an answer (SDP) that leads here; the port in it is the upstream from now on."""
        found = re.search(r"a=candidate:\S+ 1 udp \d+ \S+ (\d+) ", answer)
        assert found is not None, answer
        self.upstream = int(found[1])
        return answer.replace(found[1], str(self.port))


class _Way(asyncio.DatagramProtocol):
    """One peer's socket towards the server."""

    def __init__(self, relay: Relay, address: Address) -> None:
        self._relay = relay
        self._address = address
        self._transport: asyncio.DatagramTransport | None = None
        self._early: list[bytes] = []
        self.opening: asyncio.Future[None] | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        remote = ("127.0.0.1", self._relay.upstream)
        transport, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=remote)
        self._transport = transport
        for data in self._early:
            self.send(data)

    def send(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        else:
            self._relay.carry(self._send, data)

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data)

    def datagram_received(self, data: bytes, address: Address) -> None:
        self._relay.carry(self._relay.answer, data, self._address)

    def error_received(self, exc: Exception) -> None:
        """The server is gone for a moment; that is what some tests are about."""

    def close(self) -> None:
        if self.opening is not None:
            self.opening.cancel()
        if self._transport is not None:
            self._transport.close()


class ThroughRelay(httpx.AsyncHTTPTransport):
    """Carries a client's requests, and leads its data channels through a relay."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.url.path != "/v1/rtc" or response.status_code != 201:
            return response
        body = self._relay.through((await response.aread()).decode())
        headers = [(name, value) for name, value in response.headers.items() if name != "content-length"]
        return httpx.Response(201, headers=headers, content=body.encode())
