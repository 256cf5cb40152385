"""Tokens that were made to get in: none does, each is answered as documented, and none is in the log."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from tests.auth.signing import b64, jwk, key_set, private_key, public_pem, signed
from tests.guarded import bearer
from tests.serving import Server
from tests.wires import Http, WebSocket

RSA, EC = private_key("RS256"), private_key("ES256")
OTHER = private_key("RS256", 1)
HOUR = {"iat": int(time.time()), "exp": time.time() + 3600}
CAN = {"subscribe": ["*"], "publish": ["*"]}
GOOD: dict[str, Any] = {"sub": "ann", "aud": "chat", "iss": "https://login.example", "can": CAN, **HOUR}
MILLION = 1_000_000


class Forged(NamedTuple):
    """A token that is not to be accepted, and why it is not."""

    text: str
    code: str = "unauthorized"


def by_hand(header: dict[str, Any], claims: dict[str, Any] = GOOD, signature: bytes = b"") -> str:
    return f"{b64(header)}.{b64(claims)}.{b64(signature)}"


def confused(secret: bytes, kid: str = "rsa") -> str:
    """Sign with the public key, or what else an attacker may know, as if it were the secret of an HMAC."""
    body = f"{b64({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{b64(GOOD)}"
    return f"{body}.{b64(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


def rsa(claims: dict[str, Any], **header: Any) -> str:
    return signed(claims, RSA, "RS256", **{"kid": "rsa", **header})


def swapped(token: str, **claims: Any) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{b64({**GOOD, **claims})}.{signature}"


PEM = public_pem(RSA).encode()
FORGED = {
    "expired": Forged(rsa({**GOOD, "exp": time.time() - 60}), "expired"),
    "expired long ago": Forged(rsa({**GOOD, "exp": 1}), "expired"),
    "not good yet": Forged(rsa({**GOOD, "nbf": time.time() + 86_400})),
    "made tomorrow": Forged(rsa({**GOOD, "iat": time.time() + 86_400})),
    "in milliseconds": Forged(rsa({**GOOD, "exp": time.time() * 1000 + 1e6})),
    "unsigned": Forged(by_hand({"alg": "none", "typ": "JWT"})),
    "unsigned, oddly spelled": Forged(by_hand({"alg": "nOnE", "kid": "rsa"})),
    "unsigned, with a signature": Forged(by_hand({"alg": "none"}, signature=b"x" * 256)),
    "without a signature": Forged(rsa(GOOD).rpartition(".")[0] + "."),
    "signed with the public key": Forged(confused(PEM)),
    "signed with the public key, stripped": Forged(confused(PEM.strip())),
    "signed with the key set": Forged(confused(key_set(jwk(RSA, kid="rsa")))),
    "signed with nothing": Forged(confused(b"")),
    "of another key": Forged(signed(GOOD, OTHER, "RS256", kid="rsa")),
    "of an unknown key id": Forged(signed(GOOD, OTHER, "RS256", kid="nobody's")),
    "with a path as key id": Forged(confused(b"", "/dev/null")),
    "of the other kind of key": Forged(signed(GOOD, EC, "ES256", kid="rsa")),
    "of an algorithm that is not pinned": Forged(signed(GOOD, RSA, "RS512", kid="rsa")),
    "with a key of its own": Forged(signed(GOOD, OTHER, "RS256", jwk=jwk(OTHER), jku="http://127.0.0.1:1/keys")),
    "for another audience": Forged(rsa({**GOOD, "aud": "admin"})),
    "for several others": Forged(rsa({**GOOD, "aud": ["admin", "chat2", ""]})),
    "for nobody": Forged(rsa({name: value for name, value in GOOD.items() if name != "aud"})),
    "from another issuer": Forged(rsa({**GOOD, "iss": "https://login.example.evil"})),
    "of another user": Forged(swapped(rsa(GOOD), sub="root")),
    "that grants itself more": Forged(swapped(rsa(GOOD), can={"admin": ["*"]})),
    "with claims of the wrong kind": Forged(rsa({**GOOD, "sub": "a\nb"})),
    "of a million channels": Forged(rsa({**GOOD, "channels": ["a" * 9 + str(n) for n in range(100)] * 11})),
    "of two parts": Forged(rsa(GOOD).rpartition(".")[0]),
    "of five parts": Forged("a.b.c.d.e"),
    "no base64": Forged("ä.ö.ü"),
    "dots": Forged("." * 100),
    "nested": Forged(f"{b64(b'[' * 4000)}.{b64(b'[' * 1000)}.AA"),
}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes tokens of two keys of a set, for one audience, from one issuer."""
    path: Path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_bytes(key_set(jwk(RSA, kid="rsa", alg="RS256"), jwk(EC, kid="ec")))
    auth = {"token_jwks": str(path), "token_audience": "chat", "token_issuer": "https://login.example"}
    server = Server(auth=auth, limits={"drain_s": 0.1})
    yield server
    server.close()


def by_header(server: Server, text: str) -> str | None:
    return _asked(server, "/v1/messages?channel=a", ("Authorization", f"Bearer {text}"))


