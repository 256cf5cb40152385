"""The list of STUN and TURN servers for one user, with credentials that are soon over.

The credentials are those of draft-uberti-behave-turn-rest-00, section 2.2: the name is ``expiry:user``, the password
the HMAC-SHA1 of the name under a secret that the TURN server knows too. So the two need no word with each other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import quote

import msgspec

from tellwire.ice.settings import IceSettings

USER_MAX_CHARS = 128
"""Longest name that goes into a credential as it is; STUN allows 508 bytes in all (RFC 8489, section 14.3)."""


class IceServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the list, with the names that an ``RTCPeerConnection`` takes."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = None


class IceServers:
    """Makes the list."""

    def __init__(self, settings: IceSettings | None = None) -> None:
        self._settings = settings or IceSettings()

    def list_for(self, user: str | None, now: float, until: float | None = None) -> tuple[list[IceServer], int | None]:
        """Return the list for a user, and for how many milliseconds it is good; None for ever.

        Args:
            user: Whose credentials they are; None gets those servers only that need none, as a relay is worth abusing.
            now: Seconds since 1970.
            until: When what the user may do ends, in seconds since 1970: the credentials are over by then.
        """
        settings = self._settings
        servers = [IceServer(settings.ice_stun_urls)] if settings.ice_stun_urls else []
        if user is None or not settings.ice_turn_urls or settings.ice_turn_secret is None:
            return servers, None
        expiry = int(now) + settings.ice_turn_ttl_s
        if until is not None:
            expiry = min(expiry, int(until))
        name = f"{expiry}:{_plain(user)}"
        # SHA-1 is what TURN servers take here; as a MAC it is not known to be broken.
        digest = hmac.digest(settings.ice_turn_secret.encode(), name.encode(), hashlib.sha1)
        servers.append(IceServer(settings.ice_turn_urls, name, base64.b64encode(digest).decode()))
        return servers, max(0, int((expiry - now) * 1000))


def _plain(user: str) -> str:
    """Return a name that is the user's alone, in characters that no TURN server stumbles over."""
    name = quote(user, safe="@.-_~+=", errors="surrogatepass")
    if len(name) > USER_MAX_CHARS:
        return "sha256-" + hashlib.sha256(user.encode(errors="surrogatepass")).hexdigest()
    return name


def link_fields(servers: Iterable[IceServer]) -> list[tuple[bytes, bytes]]:
    """Return the list as ``Link`` header fields (RFC 9725, section 4.6)."""
    fields = []
    for server in servers:
        for url in server.urls:
            value = f'<{url}>; rel="ice-server"'
            if server.username is not None and server.credential is not None:
                value += f'; username="{server.username}"; credential="{server.credential}"; credential-type="password"'
            fields.append((b"link", value.encode("ascii")))
    return fields
