"""Settings of data channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec


@dataclass(frozen=True)
class RtcSettings:
    """WebRTC data channels to this server: whether there are any, over which addresses, and how many."""

    rtc: bool = False
    """Take WebRTC data channels at POST /v1/rtc; needs the extra tellwire[webrtc]."""
    rtc_address: tuple[str, ...] = ()
    """IP addresses that clients are told to send to, such as the public one of a machine behind NAT; without any,
    those of `host`, which for 0.0.0.0 are all of this machine."""
    rtc_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """UDP port that carries all data channels; 0 takes a free one. Several `workers` take one each, from it on."""
    rtc_connections: int = 2000
    """Connections of data channels at most, in each worker; beyond it the oldest that is not open yet makes way, else
    the answer is 503 too_many_connections."""
    rtc_offers_per_s: float = 100.0
    """Offers taken per second, in all, with as many at once; beyond it the answer is 429 rate_limited. A connection's
    handshake takes some milliseconds of a processor."""
    rtc_offers_per_caller_s: float = 10.0
    """Offers per second of one user or address, with as many at once; beyond it the answer is 429 rate_limited."""
    rtc_offer_max_bytes: int = 65_536
    """Largest offer; beyond it the answer is 413 too_large."""
    rtc_open_s: float = 10.0
    """Seconds from an offer until its data channel has to be open; then the connection is closed."""
    rtc_ping_s: float = 5.0
    """Seconds between signs of life on a data channel; a peer silent for 2.4 of them is cut with 4000."""
