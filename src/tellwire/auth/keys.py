"""Keys that tokens are signed and checked with; each knows which algorithms it may be used for.

A key is never offered to an algorithm of another family: a token cannot choose to have a public key, which everybody
has, taken for the secret of an HMAC (RFC 8725, section 2.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jwt
import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

SECRET_BYTES_MIN = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518, section 3.2: "A key of the same size as the hash output or larger MUST be used"."""
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ALGORITHMS = (*SECRET_BYTES_MIN, *RSA_ALGORITHMS, *CURVE_ALGORITHMS.values(), "EdDSA")
RSA_BITS_MIN = 2048
SET_MAX = 100
"""Most keys of one set that are looked at."""

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class UnusableKey(ValueError):
    """A key that no token can be checked with, and why."""


@dataclass(frozen=True)
class Key:
    """What signatures are checked with, and made with where `private` is there."""

    algorithms: tuple[str, ...]
    """What it may be used for; the first is what tokens are signed with."""
    public: PublicKey | bytes = field(repr=False)
    """A public key, or a secret."""
    private: PrivateKey | bytes | None = field(default=None, repr=False)
    kid: str | None = None
    """Its name, by which tokens refer to it."""

    @property
    def kind(self) -> str:
        """What it is, in words."""
        if isinstance(self.public, bytes):
            return "a secret"
        if isinstance(self.public, RSAPublicKey):
            return f"an RSA key of {self.public.key_size} bits"
        return "an Ed25519 key" if isinstance(self.public, Ed25519PublicKey) else f"a key on {self.public.curve.name}"


