"""Peers of data channels, over aiortc as it comes: what a client does, and what none should."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, Self

import httpx
import msgspec
import uvloop
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from tellwire.protocol.parts import Joiner, is_part
from tests.rtc.relay import Relay
from tests.serving import Server
from tests.wires import Http, Response

WATCHDOG_S = 30.0
"""Seconds after which something that should happen is taken to have failed; no test measures a time."""


OFFER = """v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:0
a=ice-ufrag:abcd
a=ice-pwd:0123456789abcdef012345
a=fingerprint:sha-256 {print}
a=setup:actpass
a=sctp-port:5000
a=max-message-size:262144
""".replace("{print}", ":".join(["AB"] * 32))
"""An offer of a peer that is never heard of again."""

SDP = ("Content-Type", "application/sdp")


def offer(http: Http, body: str | bytes, *fields: tuple[str, str], target: str = "/v1/rtc") -> Response:
    """Post an offer."""
    content = body.encode() if isinstance(body, str) else body
    return http.request("POST", target, headers=[SDP, *fields], body=content)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run one test to its end."""

    async def watched() -> None:
        async with asyncio.timeout(4 * WATCHDOG_S):
            await test

    uvloop.run(watched())


class Peer:
    """One connection of data channels; what it has read came in this order over both channels.

    Args:
        server: Whom to offer to.
        packed: Whether it speaks MessagePack.
        query: Parameters of the offer.
        token: Who it is.
        relay: What its datagrams go through.
        unreliable: Whether it makes the second channel.
        options: What else the reliable channel is made with.
    """

    def __init__(
        self,
        server: Server,
        *,
        packed: bool = False,
        query: dict[str, str] | None = None,
        token: str | None = None,
        relay: Relay | None = None,
        unreliable: bool = True,
        **options: Any,
    ) -> None:
        self.base = f"http://127.0.0.1:{server.port}"
        self.packed = packed
        self.location = ""
        self.lost: list[Any] = []
        """What came over the unreliable channel."""
        self.ended = asyncio.Event()
        self.messages = 0
        """Messages on the reliable channel, parts counted one by one."""
        self._query = query or {}
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._relay = relay
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()
        self._joiner = Joiner(2**30)
        self._opened = asyncio.Event()
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        options = {"label": "tellwire", "protocol": f"tellwire.v1.{'msgpack' if packed else 'json'}", **options}
        self.channel = self.connection.createDataChannel(**options)
        self.channel.on("message", self._take)
        self.channel.on("open", self._opened.set)
        self.channel.on("close", self._end)
        self.unreliable: RTCDataChannel | None = None
        if unreliable:
            self.unreliable = self.connection.createDataChannel("tellwire.unreliable", ordered=False, maxRetransmits=0)
            self.unreliable.on("message", self._take_lost)

    async def __aenter__(self) -> Self:
        try:
            answer = await self.offer()
            assert answer.status_code == 201, answer.text
            await self.opened()
        except BaseException:
            await self.connection.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()

    async def offer(self) -> httpx.Response:
        """Make the offer, and take the answer where there is one."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        sdp = self.connection.localDescription.sdp
        async with httpx.AsyncClient(base_url=self.base, headers=self._headers, timeout=WATCHDOG_S) as http:
            response = await http.post(
                "/v1/rtc", content=sdp, params=self._query, headers={"Content-Type": "application/sdp"}
            )
        if response.status_code == 201:
            self.location = response.headers["Location"]
            answer = response.text if self._relay is None else self._relay.through(response.text)
            await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        return response

    async def opened(self) -> None:
        """Wait until the reliable channel is open; raises EOFError where it is closed before."""
        async with asyncio.timeout(WATCHDOG_S):
            await self._opened.wait()
        if self.ended.is_set():
            raise EOFError("the channel was closed")

    def _end(self) -> None:
        self.ended.set()
        self._opened.set()
        self._incoming.put_nowait(None)

    def _decode(self, payload: bytes | str) -> Any:
        return msgspec.msgpack.decode(payload) if isinstance(payload, bytes) and self.packed else json.loads(payload)

    def _take(self, message: bytes | str) -> None:
        self.messages += 1
        payload: bytes | str | None = message
        if isinstance(message, bytes) and is_part(message):
            payload = self._joiner.add(message)
        if payload is not None:
            self._incoming.put_nowait(self._decode(payload))

    def _take_lost(self, message: bytes | str) -> None:
        push = self._decode(message)
        self.lost.append(push)
        self._incoming.put_nowait(push)

    def encode(self, **command: Any) -> bytes | str:
        """Write a command in the peer's language."""
        return msgspec.msgpack.encode(command) if self.packed else json.dumps(command)

    def say(self, **command: Any) -> None:
        """Send a command."""
        self.channel.send(self.encode(**command))

    async def read(self) -> dict[str, Any]:
        """Return the next push but heartbeats; raises EOFError when there is none any more."""
        while True:
            async with asyncio.timeout(WATCHDOG_S):
                push = await self._incoming.get()
            if push is None:
                raise EOFError("the channel was closed")
            assert isinstance(push, dict)
            if push["type"] != "heartbeat":
                return push

    async def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command; return the next push."""
        self.say(**command)
        return await self.read()

    async def subscribe(self, channel: str, **fields: Any) -> dict[str, Any]:
        """Subscribe; return the answer."""
        answer = await self.ask(type="subscribe", channel=channel, **fields)
        assert answer["type"] == "subscribed", answer
        return answer

    async def read_data(self, count: int) -> list[Any]:
        """Read messages; return what they carry."""
        pushes = [await self.read() for _ in range(count)]
        assert all(push["type"] == "message" for push in pushes), pushes
        return [push["data"] for push in pushes]

    async def read_closing(self) -> dict[str, Any]:
        """Read on to the end; return the last push, which says why."""
        last: dict[str, Any] = {}
        try:
            while True:
                last = await self.read()
        except EOFError:
            return last

    def fall_silent(self) -> None:
        """Take no datagram and send none from now on, as a peer does that was killed."""
        transport: Any = self.connection.sctp.transport.transport  # type: ignore[union-attr]
        for protocol in transport._connection._protocols:
            protocol.transport.abort()
