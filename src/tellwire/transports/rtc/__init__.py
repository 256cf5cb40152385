"""WebRTC data channels to the server (spec, section 17): a wire of commands and pushes over UDP.

What is loaded without aiortc is here, in `settings` and in `endpoint`; the rest comes with `connections`, where data
channels are switched on. SCTP and DTLS are aiortc's; below them is one UDP port with the lite half of ICE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tellwire.node import Node
    from tellwire.transports.rtc.endpoint import RtcHost
    from tellwire.transports.rtc.settings import RtcSettings


def make_host(node: Node, settings: RtcSettings, host: str) -> RtcHost | None:
    """Make what takes a node's data channels, None where it takes none; raises ValueError without aiortc.

    `host` is where the server listens.
    """
    if not settings.rtc:
        return None
    try:
        from tellwire.transports.rtc.connections import Connections
    except ModuleNotFoundError as exc:
        raise ValueError(f"rtc needs aiortc ({exc.name} is missing): install tellwire[webrtc]") from None
    return Connections(node, settings, host)