def check_algorithms(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of algorithms; raise UnusableKey for one that is not known, ``none`` above all."""
    wanted = tuple(names)
    for name in wanted:
        if name not in ALGORITHMS:
            raise UnusableKey(f"{name[:40]!a} is not an algorithm for tokens; known are {', '.join(ALGORITHMS)}")
    return wanted


def read_key(text: str | bytes, algorithms: Iterable[str] = ()) -> Key:
    """Read a secret, a key or a certificate in PEM; raise UnusableKey.

    `algorithms` are those it may be used for at most; without any, one that fits the kind of key.
    """
    data = text.encode() if isinstance(text, str) else text
    data = data.rstrip(b"\r\n")  # as editors and echo leave it; other white space may belong to a secret
    if b"-----BEGIN " in data:
        return _from_pem(data, tuple(algorithms))
    if data.lstrip().startswith(b"{"):
        raise UnusableKey("this looks like a JWK; keys in that format belong into a JWK set (token_jwks)")
    if data.startswith((b"ssh-", b"ecdsa-")):
        raise UnusableKey("this is a key of SSH; print it as PEM: ssh-keygen -e -m pkcs8 -f FILE")
    return _secret(data, tuple(algorithms))


def _secret(data: bytes, wanted: tuple[str, ...], kid: str | None = None) -> Key:
    allowed = _choose("a secret", tuple(SECRET_BYTES_MIN), wanted or ("HS256",))
    least = max(SECRET_BYTES_MIN[name] for name in allowed)
    if len(data) < least:
        raise UnusableKey(
            f"the secret has {len(data)} bytes, and {' and '.join(allowed)} needs at least {least} "
            "(RFC 7518, section 3.2); tellwire token --new-key prints a fresh one"
        )
    return Key(allowed, data, data, kid)


def _choose(kind: str, possible: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the wanted algorithms that a key can do."""
    allowed = tuple(name for name in wanted or possible[:1] if name in possible)
    if not allowed:
        raise UnusableKey(f"{kind} cannot be used with {', '.join(wanted)}; it goes with {', '.join(possible)}")
    return allowed


def _from_pem(data: bytes, wanted: tuple[str, ...]) -> Key:
    if b"\\n" in data:
        data = data.replace(b"\\n", b"\n")  # a PEM on one line of an environment file
    public: Any = None
    private: Any = None
    for block in _PEM.finditer(data):
        label, pem = block[1], block[0]
        try:
            if label == b"CERTIFICATE":
                public = public or x509.load_pem_x509_certificate(pem).public_key()
            elif label.endswith(b"PUBLIC KEY"):
                public = public or serialization.load_pem_public_key(pem)
            elif label.endswith(b"PRIVATE KEY"):
                private = private or serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            raise UnusableKey("the private key is encrypted; only plain ones are read") from None
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise UnusableKey(f"the {label.decode().lower()} in PEM cannot be read: {exc}") from None
    if public is None and private is None:
        raise UnusableKey("there is no whole public key, private key or certificate in this PEM")
    return _pair(public if public is not None else private.public_key(), private, wanted)


def _pair(public: Any, private: Any, wanted: tuple[str, ...], kid: str | None = None) -> Key:
    possible: tuple[str, ...]
    if isinstance(public, RSAPublicKey):
        if public.key_size < RSA_BITS_MIN:
            raise UnusableKey(f"the RSA key has {public.key_size} bits; it needs at least {RSA_BITS_MIN}")
        kind, possible = "an RSA key", RSA_ALGORITHMS
    elif isinstance(public, EllipticCurvePublicKey) and public.curve.name in CURVE_ALGORITHMS:
        kind, possible = f"a key on {public.curve.name}", (CURVE_ALGORITHMS[public.curve.name],)
    elif isinstance(public, Ed25519PublicKey):
        kind, possible = "an Ed25519 key", ("EdDSA",)
    else:
        raise UnusableKey("this kind of key is not used here; take RSA, P-256, P-384, P-521 or Ed25519")
    return Key(_choose(kind, possible, wanted), public, private, kid)


def read_key_set(data: bytes, algorithms: Iterable[str] = (), *, secrets: bool = False) -> tuple[Key, ...]:
    """Read a JWK set (RFC 7517, section 5); raise UnusableKey where nothing in it can be used.

    Keys that cannot be used are passed over ("Implementations SHOULD ignore JWKs within a JWK Set that use "kty"
    values that are not understood by them"); so are secrets, unless `secrets`.
    """
    try:
        entries = msgspec.json.decode(data)["keys"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        raise UnusableKey('this is not a JWK set; one looks like {"keys": [{"kty": "RSA", ...}]}') from None
    if not isinstance(entries, list) or not entries:
        raise UnusableKey("there are no keys in the JWK set")
    wanted = tuple(algorithms)
    keys, faults = [], []
    for entry in entries[:SET_MAX]:
        try:
            keys.append(_from_jwk(entry, wanted, secrets))
        except UnusableKey as exc:
            faults.append(str(exc))
    if not keys:
        raise UnusableKey(f"no key of the JWK set can be used: {faults[0]}")
    return tuple(keys)


def _from_jwk(entry: Any, wanted: tuple[str, ...], secrets: bool) -> Key:
    if not isinstance(entry, dict):
        raise UnusableKey("one of them is not an object")
    kid, own, operations = entry.get("kid"), entry.get("alg"), entry.get("key_ops", ["verify"])
    if kid is not None and not isinstance(kid, str):
        raise UnusableKey("its kid is not a text")
    if entry.get("use", "sig") != "sig" or not (
        isinstance(operations, list) and ("verify" in operations or "sign" in operations)
    ):
        raise UnusableKey("it is not for signatures")
    if own is not None:
        if own not in ALGORITHMS or (wanted and own not in wanted):
            raise UnusableKey(f"it is for the algorithm {str(own)[:40]!a}, which is not one of those accepted")
        wanted = (own,)
    if entry.get("kty") == "oct" and not secrets:
        raise UnusableKey("it is a secret, and a set that is fetched is no place for one")
    try:
        found = jwt.PyJWK(entry).key
    except (jwt.PyJWTError, ValueError, TypeError, LookupError, AttributeError, UnsupportedAlgorithm):
        # PyJWT takes the members for what they should be.
        raise UnusableKey("it is not a JWK of a kind that is known here") from None
    if isinstance(found, bytes):
        return _secret(found, wanted, kid)
    if isinstance(found, PrivateKey):
        return _pair(found.public_key(), found, wanted, kid)
    return _pair(found, None, wanted, kid)
