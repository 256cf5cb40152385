"""Making tokens, and keys for them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tellwire.auth.claims import TIME_MAX, read_claims, to_identity
from tellwire.auth.keys import (
    CURVE_ALGORITHMS,
    RSA_ALGORITHMS,
    SECRET_BYTES_MIN,
    PrivateKey,
    UnusableKey,
    check_algorithms,
    read_key,
)
from tellwire.auth.tokens import TOKEN_MAX_BYTES

RSA_BITS = 3072
_CURVES: dict[str, Callable[[], ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}
assert _CURVES.keys() == set(CURVE_ALGORITHMS.values())


def make_token(
    claims: dict[str, Any], key: bytes, lasts_s: float | None, algorithm: str | None = None, kid: str | None = None
) -> str:
    """Return a signed token; raise UnusableKey for the key, Unauthorized for claims that no server would take.

    It is made now, and is good for `lasts_s` seconds, None for ever.
    """
    signer = read_key(key, check_algorithms([algorithm] if algorithm else []))
    if signer.private is None:
        raise UnusableKey("this is a public key, which checks tokens; signing one needs the private key")
    now = int(time.time())
    claims = {"jti": secrets.token_urlsafe(9), **claims, "iat": now}
    if lasts_s is not None:
        claims["exp"] = min(now + int(lasts_s), TIME_MAX)
    headers = {"kid": kid} if kid else None
    token = jwt.encode(claims, signer.private, algorithm=signer.algorithms[0], headers=headers)
    to_identity(read_claims(jwt.PyJWS().decode_complete(token, options={"verify_signature": False})["payload"]))
    if len(token) > TOKEN_MAX_BYTES:
        raise UnusableKey(f"the token has {len(token)} characters, and no server takes more than {TOKEN_MAX_BYTES}")
    return token


def new_key(algorithm: str | None) -> str:
    """Return a new secret, or the private and the public key of a pair in PEM, with a line end."""
    (name,) = check_algorithms([algorithm or "HS256"])
    private: PrivateKey
    if name in SECRET_BYTES_MIN:
        # Not in base64url: a secret that begins with - would be taken for a flag.
        return secrets.token_hex(SECRET_BYTES_MIN[name]) + "\n"
    if name in RSA_ALGORITHMS:
        private = rsa.generate_private_key(65537, RSA_BITS)
    elif name in _CURVES:
        private = ec.generate_private_key(_CURVES[name]())
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode() + _public_pem(private.public_key())


def public_half(key: bytes, kid: str | None = None) -> str:
    """Return the public key that belongs to a private one; raise UnusableKey for a secret.

    It is in PEM, or with a name for it a JWK set with this one key.
    """
    found = read_key(key)
    public = found.public
    if isinstance(public, bytes):
        raise UnusableKey("this is a secret, which has no public half; whoever checks tokens needs it whole")
    if kid is None:
        return _public_pem(public)
    algorithm = found.algorithms[0]
    members = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
    members.pop("key_ops", None)
    jwk = {**members, "kid": kid, "use": "sig"}
    return json.dumps({"keys": [jwk]}, indent=2) + "\n"


def _public_pem(public: Any) -> str:
    pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()
