"""Keys as people write them down, and files of keys that change."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from tellwire.auth import AuthSettings, UnusableKey, Verifier
from tellwire.auth.keys import read_key, read_key_set
from tellwire.errors import Unauthorized
from tests.auth.signing import SECRET, Clock, at_once, jwk, key_set, private_key, private_pem, public_pem, signed


@pytest.mark.parametrize(
    ("algorithm", "pinned"),
    [("RS256", "RS256"), ("ES256", "ES256"), ("ES384", "ES384"), ("ES512", "ES512"), ("EdDSA", "EdDSA")],
)
def test_the_kind_of_key_pins_the_algorithm(algorithm: str, pinned: str) -> None:
    key = private_key(algorithm)
    for text in (public_pem(key), private_pem(key), private_pem(key) + public_pem(key), certificate(key)):
        assert read_key(text).algorithms == (pinned,)
    assert read_key(public_pem(key)).private is None
    assert read_key(private_pem(key)).private is not None


def certificate(key: Any) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + datetime.timedelta(days=36500))
    signing = None if "Ed25519" in type(key).__name__ else hashes.SHA256()
    return builder.sign(key, signing).public_bytes(Encoding.PEM).decode()


def test_pem_on_one_line_of_an_environment_file() -> None:
    pem = public_pem(private_key("RS256"))
    assert read_key(pem.replace("\n", "\\n")).algorithms == ("RS256",)


def test_the_end_of_a_line_is_not_part_of_a_secret() -> None:
    for text in (SECRET, SECRET + "\n", SECRET + "\r\n", SECRET.encode()):
        assert read_key(text).public == SECRET.encode()
    assert read_key(" " + SECRET + " ").public == f" {SECRET} ".encode()


def test_secrets_may_be_any_bytes() -> None:
    assert read_key(bytes(range(200, 256))).public == bytes(range(200, 256))


def pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def encrypted() -> str:
    text: bytes = private_key("ES256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
    return text.decode()


UNUSABLE: list[tuple[str, tuple[str, ...], str]] = [
    ("", (), "the secret has 0 bytes"),
    ("x" * 31, (), "the secret has 31 bytes, and HS256 needs at least 32"),
    ("x" * 32, ("HS512",), "the secret has 32 bytes, and HS512 needs at least 64"),
    ("x" * 32, ("RS256",), "a secret cannot be used with RS256"),
    (pem(rsa.generate_private_key(65537, 1024)), (), "has 1024 bits; it needs at least 2048"),
    (pem(ec.generate_private_key(ec.SECP256K1())), (), "this kind of key is not used here"),
    (pem(ed448.Ed448PrivateKey.generate()), (), "this kind of key is not used here"),
    (pem(private_key("RS256")), ("HS256",), "an RSA key cannot be used with HS256"),
    (pem(private_key("ES256")), ("ES384",), "a key on secp256r1 cannot be used with ES384"),
    (pem(private_key("ES256"))[:100], (), "there is no whole public key"),
    (pem(private_key("ES256")).replace("M", "!"), (), "cannot be read"),
    ("-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----", (), "there is no whole public key"),
    (encrypted(), (), "is encrypted"),
    (json.dumps(jwk(private_key("ES256"))), (), "looks like a JWK"),
    ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEb example", (), "key of SSH"),
]


@pytest.mark.parametrize(("text", "algorithms", "says"), UNUSABLE, ids=[says for _, _, says in UNUSABLE])
def test_keys_that_cannot_be_used_say_why(text: str, algorithms: tuple[str, ...], says: str) -> None:
    with pytest.raises(UnusableKey, match=re.escape(says)):
        read_key(text, algorithms)


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda data: b"-----BEGIN PUBLIC KEY-----\n" + data))
def test_any_bytes_are_a_key_or_not(data: bytes) -> None:
    try:
        key = read_key(data)
    except UnusableKey:
        return
    assert key.algorithms == ("HS256",)


def test_keys_do_not_show_their_secrets() -> None:
    assert SECRET not in repr(read_key(SECRET))
    assert "PrivateKey" not in repr(read_key(private_pem(private_key("ES256"))))


# Sets


def oct_jwk(secret: bytes, **members: Any) -> dict[str, Any]:
    return {"kty": "oct", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode(), **members}


def test_keys_in_a_set_that_cannot_be_used_are_passed_over() -> None:
    good = jwk(private_key("ES256"), kid="good")
    others: list[Any] = [
        5,
        {},
        {"kty": "unknown"},
        {"kty": "RSA", "n": "!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": "AA"},
        {**good, "use": "enc"},
        {**good, "key_ops": ["encrypt"]},
        {**good, "key_ops": "verify"},
        {**good, "key_ops": [{}]},
        {**good, "alg": "none"},
        {**good, "alg": "HS256"},
        {**good, "alg": ["ES256"]},
        {**good, "kid": 5},
        oct_jwk(b"short"),
        oct_jwk(b"x" * 32, kid="secret"),
    ]
    assert [key.kid for key in read_key_set(key_set(*others, good))] == ["good"]
    assert [key.kid for key in read_key_set(key_set(*others, good), secrets=True)] == ["secret", "good"]
    for other in others:
        with pytest.raises(UnusableKey, match="no key of the JWK set can be used"):
            read_key_set(key_set(other))


def test_private_keys_in_a_set_check_tokens_too() -> None:
    key = private_key("RS256")
    private = RSAAlgorithm.to_jwk(key, as_dict=True)
    (found,) = read_key_set(json.dumps({"keys": [{**private, "kid": "a", "key_ops": ["sign"]}]}).encode())
    assert found.private is not None


@pytest.mark.parametrize("data", [b"", b"[]", b"5", b"{}", b'{"keys": []}', b'{"keys": {}}', b"\xff", b"[" * 100_000])
def test_what_is_no_set(data: bytes) -> None:
    with pytest.raises(UnusableKey):
        read_key_set(data)


@given(st.binary())
def test_any_bytes_are_a_set_or_not(data: bytes) -> None:
    with pytest.raises(UnusableKey):
        read_key_set(data)


MEMBERS = {
    name: st.none() | st.integers() | st.lists(st.text()) | st.text(max_size=5) | st.sampled_from(usual)
    for name, usual in {
        "kty": ["RSA", "EC", "OKP", "oct"],
        "crv": ["P-256", "Ed25519", "X448"],
        "alg": ["RS256", "ES256", "EdDSA", "HS256"],
        "use": ["sig"],
        "kid": ["a"],
        "k": ["AAAA"],
        "n": ["AQAB", "uUf3IL02LDaDApUVXW-21Ws2mEvq6ZrGWXfIL9zwXbw"],
        "e": ["AQAB"],
        "d": ["AQAB"],
        "p": ["AQAB"],
        "x": ["uUf3IL02LDaDApUVXW-21Ws2mEvq6ZrGWXfIL9zwXbw"],
        "y": ["h-ce5nNWIqInw8iGqoTdAblzJb3Lh7U657bkGbs6J0A"],
    }.items()
}


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=MEMBERS))
def test_any_members_make_a_key_or_not(members: dict[str, Any]) -> None:
    with contextlib.suppress(UnusableKey):
        read_key_set(key_set(members), secrets=True)


def test_sets_are_looked_at_in_part() -> None:
    good = jwk(private_key("ES256"))
    assert len(read_key_set(key_set(*[good] * 1000))) == 100


# Files


def write(path: Path, data: bytes | str) -> None:
    """Replace a file, as programs do that others read meanwhile; its time is another in any case."""
    new = path.with_suffix(".new")
    new.write_bytes(data.encode() if isinstance(data, str) else data)
    if path.exists():
        at = path.stat().st_mtime_ns + 1_000_000
        os.utime(new, ns=(at, at))
    new.replace(path)


def test_a_key_in_a_file_is_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock = tmp_path / "key", Clock()
    first, second = "first " * 10, "second " * 10
    write(path, first)
    verifier = Verifier(AuthSettings(token_key_file=str(path)), clock=clock, monotonic=clock)
    old, new = signed({"sub": "alice"}, first), signed({"sub": "alice"}, second)
    at_once(verifier, old)

    write(path, second)
    at_once(verifier, old)  # a file is looked at once a second
    clock.now += 1
    at_once(verifier, new)
    with pytest.raises(Unauthorized):
        at_once(verifier, old)  # remembered, but with a key that is gone

    for broken in ("", "short", public_pem(private_key("ES256"))[:50]):
        write(path, broken)
        clock.now += 1
        caplog.clear()
        at_once(verifier, new)
        clock.now += 1
        at_once(verifier, new)
        assert caplog.text.count("the keys from before stay") == 1
    path.unlink()
    clock.now += 1
    at_once(verifier, new)
    assert "No such file" in caplog.text
    write(path, first)
    clock.now += 1
    at_once(verifier, old)


def test_a_set_in_a_file_is_changed(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.json", Clock()
    secret = oct_jwk(SECRET.encode(), kid="s")
    write(path, key_set(secret))
    verifier = Verifier(AuthSettings(token_jwks=str(path)), clock=clock, monotonic=clock)
    at_once(verifier, signed({}, kid="s"))
    newer = signed({}, private_key("ES256"), "ES256", kid="e")
    with pytest.raises(Unauthorized, match="signed with 'ES256'; accepted here is HS256"):
        at_once(verifier, newer)
    write(path, key_set(secret, jwk(private_key("ES256"), kid="e")))
    clock.now += 1
    at_once(verifier, newer)
    at_once(verifier, signed({}, kid="s"))


def test_a_token_without_a_name_among_several_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write(path, key_set(jwk(private_key("ES256", 1), kid="a"), jwk(private_key("ES256", 2), kid="b")))
    verifier = Verifier(AuthSettings(token_jwks=str(path)))
    with pytest.raises(Unauthorized, match=r"does not say which key it is signed with \(kid\)"):
        at_once(verifier, signed({}, private_key("ES256", 1), "ES256"))


@pytest.mark.parametrize("setting", ["token_key_file", "token_jwks"])
def test_files_that_cannot_be_used_to_begin_with(tmp_path: Path, setting: str) -> None:
    large, empty = tmp_path / "large", tmp_path / "empty"
    large.write_bytes(b"x" * (1024 * 1024 + 1))
    empty.touch()
    for path, says in ((tmp_path / "none", "No such file"), (tmp_path, "directory"), (large, "larger"), (empty, "")):
        given: dict[str, Any] = {setting: str(path)}
        with pytest.raises(UnusableKey, match=f"{setting}: .*{says}"):
            Verifier(AuthSettings(**given))
