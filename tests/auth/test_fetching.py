"""Keys from a URL, from a real server: rotated, slow, broken, gone, and never fetched more than they should be."""

from __future__ import annotations

import asyncio
import gzip
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tellwire.auth import AuthSettings, UnusableKey, Verifier
from tellwire.auth.fetching import FetchedKeys
from tellwire.errors import Unauthorized, Unavailable
from tellwire.tasks import Tasks
from tests.auth.signing import SECRET, Clock, at_once, b64, jwk, key_set, private_key, signed
from tests.ports import free_port

Check = Callable[["Keys", Verifier, Clock], Coroutine[Any, Any, None]]


class Keys:
    """A server of key sets, whose answer can be changed; ``requests`` counts what it was asked."""

    def __init__(self) -> None:
        self.body = key_set()
        self.status = 200
        self.headers: dict[str, str] = {}
        self.requests = 0
        self.authorizations: list[str | None] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.may_end = threading.Event()
        self.may_end.set()
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.requests += 1
                keys.authorizations.append(self.headers["Authorization"])
                keys.may_answer.wait(20)
                self.send_response(keys.status)
                for name, value in keys.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(keys.body)
                    self.wfile.flush()
                    keys.may_end.wait(20)
                except OSError:
                    pass  # the client has seen enough

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/keys.json"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def serve(self, *names: str) -> None:
        """Answer with the keys of these names from now on."""
        self.body = key_set(*(jwk(key(name), kid=name) for name in names))

    def close(self) -> None:
        self.may_answer.set()
        self.may_end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def key(name: str) -> Any:
    return private_key("ES256", ord(name))


def token(name: str, **claims: Any) -> str:
    """Return a token signed with the key of that name."""
    return signed({"sub": "alice", **claims}, key(name), "ES256", kid=name)


@pytest.fixture
def keys() -> Iterator[Keys]:
    keys = Keys()
    yield keys
    keys.close()


def check(keys: Keys, main: Check, **settings: Any) -> None:
    """Run a check with a verifier that has fetched nothing yet."""

    async def run() -> None:
        clock = Clock()
        verifier = Verifier(AuthSettings(token_jwks=keys.url, **settings), clock=clock, monotonic=clock)
        try:
            await main(keys, verifier, clock)
        finally:
            await verifier.aclose()

    asyncio.run(run())


async def settled() -> None:
    """Wait for what runs beside."""
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})


def test_keys_are_fetched_when_first_needed_and_known_then(keys: Keys) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        assert keys.requests == 0
        assert (await verifier.verify(token("a"))).user == "alice"
        for number in range(5):
            at_once(verifier, token("a", n=number))
        assert keys.requests == 1

    keys.serve("a", "b")
    check(keys, main)


def test_keys_are_rotated(keys: Keys) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        await verifier.verify(token("a"))
        keys.serve("a", "b")
        clock.now += 31
        await verifier.verify(token("b"))
        assert keys.requests == 2
        keys.serve("b")
        clock.now += 601
        at_once(verifier, token("a"))  # the keys from before are good until there are newer ones
        await settled()
        assert keys.requests == 3
        with pytest.raises(Unauthorized, match="not known here"):
            await verifier.verify(token("a"))  # remembered tokens of a key that is gone are not good any more
        at_once(verifier, token("b"))

    keys.serve("a")
    check(keys, main)


def test_made_up_keys_cause_no_storm(keys: Keys) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        async def refused(number: int) -> None:
            with pytest.raises(Unauthorized, match=r"not known here \(kid 'x"):
                await verifier.verify(signed({}, key("x"), "ES256", kid=f"x{number}"))

        await asyncio.gather(*(refused(number) for number in range(200)))
        assert keys.requests == 1
        clock.now += 29
        await asyncio.gather(*(refused(number) for number in range(200)))
        assert keys.requests == 1
        clock.now += 2
        await asyncio.gather(*(refused(number) for number in range(200)))
        assert keys.requests == 2

    keys.serve("a")
    check(keys, main)


