"""Checking tokens: JSON Web Tokens (RFC 7519), signed, with the algorithms pinned beforehand (RFC 8725)."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt

from tellwire.auth.claims import check_claims, read_claims, to_identity
from tellwire.auth.grants import Grants, InvalidGrants
from tellwire.auth.identity import Identity
from tellwire.auth.keyring import FixedKeys, Keyring, KeysInFile, wrong_algorithm
from tellwire.auth.keys import Key, UnusableKey, check_algorithms, read_key, read_key_set
from tellwire.auth.settings import AuthSettings
from tellwire.errors import Expired, Unauthorized

TOKEN_MAX_BYTES = 8192
"""Longest token; a longer one is refused before anything of it is looked at."""
REMEMBERED_MAX_BYTES = 4 * 1024 * 1024
"""Length of all tokens that are remembered, together."""

_log = logging.getLogger("tellwire.auth")


class Verifier:
    """Tells who a token speaks for.

    Args:
        settings: Where the keys are and what else tokens have to fulfil. UnusableKey is raised for what cannot be.
        clock: Seconds since 1970.
        monotonic: Seconds that only grow.
    """

    def __init__(
        self,
        settings: AuthSettings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._algorithms = check_algorithms(settings.token_algorithms)
        self._keyring = open_keyring(settings, self._algorithms, monotonic)
        self._jws = jwt.PyJWS()
        self._known = _Remembered()
        self._edition = self._keyring.edition
        self.anonymous = _anonymous(settings)
        """Who comes without a token; None where that is nobody."""
        if any(key.private is not None and not isinstance(key.private, bytes) for key in self._keyring.keys):
            _log.info("the key of tokens holds its private half; a server needs only the public one")

    async def verify(self, token: str) -> Identity:
        """Return who a token speaks for; raise Unauthorized or Expired.

        Waits only where the key has to be fetched first; then Unavailable is raised if that is not possible.
        """
        if len(token) > TOKEN_MAX_BYTES:
            raise Unauthorized(f"the token has {len(token)} characters; it may have {TOKEN_MAX_BYTES}")
        if not token.isascii():
            raise Unauthorized("this is not a token: it holds characters that none has")
        self._keyring.refresh()
        if self._edition != self._keyring.edition:
            self._edition = self._keyring.edition
            self._known.clear()
        digest = hashlib.sha256(token.encode()).digest()
        identity = self._known.get(digest)
        if identity is not None:
            if identity.expires_at is None or self._clock() < identity.expires_at:
                return identity
            self._known.drop(digest)
            raise Expired("the token has expired")
        identity = await self._check(token)
        self._known.put(digest, identity, len(token))
        return identity

    async def _check(self, token: str) -> Identity:
        try:
            header = self._jws.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthorized("this is not a token: it has to be a JSON Web Token of three parts") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str):
            raise Unauthorized("the token does not say how it is signed (alg)")
        if algorithm not in (taken := self._keyring.algorithms):
            raise wrong_algorithm(algorithm, taken)
        key = await self._keyring.find(kid, algorithm)
        claims = read_claims(open_token(self._jws, token, key, algorithm))
        check_claims(claims, self.settings, self._clock())
        return to_identity(claims, self.settings.token_leeway_s)

    async def aclose(self) -> None:
        """Stop fetching keys; may be called twice."""
        await self._keyring.aclose()


def open_token(jws: jwt.PyJWS, token: str, key: Key, algorithm: str) -> bytes:
    """Return the payload of a token that is signed with `key`; raise Unauthorized."""
    assert algorithm in key.algorithms, "a key is only used for what it is pinned to"
    try:
        opened: dict[str, Any] = jws.decode_complete(token, key.public, algorithms=[algorithm])
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unauthorized("the token's signature does not fit: it was changed, or signed with another key") from None
    payload: bytes = opened["payload"]
    return payload


def open_keyring(settings: AuthSettings, algorithms: tuple[str, ...], monotonic: Callable[[], float]) -> Keyring:
    """Return the keys that the settings name; raise UnusableKey."""
    given = [name for name in ("token_key", "token_key_file", "token_jwks") if getattr(settings, name)]
    if len(given) != 1:
        raise UnusableKey(
            f"{' and '.join(given)} are both set; say one" if given else "no key is set: token_key, for example"
        )
    try:
        if settings.token_key:
            return FixedKeys((read_key(settings.token_key, algorithms),))
        if settings.token_key_file:
            return KeysInFile(Path(settings.token_key_file), lambda data: (read_key(data, algorithms),), monotonic)
        assert settings.token_jwks is not None
        if settings.token_jwks.startswith(("http://", "https://")):
            # An HTTP client is loaded only where one is needed.
            from tellwire.auth.fetching import FetchedKeys

            return FetchedKeys(settings.token_jwks, algorithms, monotonic)
        path = Path(settings.token_jwks)
        return KeysInFile(path, lambda data: read_key_set(data, algorithms, secrets=True), monotonic)
    except UnusableKey as exc:
        raise UnusableKey(f"{given[0]}: {exc}") from None


def _anonymous(settings: AuthSettings) -> Identity | None:
    if not settings.anonymous_subscribe and not settings.anonymous_publish:
        return None
    can = {"subscribe": settings.anonymous_subscribe, "publish": settings.anonymous_publish}
    try:
        return Identity(grants=Grants.of(can))
    except InvalidGrants as exc:
        raise InvalidGrants(str(exc).replace("can.", "anonymous_", 1)) from None


class _Remembered:
    """The tokens used last, by their digest, so that each poll does not cost a signature."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, tuple[Identity, int]] = OrderedDict()
        self._bytes = 0

    def get(self, digest: bytes) -> Identity | None:
        found = self._entries.get(digest)
        if found is None:
            return None
        self._entries.move_to_end(digest)
        return found[0]

    def put(self, digest: bytes, identity: Identity, size: int) -> None:
        self.drop(digest)
        self._entries[digest] = (identity, size)
        self._bytes += size
        while self._bytes > REMEMBERED_MAX_BYTES:
            self._bytes -= self._entries.popitem(last=False)[1][1]

    def drop(self, digest: bytes) -> None:
        if (found := self._entries.pop(digest, None)) is not None:
            self._bytes -= found[1]

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0
