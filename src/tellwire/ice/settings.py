"""Settings of ICE: where STUN and TURN servers are, and the secret that is shared with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

SECRET_MIN_BYTES = 16
"""Shortest ice_turn_secret: 128 bits, if it was drawn at random. Credentials can be guessed at offline."""

# RFC 7064 (stun) and RFC 7065 (turn), section 3.1; a host is a name, an IPv4 address or an IPv6 address in brackets.
_HOST = r"(?:[A-Za-z0-9_.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_STUN = re.compile(rf"stuns?:{_HOST}")
_TURN = re.compile(rf"turns?:{_HOST}(?:\?transport=(?:udp|tcp))?")


@dataclass(frozen=True)
class IceSettings:
    """How peers find a way to each other."""

    ice_stun_urls: tuple[str, ...] = ()
    """STUN servers that clients are told of, such as stun:turn.example.org:3478."""
    ice_turn_urls: tuple[str, ...] = ()
    """TURN servers that clients are told of, such as turn:turn.example.org:3478?transport=udp; they need the secret."""
    ice_turn_secret: str | None = field(default=None, repr=False)
    """Secret that is shared with the TURN servers (coturn's static-auth-secret), at least 16 bytes."""
    ice_turn_ttl_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 600
    """Seconds for which credentials are good; coturn asks for them again when an allocation is renewed."""

    def __post_init__(self) -> None:
        _check("ice_stun_urls", self.ice_stun_urls, _STUN, "stun:host:port")
        _check("ice_turn_urls", self.ice_turn_urls, _TURN, "turn:host:port?transport=udp")
        if self.ice_turn_urls and len((self.ice_turn_secret or "").encode()) < SECRET_MIN_BYTES:
            raise ValueError(
                f"ice_turn_urls need an ice_turn_secret of at least {SECRET_MIN_BYTES} bytes, the same as coturn's "
                "static-auth-secret; `openssl rand -hex 32` makes one"
            )


def _check(key: str, urls: Iterable[str], form: re.Pattern[str], example: str) -> None:
    for url in urls:
        if not form.fullmatch(url):
            raise ValueError(f"{key}: {url[:80]!a} is not such a URL; one looks like {example}")