def test_everybody_waits_for_one_fetch(keys: Keys) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        keys.may_answer.clear()
        waiting = [asyncio.ensure_future(verifier.verify(token("a", n=number))) for number in range(100)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # who asked first goes away
        await asyncio.sleep(0)
        keys.may_answer.set()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert [each for each in done[1:] if isinstance(each, BaseException)] == []
        assert keys.requests == 1

    keys.serve("a")
    check(keys, main)


def test_known_keys_do_not_wait_for_a_slow_server(keys: Keys) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        await verifier.verify(token("a"))
        keys.may_answer.clear()
        clock.now += 601
        for number in range(5):
            at_once(verifier, token("a", n=number))
        keys.may_answer.set()
        await settled()
        assert keys.requests == 2

    keys.serve("a")
    check(keys, main)


def serve_status(keys: Keys) -> None:
    keys.status = 500


def serve_redirect(keys: Keys) -> None:
    keys.status = 302
    keys.headers = {"Location": keys.url}


def serve_garbage(keys: Keys) -> None:
    keys.body = b"<html>welcome</html>"


def serve_no_keys(keys: Keys) -> None:
    keys.body = key_set()


def serve_only_a_secret(keys: Keys) -> None:
    keys.body = key_set({"kty": "oct", "kid": "a", "k": b64(SECRET.encode())})


def serve_too_much(keys: Keys) -> None:
    keys.body = keys.body[:-1] + b" " * 70_000 + b"}"


def serve_endlessly_much(keys: Keys) -> None:
    keys.body = b" " * 70_000
    keys.may_end.clear()


def serve_compressed(keys: Keys) -> None:
    keys.body = gzip.compress(keys.body + b" " * 10_000_000)
    keys.headers = {"Content-Encoding": "gzip"}


def serve_half(keys: Keys) -> None:
    keys.headers = {"Content-Length": str(len(keys.body) + 10)}


FAULTS = [
    (serve_status, "the status 500"),
    (serve_redirect, "the status 302"),
    (serve_garbage, "not a JWK set"),
    (serve_no_keys, "no keys in the JWK set"),
    (serve_only_a_secret, "no place for"),
    (serve_too_much, "larger than 65536 bytes"),
    (serve_endlessly_much, "larger than 65536 bytes"),
    (serve_compressed, "compressed"),
    (serve_half, "RemoteProtocolError"),
]


@pytest.mark.parametrize(("fault", "says"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_answer_changes_nothing(
    keys: Keys, fault: Callable[[Keys], None], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        await verifier.verify(token("a"))
        fault(keys)
        clock.now += 601
        at_once(verifier, token("a"))
        await settled()
        assert keys.requests == 2
        assert says in caplog.text
        assert "those from before stay" in caplog.text
        at_once(verifier, token("a", n=1))
        with pytest.raises(Unavailable):  # it may be signed with a newer key; nobody can tell now
            await verifier.verify(token("b"))
        assert keys.requests == 2

    keys.serve("a")
    check(keys, main)


@pytest.mark.parametrize(("fault", "says"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_without_keys_the_server_is_at_fault_and_tries_again(
    keys: Keys, fault: Callable[[Keys], None], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        fault(keys)
        for _ in range(3):
            with pytest.raises(Unavailable, match="cannot be fetched now"):
                await verifier.verify(token("a"))
        assert keys.requests == 1
        assert says in caplog.text
        keys.status, keys.headers = 200, {}
        keys.may_end.set()
        keys.serve("a")
        clock.now += 6
        await verifier.verify(token("a"))

    keys.serve("a")
    check(keys, main)


def test_an_answer_that_does_not_end(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        fetched = FetchedKeys(keys.url, (), Clock(), fetch_s=0.2)
        with pytest.raises(Unavailable):
            await fetched.find("a", "ES256")
        assert "there was no whole answer within 0.2 s" in caplog.text

    keys.serve("a")
    keys.may_end.clear()
    asyncio.run(main())


def test_a_fetch_can_be_begun_outside_a_task(keys: Keys) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        tasks = Tasks()
        tasks.start(verifier.verify(token("a")), lambda identity, exc: found.set_result((identity, exc)))
        identity, exc = await found
        assert exc is None
        assert identity.user == "alice"
        await tasks.aclose()

    keys.serve("a")
    check(keys, main)


def test_a_server_that_is_not_there(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        keys.close()
        with pytest.raises(Unavailable):
            await verifier.verify(token("a"))
        assert "ConnectError" in caplog.text

    check(keys, main)


def test_closing_ends_a_fetch(keys: Keys) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        keys.may_answer.clear()
        waiting = asyncio.ensure_future(verifier.verify(token("a")))
        await asyncio.sleep(0)
        await verifier.aclose()
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await verifier.verify(token("a"))

    keys.serve("a")
    check(keys, main)


@pytest.mark.parametrize(
    ("said", "lasts_s"),
    [
        ("", 600),
        ("no-cache", 600),
        ("public, max-age=120", 120),
        ("max-age=1", 60),
        ("max-age=0", 60),
        ("max-age=99999999999999999999", 86_400),
        ("max-age=999999999", 86_400),
        ("s-max-age=5, max-age=300", 300),
        ("max-age=soon", 600),
        ("MAX-AGE=300", 300),
    ],
)
def test_the_server_says_how_long_keys_are_good_within_bounds(keys: Keys, said: str, lasts_s: int) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        keys.headers = {"Cache-Control": said}
        await verifier.verify(token("a"))
        for passed, requests in ((lasts_s - 1, 1), (1, 2)):
            clock.now += passed
            at_once(verifier, token("a"))
            await settled()
            assert keys.requests == requests

    keys.serve("a")
    check(keys, main)


def test_only_key_pairs_count(keys: Keys) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        keys.body = key_set({"kty": "oct", "kid": "s", "k": b64(SECRET.encode())}, jwk(key("a"), kid="a"))
        with pytest.raises(Unauthorized, match="signed with 'HS256'"):
            await verifier.verify(signed({}, kid="s"))
        assert keys.requests == 0, "such a token is refused before anything is fetched"
        await verifier.verify(token("a"))

    check(keys, main)


def test_pinned_algorithms_hold_for_fetched_keys(keys: Keys) -> None:
    async def main(keys: Keys, verifier: Verifier, clock: Clock) -> None:
        keys.body = key_set(jwk(key("a"), kid="a"), jwk(private_key("EdDSA"), kid="e"))
        with pytest.raises(Unauthorized, match="signed with 'ES256'; accepted here is EdDSA"):
            await verifier.verify(token("a"))
        await verifier.verify(signed({}, private_key("EdDSA"), "EdDSA", kid="e"))

    check(keys, main, token_algorithms=("EdDSA",))


@pytest.mark.parametrize("url", ["http://", "https:///keys", "http://[x/keys", "http://a:99999/", "http://a\x00b/"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(UnusableKey, match="token_jwks"):
        Verifier(AuthSettings(token_jwks=url))


def test_secrets_are_not_taken_from_a_url() -> None:
    with pytest.raises(UnusableKey, match="HS256 needs a secret"):
        Verifier(AuthSettings(token_jwks="https://id.test/keys", token_algorithms=("HS256",)))


def test_plain_http_from_elsewhere_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    Verifier(AuthSettings(token_jwks="https://id.test/keys"))
    Verifier(AuthSettings(token_jwks="http://127.0.0.1:1/keys"))
    assert caplog.text == ""
    Verifier(AuthSettings(token_jwks="http://id.test/keys"))
    assert "plain http" in caplog.text


def test_a_password_in_the_url_is_not_logged(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        verifier = Verifier(AuthSettings(token_jwks=keys.url.replace("//", "//user:hunter2@")))
        with pytest.raises(Unavailable):
            await verifier.verify(token("a"))
        await verifier.aclose()

    asyncio.run(main())
    assert keys.authorizations == ["Basic dXNlcjpodW50ZXIy"]
    assert "could not be fetched from http://127.0.0.1:" in caplog.text
    assert not any("hunter2" in record.getMessage() for record in caplog.records)
