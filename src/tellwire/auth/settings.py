"""Settings of tokens: which are accepted, and what is allowed without one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import msgspec


@dataclass(frozen=True)
class AuthSettings:
    """Which tokens are accepted, and what may be done without one."""

    token_key: str | None = field(default=None, repr=False)
    """Key that tokens are signed with: a secret of at least 32 bytes, or a public key in PEM."""
    token_key_file: str | None = None
    """File with that key instead: a secret, or a public key or certificate in PEM. It is read again when it changes."""
    token_jwks: str | None = None
    """File or http(s) URL of a JWK set (RFC 7517) with the keys of tokens, found by their kid; read again by itself."""
    token_algorithms: tuple[str, ...] = ()
    """Algorithms that tokens may be signed with; by default the one usual for the key, such as HS256 or RS256."""
    token_audience: str | None = None
    """Audience that tokens have to be for (claim aud)."""
    token_issuer: str | None = None
    """Issuer that tokens have to be from (claim iss)."""
    token_leeway_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 5.0
    """Seconds by which the clock of who makes tokens may differ from this one's."""
    token_cookie: str = "tellwire_token"  # noqa: S105  (a name)
    """Name of the cookie that may hold a token; empty: none may."""
    anonymous_subscribe: tuple[str, ...] = ()
    """Channels, as patterns, that may be read without a token where tokens are asked for."""
    anonymous_publish: tuple[str, ...] = ()
    """Channels, as patterns, that may be published to without a token where tokens are asked for."""
    jsonp: bool = False
    """Let pages of any origin that know a token read GET /v1/messages as JavaScript (callback=); for old browsers."""
    revocation_s: float = 86_400.0
    """Seconds for which a revoked user or token stays so; at least as long as tokens last."""

    @property
    def has_key(self) -> bool:
        """Whether tokens are asked for."""
        return bool(self.token_key or self.token_key_file or self.token_jwks)
