"""Who a token speaks for, and every way in which one is refused."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellwire.auth import AuthSettings, Grants, Identity, UnusableKey, Verifier
from tellwire.auth.tokens import TOKEN_MAX_BYTES
from tellwire.errors import Expired, Unauthorized
from tests.auth.signing import (
    NOW,
    SECRET,
    Clock,
    at_once,
    b64,
    identity_of,
    jwk,
    key_set,
    private_key,
    private_pem,
    public_pem,
    signed,
)
from tests.test_imports import loaded_by

CLAIMS = {
    "sub": "alice",
    "exp": NOW + 60,
    "iat": NOW - 1,
    "jti": "t1",
    "can": {"subscribe": ["news:*"], "publish": ["room:42"]},
    "channels": ["inbox:alice", "inbox:alice"],
    "info": {"name": "Ä", "n": [1, 2.5, None]},
}


def refused(token: str, says: str, kind: type[Unauthorized] = Unauthorized, **settings: Any) -> None:
    """Expect that a token is refused in these words, which do not hold the token itself."""
    with pytest.raises(kind) as refusal:
        identity_of(token, **settings)
    assert type(refusal.value) is kind
    assert re.search(says, refusal.value.detail), refusal.value.detail
    assert not any(len(part) > 8 and part in refusal.value.detail for part in token[:8192].split("."))


def test_a_token_says_who_somebody_is() -> None:
    identity = identity_of(signed(CLAIMS), token_leeway_s=5.0)
    assert identity == Identity(
        user="alice",
        info=identity.info,
        grants=Grants.of({"subscribe": ["news:*", "inbox:alice"], "publish": ["room:42"]}),
        channels=("inbox:alice",),
        expires_at=NOW + 65,
        token_id="t1",
        issued_at=NOW - 1,
    )
    assert identity.info is not None
    assert json.loads(identity.info) == CLAIMS["info"]


def test_a_token_without_claims_may_nothing() -> None:
    assert identity_of(signed({})) == Identity()


def test_a_token_with_channels_may_read_those_only() -> None:
    grants = identity_of(signed({"channels": ["a"]})).grants
    assert grants.may("subscribe", "a")
    assert not grants.may("subscribe", "b")
    assert not grants.may("publish", "a")


def test_info_comes_on_one_line() -> None:
    payload = b'{"info": {\n"a":\r\n1}}'
    head = b64({"alg": "HS256"}) + "." + b64(payload)
    signature = hmac.digest(SECRET.encode(), head.encode(), hashlib.sha256)
    info = identity_of(f"{head}.{b64(signature)}").info
    assert info is not None
    assert b"\n" not in info
    assert json.loads(info) == {"a": 1}


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_key_pairs(algorithm: str) -> None:
    mine, other = private_key(algorithm), private_key(algorithm, 1)
    pinned: dict[str, Any] = {"token_key": public_pem(mine), "token_algorithms": (algorithm,)}
    assert identity_of(signed(CLAIMS, mine, algorithm), **pinned).user == "alice"
    refused(signed(CLAIMS, other, algorithm), "signature does not fit", **pinned)


@pytest.mark.parametrize(("algorithm", "length"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_secrets(algorithm: str, length: int) -> None:
    pinned: dict[str, Any] = {"token_key": "s" * length, "token_algorithms": (algorithm,)}
    assert identity_of(signed(CLAIMS, "s" * length, algorithm), **pinned).user == "alice"
    refused(signed(CLAIMS, "t" * length, algorithm), "signature does not fit", **pinned)


# Attacks


def test_unsigned_tokens() -> None:
    for name in ("none", "None", "NONE", "nOnE", ""):
        for signature in ("", b64(b"x")):
            token = f"{b64({'alg': name})}.{b64(CLAIMS)}.{signature}"
            refused(token, "signed with|does not say")
            refused(token, "signed with|does not say", token_key=public_pem(private_key("RS256")))


@pytest.mark.parametrize("spelling", ["pem", "stripped", "der"])
def test_the_public_key_is_no_secret(spelling: str) -> None:
    pem = public_pem(private_key("RS256"))
    secret = {"pem": pem.encode(), "stripped": pem.strip().encode(), "der": b"".join(pem.encode().split(b"\n")[1:-2])}
    head = b64({"alg": "HS256", "typ": "JWT"}) + "." + b64(CLAIMS)
    token = f"{head}.{b64(hmac.digest(secret[spelling], head.encode(), hashlib.sha256))}"
    refused(token, "signed with 'HS256'; accepted here is RS256", token_key=pem)
    # Nor where HMAC was allowed by mistake: the key does not do it.
    refused(token, "accepted here is RS256", token_key=pem, token_algorithms=("RS256", "HS256"))


def test_an_algorithm_that_is_not_pinned() -> None:
    refused(signed(CLAIMS, "s" * 64, "HS512"), "signed with 'HS512'; accepted here is HS256", token_key="s" * 64)
    rsa = private_key("RS256")
    refused(signed(CLAIMS, rsa, "PS256"), "accepted here is RS256", token_key=public_pem(rsa))
    refused(
        signed(CLAIMS, rsa, "RS256"), "accepted here is RS512", token_key=public_pem(rsa), token_algorithms=("RS512",)
    )


def test_a_key_in_the_token_itself_does_not_count() -> None:
    mallory = private_key("ES256", 1)
    token = signed(CLAIMS, mallory, "ES256", jwk=jwk(mallory), jku="http://127.0.0.1:9/keys", x5u="http://127.0.0.1:9/")
    refused(token, "signature does not fit", token_key=public_pem(private_key("ES256")))


def test_a_changed_token() -> None:
    head, _, signature = signed(CLAIMS).split(".")
    refused(f"{head}.{b64({**CLAIMS, 'sub': 'root'})}.{signature}", "signature does not fit")
    refused(f"{head}.{b64(CLAIMS)}.", "signature does not fit")
    refused(f"{b64({'alg': 'HS256'})}.{b64(CLAIMS)}.{signature}", "signature does not fit")


def test_critical_extensions_are_not_ignored() -> None:
    refused(signed(CLAIMS, crit=["exp2"], exp2=1), "not a token|signature")
    refused(f"{b64({'alg': 'HS256', 'b64': False, 'crit': ['b64']})}..{b64(b'x')}", "signature does not fit")


@pytest.mark.parametrize(
    ("claims", "says", "kind"),
    [
        ({"exp": NOW - 6}, "expired 6 seconds ago", Expired),
        ({"exp": NOW - 5}, "expired 5 seconds ago", Expired),
        ({"exp": 0}, "expired", Expired),
        ({"exp": -1}, "exp is not a time", Unauthorized),
        ({"exp": NOW * 1000}, "exp is not a time in seconds", Unauthorized),
        ({"exp": 1e300}, "exp is not a time in seconds", Unauthorized),
        ({"exp": "tomorrow"}, "claim exp cannot be read: expected .*str", Unauthorized),
        ({"exp": True}, "claim exp cannot be read", Unauthorized),
        ({"nbf": NOW + 60}, r"good only in 60 seconds \(nbf\)", Unauthorized),
        ({"nbf": [1]}, "claim nbf cannot be read", Unauthorized),
        ({"iat": NOW + 7200}, "made 2 hours from now", Unauthorized),
        ({"sub": 5}, "claim sub cannot be read", Unauthorized),
        ({"sub": ""}, "claim sub has to be 1 to 255", Unauthorized),
        ({"sub": "a" * 256}, "claim sub has to be 1 to 255", Unauthorized),
        ({"sub": "alice\0mallory"}, "claim sub has to be .* without control", Unauthorized),
        ({"sub": "alice\r\nX: y"}, "claim sub has to be .* without control", Unauthorized),
        ({"jti": {}}, "claim jti cannot be read", Unauthorized),
        ({"can": ["subscribe"]}, "claim can cannot be read", Unauthorized),
        ({"can": {"subscribe": "*"}}, "claim can.subscribe has to be a list", Unauthorized),
        ({"can": {"publish": [1]}}, "claim can.publish holds something", Unauthorized),
        ({"channels": "a"}, "claim channels cannot be read", Unauthorized),
        ({"channels": [1]}, r"claim channels\[0\] cannot be read", Unauthorized),
        ({"channels": ["$control"]}, "claim channels: '.control' is not a channel name", Unauthorized),
        ({"channels": ["a..b"]}, "claim channels", Unauthorized),
        ({"channels": [f"{number:x}" for number in range(1001)]}, "holds 1001 channels", Unauthorized),
        ({"info": json.loads("[" * 150 + "]" * 150)}, "claim info: .*nested", Unauthorized),
        ({"aud": "other"}, "audience .*'other'.* goes by none", Unauthorized),
    ],
)
def test_claims_that_are_refused(claims: dict[str, Any], says: str, kind: type[Unauthorized]) -> None:
    refused(signed(claims), says, kind, token_leeway_s=5.0)


@pytest.mark.parametrize("claims", [{"exp": NOW - 4}, {"nbf": NOW + 4}, {"iat": NOW + 4}])
def test_clocks_may_differ_a_little(claims: dict[str, Any]) -> None:
    token = signed(claims)
    identity_of(token, token_leeway_s=5.0)
    with pytest.raises(Unauthorized):
        identity_of(token, token_leeway_s=0.0)


@pytest.mark.parametrize(
    ("claims", "says"),
    [({}, "nobody named"), ({"aud": "b"}, "'b'"), ({"aud": ["b", "c"]}, "'b', 'c'"), ({"aud": 5}, "claim aud")],
)
def test_another_audience(claims: dict[str, Any], says: str) -> None:
    refused(signed(claims), says, token_audience="a")


@pytest.mark.parametrize("audience", ["a", ["a"], ["b", "a"]])
def test_the_right_audience(audience: object) -> None:
    identity_of(signed({"aud": audience}), token_audience="a")


def test_the_issuer() -> None:
    identity_of(signed({"iss": "https://id.test"}), token_issuer="https://id.test")
    identity_of(signed({"iss": "anybody"}))
    refused(signed({"iss": "https://id.test/"}), r"issuer \(iss\) 'https://id.test/'", token_issuer="https://id.test")
    refused(signed({}), "nobody named", token_issuer="https://id.test")


@pytest.mark.parametrize("token", ["a" * 1_000_000, "a." * 500_000, "." * 1_000_000, "eyJ" + "é" * 1_000_000])
def test_a_token_of_a_million_characters_is_not_looked_at(token: str) -> None:
    class Sealed(str):
        """A text of which only the length can be had."""

        def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
            raise AssertionError("it was looked at")

        def isascii(self) -> bool:
            raise AssertionError("it was looked at")

    with pytest.raises(Unauthorized, match=r"has 10000.. characters; it may have 8192"):
        identity_of(Sealed(token))
    refused(token, "has 10000.. characters; it may have 8192")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "eyJ.eyJ.x",
        "grüße.a.b",
        "a b.c.d",
        f"{b64(b'[]')}.{b64(b'{}')}.{b64(b'x')}",
        f"{b64(b'null')}.{b64(b'{}')}.{b64(b'x')}",
        f"{b64({'alg': 5})}.{b64(b'{}')}.{b64(b'x')}",
        f"{b64({'alg': ['HS256']})}.{b64(b'{}')}.{b64(b'x')}",
        f"{b64({})}.{b64(b'{}')}.{b64(b'x')}",
        f"{b64({'alg': 'HS256', 'kid': 5})}.{b64(b'{}')}.{b64(b'x')}",
        f"{b64(b'[' * 3000)}.{b64(b'{}')}.{b64(b'x')}",
        ".".join([b64({"alg": "HS256"}), *["a"] * 4]),
    ],
)
def test_what_is_no_token(token: str) -> None:
    refused(token, "not a token|does not say how|signature")


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"null", b"5", b'"a"', b"{", b"\xff", b'{"sub":"\\ud800"}', b"[" * 4000]
)
def test_a_payload_that_is_no_object(payload: bytes) -> None:
    head = b64({"alg": "HS256"}) + "." + b64(payload)
    token = f"{head}.{b64(hmac.digest(SECRET.encode(), head.encode(), hashlib.sha256))}"
    refused(token, "the token's payload")


@settings(deadline=None)
@given(
    st.text(max_size=60) | st.binary(max_size=60).map(lambda data: f"{b64({'alg': 'HS256'})}.{b64(data)}.{b64(data)}")
)
def test_nothing_but_documented_errors(token: str) -> None:
    with pytest.raises(Unauthorized):
        identity_of(token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda item: st.lists(item, max_size=3) | st.dictionaries(st.sampled_from(["subscribe", "publish", "x"]), item),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "jti", "aud", "can", "channels", "info"]), JSON))
def test_claims_of_any_kind_make_an_identity_or_a_documented_error(claims: dict[str, Any]) -> None:
    try:
        identity = identity_of(signed(claims))
    except Unauthorized:
        return
    assert identity.user == claims.get("sub")
    assert identity.expires_at is None or identity.expires_at >= NOW


# Settings


def test_which_settings_there_must_be() -> None:
    for unusable in (
        AuthSettings(),
        AuthSettings(token_key=SECRET, token_jwks="keys.json"),
        AuthSettings(token_key=SECRET, token_algorithms=("none",)),
        AuthSettings(token_key=SECRET, token_algorithms=("RS256",)),
        AuthSettings(token_key="short"),
        AuthSettings(token_key_file="/nowhere/key.pem"),
    ):
        with pytest.raises(UnusableKey):
            Verifier(unusable)


def test_the_key_is_not_shown() -> None:
    assert SECRET not in repr(AuthSettings(token_key=SECRET))


def test_who_comes_without_a_token() -> None:
    assert Verifier(AuthSettings(token_key=SECRET)).anonymous is None
    anonymous = Verifier(AuthSettings(token_key=SECRET, anonymous_subscribe=("news:*",))).anonymous
    assert anonymous is not None
    assert anonymous.user is None
    assert anonymous.grants.may("subscribe", "news:a")
    assert not anonymous.grants.may("publish", "news:a")
    assert not anonymous.grants.may("subscribe", "secret")


def test_patterns_of_nobody_are_checked_too() -> None:
    with pytest.raises(ValueError, match="anonymous_publish holds a pattern of 256"):
        Verifier(AuthSettings(token_key=SECRET, anonymous_publish=("x" * 256,)))


def test_what_checks_tokens_is_loaded_only_where_there_are_some() -> None:
    heavy = {"jwt", "cryptography", "httpx"}
    assert loaded_by("import tellwire.auth").isdisjoint(heavy)
    assert loaded_by("import tellwire.cli").isdisjoint({"jwt", "cryptography"})
    assert "httpx" not in loaded_by("from tellwire.auth import Verifier")


# What is remembered


def test_a_token_is_checked_once_and_then_remembered() -> None:
    verifier = Verifier(AuthSettings(token_key=SECRET), clock=Clock())
    token = signed(CLAIMS)
    identity = at_once(verifier, token)
    assert at_once(verifier, token) is identity
    assert at_once(verifier, signed({**CLAIMS, "jti": "t2"})) is not identity


def test_a_remembered_token_expires() -> None:
    clock = Clock()
    verifier = Verifier(AuthSettings(token_key=SECRET, token_leeway_s=0.0), clock=clock)
    token = signed({"exp": NOW + 60})
    for moment in (NOW, NOW + 59.9):
        clock.now = moment
        at_once(verifier, token)
    for moment in (NOW + 60, NOW + 61):
        clock.now = moment
        with pytest.raises(Expired):
            at_once(verifier, token)


def test_what_is_remembered_is_bounded() -> None:
    verifier = Verifier(AuthSettings(token_key=SECRET), clock=Clock())
    made = [signed({"sub": f"user{number}", "info": "x" * 5900}) for number in range(600)]
    assert 7900 < len(made[0]) < TOKEN_MAX_BYTES
    identities = [at_once(verifier, token) for token in made]
    assert at_once(verifier, made[-1]) is identities[-1]
    assert at_once(verifier, made[0]) is not identities[0]


def test_refused_tokens_are_not_remembered() -> None:
    clock = Clock()
    verifier = Verifier(AuthSettings(token_key=SECRET), clock=clock)
    token = signed({"nbf": NOW + 60})
    with pytest.raises(Unauthorized):
        at_once(verifier, token)
    clock.now = NOW + 61
    at_once(verifier, token)


def test_a_verifier_can_be_closed_twice() -> None:
    async def main() -> None:
        verifier = Verifier(AuthSettings(token_key=SECRET))
        await verifier.aclose()
        await verifier.aclose()

    asyncio.run(main())


def test_a_private_key_serves_too() -> None:
    key = private_key("ES256")
    assert identity_of(signed(CLAIMS, key, "ES256"), token_key=private_pem(key)).user == "alice"


def test_keys_of_a_set_pin_their_own_algorithms(tmp_path: Any) -> None:
    rsa, ec = private_key("RS256"), private_key("ES256")
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(jwk(rsa, kid="r", alg="RS512"), jwk(ec, kid="e")))
    pinned: dict[str, Any] = {"token_key": None, "token_jwks": str(path)}
    identity_of(signed(CLAIMS, rsa, "RS512", kid="r"), **pinned)
    identity_of(signed(CLAIMS, ec, "ES256", kid="e"), **pinned)
    refused(signed(CLAIMS, rsa, "RS256", kid="r"), "signed with 'RS256'; accepted here is ES256 or RS512", **pinned)
    refused(signed(CLAIMS, rsa, "RS512", kid="e"), "signed with 'RS512'; accepted here is ES256", **pinned)
    refused(signed(CLAIMS, ec, "ES256", kid="other"), r"not known here \(kid 'other'\)", **pinned)
    # Without a name the algorithm decides, as long as only one key has it.
    identity_of(signed(CLAIMS, ec, "ES256"), **pinned)
