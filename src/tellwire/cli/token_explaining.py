"""What a token says, in words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import jwt
import msgspec

from tellwire.auth.claims import TIME_MAX, Claims, check_claims, in_words, read_claims, to_identity
from tellwire.auth.grants import OPERATIONS
from tellwire.auth.identity import Identity
from tellwire.auth.settings import AuthSettings
from tellwire.auth.tokens import TOKEN_MAX_BYTES, Verifier
from tellwire.cli.client import shown
from tellwire.errors import TellwireError, Unauthorized

LONG_S = 31 * 86_400.0
"""A token good for longer is mentioned as odd."""
LARGE_BYTES = 3500
"""A token larger than this fits into no cookie, with its name and the others of a site."""

_READ = {field.encode_name for field in msgspec.structs.fields(Claims)}


def explain(token: str, settings: AuthSettings, now: float | None = None) -> tuple[list[str], bool]:
    """Return what a token says, line by line, and False if a server with these settings would refuse it."""
    now = time.time() if now is None else now
    if len(token) > TOKEN_MAX_BYTES:
        raise Unauthorized(f"this has {len(token)} characters; a token has at most {TOKEN_MAX_BYTES}")
    try:
        opened = jwt.PyJWS().decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unauthorized("this is not a token: one has three parts of base64 with dots between them") from None
    header: dict[str, Any] = opened["header"]
    kid = f", key {shown(header['kid'])}" if "kid" in header else ""
    lines = [f"{'signed with':<14}{shown(header.get('alg'))}{kid}"]
    verdict, is_good = _verdict(token, opened["payload"], settings, now)
    lines.append(f"{'good':<14}{verdict}")
    try:
        claims = read_claims(opened["payload"])
        identity = to_identity(claims)
    except Unauthorized:
        return lines, is_good  # the verdict has said why
    lines += _claims(claims, identity, now)
    odd = [*_oddities(token, header, opened["payload"], claims, identity, now)]
    return lines + [f"{'beware' if number == 0 else '':<14}{text}" for number, text in enumerate(odd)], is_good


def _verdict(token: str, payload: bytes, settings: AuthSettings, now: float) -> tuple[str, bool]:
    """Say whether a server with these settings would take a token."""
    if settings.has_key:
        verifier = Verifier(settings, clock=lambda: now)

        async def verify() -> None:
            try:
                await verifier.verify(token)
            finally:
                await verifier.aclose()

        try:
            asyncio.run(verify())
        except TellwireError as exc:
            return f"no: {exc}", False
        return "yes: the signature fits the key", True
    try:
        claims = read_claims(payload)
        check_claims(claims, settings, now)
        to_identity(claims)
    except TellwireError as exc:
        return f"no: {exc} (and no key was given to check the signature with)", False
    return "not checked: say --key-file, --key or --jwks to check the signature", True


def _claims(claims: Claims, identity: Identity, now: float) -> Iterator[str]:
    for name, value in (
        ("user", identity.user),
        ("id", identity.token_id),
        ("issuer", claims.iss),
        ("audience", claims.aud if isinstance(claims.aud, str) else ", ".join(claims.aud or ())),
    ):
        if value:
            yield f"{name:<14}{shown(value)}"
    for name, at in (("made", claims.iat), ("good from", claims.nbf), ("expires", claims.exp)):
        if at is not None and 0 <= at <= TIME_MAX:
            yield f"{name:<14}{_moment(at, now)}"
    for operation, patterns in identity.grants.can:
        yield f"{'may ' + operation:<14}{shown(' '.join(patterns))}"
    if identity.channels:
        yield f"{'reads':<14}{' '.join(identity.channels)}"
    if identity.info is not None:
        yield f"{'info':<14}{shown(msgspec.json.decode(identity.info))}"


def _moment(at: float, now: float) -> str:
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{when}, {in_words(now - at)} ago" if at <= now else f"{when}, in {in_words(at - now)}"


def _oddities(
    token: str, header: dict[str, Any], payload: bytes, claims: Claims, identity: Identity, now: float
) -> Iterator[str]:
    if header.get("alg") == "none":
        yield "it is not signed: anybody can make such a token, and no server takes it"
    if claims.exp is None:
        yield "it never expires: who has it once has it for ever, unless it is revoked"
    elif (lasts_s := claims.exp - (claims.iat if claims.iat is not None else now)) > LONG_S:
        yield f"it lasts {in_words(lasts_s)}: short ones, refreshed, can be lost with less harm"
    if identity.user is None:
        yield "it names no user (sub): all who have such tokens are nobody to each other, and cannot be revoked by user"
    if identity.token_id is None:
        yield "it has no id (jti): it can be revoked only with all other tokens of its user"
    patterns = dict(identity.grants.can)
    if not patterns:
        yield "it may nothing: it has no claim can, and no channels"
    for operation in OPERATIONS:
        if any(not pattern.strip("*") for pattern in patterns.get(operation, ())):
            what = {"call": "every method", "admin": "everything that operators do"}.get(operation, "every channel")
            yield f"it may {operation} without bounds: {what}"
    if unknown := sorted({*(claims.can or {})} - {*OPERATIONS}):
        yield f"can names what is no operation here, and grants nothing: {shown(', '.join(unknown))}"
    if other := sorted({*msgspec.json.decode(payload)} - _READ):
        yield f"it has claims that are not read here: {shown(', '.join(other))}"
    if len(token) > LARGE_BYTES:
        yield f"it is large ({len(token)} characters): browsers keep no cookie above 4096 bytes"
