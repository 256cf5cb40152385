"""Real keys, and tokens signed with them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tellwire.auth import AuthSettings, Identity, Verifier

NOW = 1_800_000_000.0
"""The time in these tests, unless they turn the clock."""

SECRET = "a secret that is long enough for HS256"


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """Return a private key; another for each number."""
    if algorithm[:2] in {"RS", "PS"}:
        return rsa.generate_private_key(65537, 2048)
    curves: dict[str, Callable[[], ec.EllipticCurve]] = {
        "ES256": ec.SECP256R1,
        "ES384": ec.SECP384R1,
        "ES512": ec.SECP521R1,
    }
    if algorithm in curves:
        return ec.generate_private_key(curves[algorithm]())
    return ed25519.Ed25519PrivateKey.generate()


def private_pem(key: Any) -> str:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


def public_pem(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    """Return the public half of a key as a JWK (RFC 7517)."""
    public = key.public_key()
    kind: Any = {rsa.RSAPublicKey: jwt.algorithms.RSAAlgorithm, ec.EllipticCurvePublicKey: jwt.algorithms.ECAlgorithm}
    for cls, algorithm in kind.items():
        if isinstance(public, cls):
            return {**algorithm.to_jwk(public, as_dict=True), **members}
    return {**jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True), **members}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def b64(data: bytes | dict[str, Any]) -> str:
    if isinstance(data, dict):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(claims, key, algorithm, headers=header or None)


def identity_of(token: str, **settings: Any) -> Identity:
    """Check a token with a verifier of its own, which never has to wait."""
    verifier = Verifier(AuthSettings(**{"token_key": SECRET, **settings}), clock=Clock())
    return at_once(verifier, token)


def at_once(verifier: Verifier, token: str) -> Identity:
    """Check a token without a loop: it fails if anything is waited for."""
    coro = verifier.verify(token)
    with pytest.raises(StopIteration) as stop:
        coro.send(None)
    identity = stop.value.value
    assert isinstance(identity, Identity)
    return identity
