"""The claims of a token, and the identity they make."""

from __future__ import annotations

from typing import Any

import msgspec

from tellwire.auth.grants import Grants, InvalidGrants
from tellwire.auth.identity import Identity
from tellwire.auth.settings import AuthSettings
from tellwire.errors import Expired, InvalidChannel, InvalidData, Unauthorized
from tellwire.names import check_channel
from tellwire.protocol.data import check_json

NAME_MAX_CHARS = 255
"""Longest user and token id."""
CHANNELS_MAX = 1000
TIME_MAX = 253_402_300_799
"""The last second of the year 9999, in seconds since 1970: more is most likely in another unit."""


class Claims(msgspec.Struct):
    """What is read of a token (RFC 7519, section 4.1, and our own); the rest is ignored."""

    sub: str | None = None
    iss: str | None = None
    aud: str | list[str] | None = None
    exp: float | None = None
    nbf: float | None = None
    iat: float | None = None
    jti: str | None = None
    can: dict[str, Any] | None = None
    channels: list[str] | None = None
    info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(Claims).decode


def read_claims(payload: bytes) -> Claims:
    """Read the payload of a token; raise Unauthorized with the claim that is wrong."""
    try:
        return _decode(payload)
    except msgspec.ValidationError as exc:
        what, _, path = str(exc).partition(" - at `$")
        place = f"claim {path.strip('.`')}" if path.strip("`") else "payload"
        raise Unauthorized(f"the token's {place} cannot be read: {what[:1].lower()}{what[1:200]}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unauthorized("the token's payload is not JSON") from None


def check_claims(claims: Claims, settings: AuthSettings, now: float) -> None:
    """Refuse a token that is not for now or not for here; `now` is in seconds since 1970."""
    leeway = settings.token_leeway_s
    for name, value in (("exp", claims.exp), ("nbf", claims.nbf), ("iat", claims.iat)):
        if value is not None and not 0 <= value <= TIME_MAX:
            raise Unauthorized(f"the token's claim {name} is not a time in seconds since 1970")
    if settings.token_issuer is not None and claims.iss != settings.token_issuer:
        raise Unauthorized(
            f"the token is from the issuer (iss) {_shown(claims.iss)}, which is not the one trusted here"
        )
    audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
    if settings.token_audience is not None and settings.token_audience not in audience:
        raise Unauthorized(f"the token is for the audience (aud) {_shown(claims.aud)}, which is not this server")
    if settings.token_audience is None and audience:
        # RFC 7519, section 4.1.3: who does not identify itself with a value in the claim MUST reject the token.
        raise Unauthorized(
            f"the token is for the audience (aud) {_shown(claims.aud)}, and this server goes by none (token_audience)"
        )
    if claims.exp is not None and now >= claims.exp + leeway:
        raise Expired(f"the token expired {in_words(now - claims.exp)} ago")
    if claims.nbf is not None and now < claims.nbf - leeway:
        raise Unauthorized(f"the token is good only in {in_words(claims.nbf - now)} (nbf)")
    if claims.iat is not None and now < claims.iat - leeway:
        raise Unauthorized(f"the token was made {in_words(claims.iat - now)} from now (iat); a clock is wrong")


def to_identity(claims: Claims, leeway_s: float = 0.0) -> Identity:
    """Return who a token speaks for; raise Unauthorized with the claim that is wrong."""
    for name, text in (("sub", claims.sub), ("jti", claims.jti)):
        if text is not None and not (0 < len(text) <= NAME_MAX_CHARS and text.isprintable()):
            raise Unauthorized(
                f"the token's claim {name} has to be 1 to {NAME_MAX_CHARS} characters, without control characters"
            )
    channels = tuple(dict.fromkeys(claims.channels or ()))
    if len(channels) > CHANNELS_MAX:
        raise Unauthorized(f"the token's claim channels holds {len(channels)} channels; at most {CHANNELS_MAX}")
    try:
        for channel in channels:
            check_channel(channel)
        grants = Grants.of(claims.can or {}, channels=channels)
        info = None if isinstance(claims.info, msgspec.UnsetType) else check_json(bytes(claims.info))
    except InvalidChannel as exc:
        raise Unauthorized(f"the token's claim channels: {exc}") from None
    except InvalidGrants as exc:
        raise Unauthorized(f"the token's claim {exc}") from None
    except InvalidData as exc:
        raise Unauthorized(f"the token's claim info: {exc}") from None
    return Identity(
        user=claims.sub,
        info=None if info == b"null" else info,
        grants=grants,
        channels=channels,
        expires_at=None if claims.exp is None else claims.exp + leeway_s,
        token_id=claims.jti,
        issued_at=claims.iat,
    )


def in_words(seconds: float) -> str:
    """Say how long something is, such as ``2 hours`` or ``5 minutes``."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}s"
    return f"{seconds:.0f} second" + ("" if round(seconds) == 1 else "s")


def _shown(value: object) -> str:
    return "nobody named" if not value else ascii(value)[:80]
