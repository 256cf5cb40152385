"""WebRTC data channels to a server, over aiortc, which is imported when the first is opened (spec, section 17)."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any, Protocol

import httpx

from tellwire.client.failures import Failure, as_failure, lost, refused
from tellwire.client.sockets import CLOSE_TIMEOUT_S, MESSAGE_MAX_BYTES, OpenSocket, Socket
from tellwire.protocol.parts import Joiner, is_part, split

PART_MAX_BYTES = 65_536
"""Largest message that a server takes on a data channel."""

BUFFERED_MAX_BYTES = 512 * 1024
"""What may wait to be sent before whoever sends has to wait."""

UNRELIABLE_MAX_BYTES = 64 * 1024
"""What may wait to be sent before an ephemeral message is dropped."""


class Channels(Socket, Protocol):
    """A connection that has an unreliable channel beside the reliable one."""

    def send_unreliably(self, frame: bytes | str) -> None:
        """Send one message that may be lost; it is dropped where too much waits already."""


def check_installed() -> None:
    """Raise ValueError where aiortc is missing."""
    if importlib.util.find_spec("aiortc") is None:
        raise ValueError("transports: webrtc needs aiortc, which is not installed; install tellwire[webrtc]")


class _Channels:
    """An offer, and the connection that comes of it."""

    def __init__(self, subprotocol: str) -> None:
        from aiortc import RTCConfiguration, RTCPeerConnection

        # The default is a public STUN server; ours is where it says it is.
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._is_text = subprotocol.endswith("json")
        self._incoming: asyncio.Queue[bytes | str | Failure] = asyncio.Queue()
        self._joiner = Joiner(MESSAGE_MAX_BYTES)
        self._opened = asyncio.Event()
        self._has_room = asyncio.Event()
        self._ended: Failure | None = None
        self._reliable = self._peer.createDataChannel("tellwire", protocol=subprotocol)
        self._unreliable = self._peer.createDataChannel("tellwire.unreliable", ordered=False, maxRetransmits=0)
        self._reliable.bufferedAmountLowThreshold = BUFFERED_MAX_BYTES // 2
        self._reliable.on("open", self._opened.set)
        self._reliable.on("message", self._take)
        self._reliable.on("bufferedamountlow", self._has_room.set)
        self._reliable.on("close", lambda: self._end("the data channel was closed"))
        self._unreliable.on("message", self._take)
        self._peer.on("connectionstatechange", self._look)

    async def open(self, url: str, fields: dict[str, str], client: httpx.AsyncClient) -> None:
        """Offer the channels, and wait until they are open; raises Failure."""
        from aiortc import RTCSessionDescription

        await self._peer.setLocalDescription(await self._peer.createOffer())
        await self._see_loopback()
        headers = {"Content-Type": "application/sdp", "Accept": "application/sdp", **fields}
        try:
            response = await client.post(url, content=self._peer.localDescription.sdp, headers=headers)
            if response.status_code != 201:
                raise refused(response.status_code, response.content, response.headers.get("Retry-After"))
            await self._peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        except (httpx.HTTPError, ValueError, OSError) as exc:
            raise as_failure(exc) from exc
        await self._opened.wait()
        if self._ended is not None:
            raise self._ended

    async def _see_loopback(self) -> None:
        """Reach servers on this machine where that has no other address: aioice leaves 127.0.0.1 out."""
        gatherer: Any = self._peer.sctp.transport.transport.iceGatherer  # type: ignore[union-attr]
        if not gatherer.getLocalCandidates():
            connection = gatherer._connection
            connection._local_candidates += await connection.get_component_candidates(1, ["127.0.0.1"])

    def _look(self) -> None:
        if self._peer.connectionState in ("failed", "closed"):
            self._end(f"the path to the server {self._peer.connectionState}")

    def _end(self, why: str) -> None:
        if self._ended is None:
            self._ended = lost(why)
            self._incoming.put_nowait(self._ended)
            self._opened.set()
            self._has_room.set()

    def _take(self, message: bytes | str) -> None:
        if isinstance(message, bytes) and is_part(message):
            try:
                whole = self._joiner.add(message)
            except OverflowError as exc:
                self._end(str(exc))
                return
            if whole is None:
                return
            try:
                message = whole.decode() if self._is_text else whole
            except UnicodeDecodeError:
                self._end("what came is not UTF-8")
                return
        self._incoming.put_nowait(message)

    async def send(self, frame: bytes | str) -> None:
        from aiortc import InvalidStateError

        while self._reliable.bufferedAmount > BUFFERED_MAX_BYTES and self._ended is None:
            self._has_room.clear()
            await self._has_room.wait()
        if self._ended is not None:
            raise self._ended
        try:
            payload = frame.encode() if isinstance(frame, str) else frame
            if len(payload) <= PART_MAX_BYTES:
                self._reliable.send(frame)
            else:
                for part in split(payload, PART_MAX_BYTES):
                    self._reliable.send(part)
        except InvalidStateError as exc:
            raise lost("the data channel is closed") from exc

    def send_unreliably(self, frame: bytes | str) -> None:
        if self._unreliable.readyState == "open" and self._unreliable.bufferedAmount < UNRELIABLE_MAX_BYTES:
            self._unreliable.send(frame)

    async def receive(self) -> bytes | str:
        item = await self._incoming.get()
        if isinstance(item, Failure):
            self._incoming.put_nowait(item)
            raise item
        return item

    async def aclose(self) -> None:
        self._end("the connection was closed")
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await self._peer.close()
        except TimeoutError:
            return


def opener(client: httpx.AsyncClient) -> OpenSocket:
    """Return what opens data channels, with offers that go through this HTTP client."""

    async def open_channels(url: str, subprotocol: str, fields: dict[str, str]) -> Socket:
        channels = _Channels(subprotocol)
        try:
            await channels.open(url, fields, client)
        except BaseException:
            await channels.aclose()
            raise
        return channels

    return open_channels