def by_scheme_in_capitals(server: Server, text: str) -> str | None:
    return _asked(server, "/v1/stream?channel=a", ("Authorization", f"BEARER   {text} "))


def by_query(server: Server, text: str) -> str | None:
    return _asked(server, f"/v1/events?channel=a&token={quote(text, safe='')}")


def by_cookie(server: Server, text: str) -> str | None:
    return _asked(server, "/v1/messages?channel=a&wait=1", ("Cookie", f"a=b; tellwire_token={text}"))


def by_publish(server: Server, text: str) -> str | None:
    with Http(server) as http:
        answer = http.post("/v1/messages", {"channel": "a", "data": 1}, headers=[_field(bearer(text))])
        return None if answer.status == 200 else answer.code


def by_subprotocol(server: Server, text: str) -> str | None:
    if not text.isascii():
        return "unauthorized"  # no subprotocol can hold it
    with WebSocket(server, token=text) as wire:
        return _told(wire, wire.ask(type="connect"))


def by_connect(server: Server, text: str) -> str | None:
    with WebSocket(server, packed=True) as wire:
        return _told(wire, wire.ask(type="connect", token=text))


PLACES: tuple[Callable[[Server, str], str | None], ...] = (
    by_header, by_scheme_in_capitals, by_query, by_cookie, by_publish, by_connect,
)  # fmt: skip


def _field(field: tuple[str, str]) -> tuple[str, str]:
    return field[0], field[1].encode().decode("latin-1")


def _asked(server: Server, target: str, *headers: tuple[str, str]) -> str | None:
    with Http(server) as http:
        http.send_request("GET", target, headers=map(_field, headers))
        status, fields = http.read_head()
        if status == 200:
            return None
        assert fields["www-authenticate"].startswith("Bearer")
        problem = json.loads(http.read_exactly(int(fields["content-length"])))
        assert status == problem["status"] == 401
        code: str = problem["code"]
        return code


def _told(wire: WebSocket, answer: dict[str, Any]) -> str | None:
    if answer["type"] == "connected":
        return None
    code: str = answer["code"]
    assert wire.read_close()[0] == {"unauthorized": 4500, "expired": 4002}[code]
    return code


def test_token_that_is_good_is_taken_everywhere(locked: Server) -> None:
    for text in (rsa(GOOD), rsa({**GOOD, "aud": ["x", "chat"]}), signed(GOOD, EC, "ES256", kid="ec")):
        for place in PLACES:
            assert place(locked, text) is None
        assert by_subprotocol(locked, text) is None


@pytest.mark.parametrize("name", FORGED)
def test_forged_token_is_refused_everywhere(locked: Server, name: str) -> None:
    forged = FORGED[name]
    for place in PLACES:
        assert place(locked, forged.text) == forged.code, place.__name__
    secret = max(forged.text.split("."), key=len)
    assert len(secret) < 16 or secret not in locked.log


def test_forged_token_in_a_subprotocol_is_refused(locked: Server) -> None:
    for name, forged in FORGED.items():
        if forged.text.isascii():
            with WebSocket(locked, token=forged.text) as wire:
                error, closing = wire.read(), wire.read()
                assert (error["type"], error["code"]) == ("error", forged.code), name
                assert closing["type"] == "closing"
                assert wire.read_close()[0] == closing["code"] == {"expired": 4002}.get(forged.code, 4500)


def test_token_of_a_million_characters(locked: Server) -> None:
    """In a head it is too large for that; in a command it is refused before it is looked at."""
    long = base64.urlsafe_b64encode(b"x" * MILLION)[:MILLION].decode()
    for target, headers in (
        ("/v1/messages?channel=a", [bearer(long)]),
        (f"/v1/messages?channel=a&token={long}", []),
        ("/v1/events?channel=a", [("Cookie", f"tellwire_token={long}")]),
        ("/v1/ws", [("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", f"tellwire.token.{long}")]),
    ):
        with Http(locked) as http:
            with contextlib.suppress(OSError):  # it may be answered and closed before all of it was sent
                http.send_request("GET", target, headers=headers)
            answer = http.read_response()
            assert (answer.status, answer.code) == (413, "too_large")
            assert http.read_to_end() == b""
    assert by_connect(locked, long) == "unauthorized"
    for length in (8193, 60_000):
        for place in PLACES:
            assert place(locked, long[:length]) == "unauthorized", place.__name__
    assert long[:1000] not in locked.log
    assert by_header(locked, rsa(GOOD)) is None


def test_forged_tokens_without_end_are_not_kept(locked: Server) -> None:
    """Tokens that are refused are not remembered: memory stays where it was."""
    with Http(locked) as http:

        def knock(count: int) -> None:
            for number in range(count):
                text = swapped(FORGED["of another user"].text, sub=f"root{number}", info="x" * 4000)
                assert http.get("/v1/messages?channel=a", headers=[bearer(text)]).code == "unauthorized"

        knock(300)
        before = locked.rss
        knock(1500)
        assert locked.rss - before < 8_000_000
