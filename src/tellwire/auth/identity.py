"""Who somebody is."""

from __future__ import annotations

from dataclasses import dataclass

from tellwire.auth.grants import Grants


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token speaks for, and what it lets them do."""

    user: str | None = None
    """Whose token it is (claim ``sub``); None for nobody in particular."""
    info: bytes | None = None
    """What others may see of the user, as the JSON text of the claim ``info``, on one line."""
    grants: Grants = Grants.NONE
    channels: tuple[str, ...] = ()
    """What is subscribed to without being asked for; ``grants`` allow it."""
    expires_at: float | None = None
    """When it ends, in seconds since 1970: the claim ``exp`` and the leeway of this server."""
    token_id: str | None = None
    """By what name the token can be revoked (claim ``jti``)."""
    issued_at: float | None = None
    """When the token was made (claim ``iat``), in seconds since 1970."""
