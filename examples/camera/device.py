"""A camera that pages can watch: the device's side.

.venv/bin/python examples/camera/device.py

Without a camera of its own it sends a picture that it draws; `--camera /dev/video0` sends a real one. Viewers send it
an offer, as a message to it alone in the channel where it is a member, and it answers each: at most so many at a time.
"""

import argparse
import asyncio
from fractions import Fraction
from typing import Any

import av
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.contrib.media import MediaPlayer, MediaRelay
from aiortc.exceptions import InvalidAccessError, InvalidStateError
from aiortc.mediastreams import MediaStreamTrack

from tellwire.client import Client, Signal, connect
from tellwire.errors import TellwireError

CHANNEL = "room:camera"
WIDTH, HEIGHT = 320, 240
OFFER_MAX_CHARS = 20_000
REFUSALS = (ValueError, InvalidAccessError, InvalidStateError)


class TestPicture(VideoStreamTrack):
    """Bars that wander, in the colours of old televisions."""

    COLORS = tuple(
        bytes(color) for color in ((192, 192, 192), (192, 192, 0), (0, 192, 192), (0, 192, 0), (192, 0, 192))
    )

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame(WIDTH, HEIGHT, "rgb24")
        bar = WIDTH // len(self.COLORS)
        at = pts // 1500 % WIDTH
        row = b"".join(color * bar for color in self.COLORS)
        row = row[at * 3 :] + row[: at * 3]
        line_size = frame.planes[0].line_size
        frame.planes[0].update((row + bytes(line_size - len(row))) * HEIGHT)
        frame.pts, frame.time_base = pts, Fraction(time_base)
        return frame


class Camera:
    """Answers viewers."""

    def __init__(self, client: Client, track: MediaStreamTrack, viewers_max: int) -> None:
        self.client = client
        self.viewers: dict[str, RTCPeerConnection] = {}
        self._track = track
        self._relay = MediaRelay()  # one picture for all of them
        self._viewers_max = viewers_max

    async def take(self, signal: Signal) -> None:
        """Answer an offer; one that is none harms nobody."""
        viewer, offer = signal.sender, signal.data
        if not isinstance(offer, str) or len(offer) > OFFER_MAX_CHARS:
            return
        await self.part_from(viewer)
        if len(self.viewers) >= self._viewers_max:
            await self._say(viewer, "full", None)
            return
        # Without a list it would ask a public STUN server.
        peer = self.viewers[viewer] = RTCPeerConnection(RTCConfiguration(iceServers=[]))

        @peer.on("connectionstatechange")
        async def look() -> None:
            if peer.connectionState in ("failed", "closed") and self.viewers.get(viewer) is peer:
                await self.part_from(viewer)

        try:
            await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            peer.addTrack(self._relay.subscribe(self._track))
            await peer.setLocalDescription(await peer.createAnswer())
        except REFUSALS as exc:
            print(f"an offer of {viewer} is none: {exc}", flush=True)
            await self.part_from(viewer)
            return
        await self._say(viewer, "answer", peer.localDescription.sdp)
        print(f"{viewer} watches", flush=True)

    async def part_from(self, viewer: str) -> None:
        """Send a viewer nothing any more."""
        peer = self.viewers.pop(viewer, None)
        if peer is not None:
            await peer.close()

    async def _say(self, viewer: str, event: str, data: Any) -> None:
        try:
            await self.client.send(CHANNEL, viewer, data, event=event)
        except TellwireError as exc:
            print(f"{viewer} cannot be answered: {exc}", flush=True)
            await self.part_from(viewer)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Be a camera.")
    parser.add_argument("--url", default="http://127.0.0.1:8001/realtime")
    parser.add_argument("--camera", help="such as /dev/video0; without it a picture is drawn")
    parser.add_argument("--viewers", type=int, default=4, help="how many may watch at a time")
    options = parser.parse_args()
    track = MediaPlayer(options.camera, format="v4l2").video if options.camera else TestPicture()
    if track is None:
        parser.error(f"{options.camera} has no pictures")
    async with connect(options.url) as client:
        camera = Camera(client, track, options.viewers)
        signals = client.signals()
        await client.presence(CHANNEL).enter({"camera": True})
        print("the camera is there", flush=True)
        async for signal in signals:
            if signal.event == "offer":
                await camera.take(signal)


if __name__ == "__main__":
    asyncio.run(main())
