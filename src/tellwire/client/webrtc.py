"""The session over data channels: as over a WebSocket, but for what may be lost (spec, section 17)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from tellwire.client.channels import PART_MAX_BYTES, Channels
from tellwire.client.messages import Published, TransportName
from tellwire.client.outbox import Answer
from tellwire.client.sockets import Socket
from tellwire.client.websocket import WebSocketTransport
from tellwire.protocol.commands import Publish


class WebRtcTransport(WebSocketTransport):
    """Data channels that were opened by the client."""

    name: TransportName = "webrtc"

    async def _open_socket(self, fields: dict[str, str]) -> Socket:
        return await self.host.open_channels(self.host.http.base + "v1/rtc", self._language.subprotocol, fields)

    async def publish(self, publishes: Sequence[Publish]) -> list[Answer]:
        is_sent = [publish.ephemeral and self._send_unreliably(publish) for publish in publishes]
        # What was sent unreliably is not answered, and the outbox wants the answers in the order of the publishes.
        told = iter(await super().publish([each for each, sent in zip(publishes, is_sent, strict=True) if not sent]))
        return [Published(None) if sent else next(told) for sent in is_sent]

    def _send_unreliably(self, publish: Publish) -> bool:
        """Send an ephemeral message over the unreliable channel; False where it has to go over the other."""
        if self._socket is None or not hasattr(self._socket, "send_unreliably"):
            return False
        frame = self._written(publish, None)
        if len(frame) > PART_MAX_BYTES:
            return False
        cast(Channels, self._socket).send_unreliably(frame)
        return True
