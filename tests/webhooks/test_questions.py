"""What a backend is asked, and what becomes of its answers."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, hmac

from tellwire import __version__
from tellwire.auth import Identity
from tellwire.errors import (
    Expired,
    Forbidden,
    HookFailed,
    InvalidData,
    NotFound,
    RateLimited,
    TellwireError,
    Unauthorized,
)
from tellwire.hooks import Client, Publishing
from tellwire.testing.harness import on_loop
from tellwire.webhooks.endpoint import ANSWER_MAX_BYTES
from tests.webhooks.backend import SECRET, Answer, Asked, Backend, Time, asking

ANN = Client("c1", Identity(user="ann", info=b'{"name":"Ann"}'), "websocket")
ABOUT_ANN = {"client": "c1", "user": "ann", "info": {"name": "Ann"}, "transport": "websocket"}
HELLO = Publishing("room:1", {"text": "hello"}, id="m1")


def check_signature(asked: Asked) -> int:
    """Check a request as docs/hooks.md says, with another library than it was signed with; return its time."""
    fields = dict(part.split("=", 1) for part in asked.headers["tellwire-signature"].split(","))
    mac = hmac.HMAC(SECRET.encode(), hashes.SHA256())
    mac.update(fields["t"].encode() + b"." + asked.body)
    mac.verify(bytes.fromhex(fields["v1"]))
    return int(fields["t"])


@on_loop
async def test_requests_are_signed_json() -> None:
    time = Time()
    async with Backend() as backend, asking(backend.url, time) as hooks:
        await hooks.ask_subscribe(ANN, "room:1")
    [asked] = backend.requests
    assert asked.path == "/subscribe"
    assert asked.json == {"hook": "subscribe", "time": int(time.now * 1000), "client": ABOUT_ANN, "channel": "room:1"}
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"] == f"tellwire/{__version__}"
    assert len(asked.key) >= 32
    assert check_signature(asked) == int(time.now)


@on_loop
async def test_each_question_has_a_key_of_its_own() -> None:
    async with Backend() as backend, asking(backend.url) as hooks:
        for _ in range(3):
            await hooks.ask_publish(ANN, HELLO)
    assert len({asked.key for asked in backend.requests}) == 3


@on_loop
async def test_publish_says_all_of_a_message() -> None:
    async with Backend() as backend, asking(backend.url) as hooks:
        await hooks.ask_publish(ANN, Publishing("room:1", [1, b"\x00\xff", 2**80, "ü"], "move", "m1", "k1", True))
        await hooks.ask_publish(None, HELLO)
    first, second = (asked.json for asked in backend.requests)
    assert first["client"] == ABOUT_ANN
    assert first["data"] == [1, {"$bytes": "AP8="}, 2**80, "ü"]
    assert [first[name] for name in ("channel", "event", "id", "key", "ephemeral")] == [
        "room:1", "move", "m1", "k1", True,
    ]  # fmt: skip
    assert second["client"] is None


@on_loop
@pytest.mark.parametrize(
    ("result", "changes"),
    [
        ({"data": {"text": "h***o"}}, {"data": {"text": "h***o"}}),
        ({"data": None}, {"data": None}),
        ({"event": "censored", "ephemeral": True}, {"event": "censored", "ephemeral": True}),
        ({"key": "k2"}, {"key": "k2"}),
        ({"key": None}, {"key": None}),
        ({}, {}),
    ],
)
async def test_publish_may_be_altered(result: Any, changes: dict[str, Any]) -> None:
    message = replace(HELLO, key="k1")
    async with Backend(lambda asked: Answer({"result": result})) as backend, asking(backend.url) as hooks:
        assert await hooks.ask_publish(ANN, message) == replace(message, **changes)


@on_loop
@pytest.mark.parametrize("answer", [Answer({}), Answer({"result": None}), Answer(b"", status=204)])
async def test_empty_answers_let_everything_go_on(answer: Answer) -> None:
    async with Backend(lambda asked: answer) as backend, asking(backend.url) as hooks:
        await hooks.ask_subscribe(ANN, "room:1")
        assert await hooks.ask_publish(ANN, HELLO) is None
        assert await hooks.ask_call(ANN, "add", [1]) is None


@on_loop
async def test_call_returns_what_was_answered() -> None:
    def add(asked: Asked) -> Answer:
        assert asked.json["method"] == "math.add"
        return Answer({"result": sum(asked.json["data"])})

    async with Backend(add) as backend, asking(backend.url) as hooks:
        assert await hooks.ask_call(ANN, "math.add", [1, 2, 3]) == 6


@on_loop
@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (Answer({"error": {"code": "forbidden", "message": "members only"}}), Forbidden, "members only"),
        (Answer({"error": {"code": "forbidden"}}), Forbidden, "this is not for you"),
        (Answer({"error": {"code": "invalid_data", "message": "no text"}}), InvalidData, "no text"),
        (Answer({"error": {"code": "not_found", "message": "no such method"}}), NotFound, "no such method"),
        (Answer({"error": {"code": "rate_limited", "message": "slow down"}}), RateLimited, "slow down"),
        (Answer({"error": {"code": "expired", "message": "log in again"}}), Expired, "log in again"),
        (Answer({"error": {"message": "members only"}}, status=403), Forbidden, "members only"),
        (Answer({"message": "members only"}, status=403), Forbidden, "members only"),
        (Answer({"detail": "members only", "title": "x"}, status=403), Forbidden, "members only"),
        (Answer({"detail": ["a", "list"]}, status=403), Forbidden, "the application does not allow this"),
        (Answer(b"<html>no</html>", status=403), Forbidden, "the application does not allow this"),
        (Answer(b"", status=401), Unauthorized, "the application does not allow this"),
        (Answer({"message": "x" * 10_000}, status=401), Unauthorized, "x" * 300),
    ],
)
async def test_refusals_reach_who_asked(answer: Answer, error: type[TellwireError], text: str) -> None:
    async with Backend(lambda asked: answer) as backend, asking(backend.url, hook_unavailable="allow") as hooks:
        for question in (
            hooks.ask_subscribe(ANN, "room:1"),
            hooks.ask_publish(ANN, HELLO),
            hooks.ask_call(ANN, "m", 1),
        ):
            with pytest.raises(TellwireError) as raised:
                await question
            assert type(raised.value) is error
            assert raised.value.detail == text
    assert len(backend.requests) == 3, "a refusal is an answer: nobody asks again"


BAD = [
    (Answer(b"<html>welcome</html>"), "cannot be read"),
    (Answer(b""), "cannot be read"),
    (Answer(b"[]"), "cannot be read"),
    (Answer(b'{"result":'), "cannot be read"),
    (Answer(b"\xff\xfe"), "cannot be read"),
    (Answer(b"[" * 100_000), "cannot be read"),
    (Answer(b'{"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "cannot be read"),
    (Answer({"resutl": {"data": 1}}), "unknown field `resutl`"),
    (Answer({"error": "forbidden"}), "cannot be read"),
    (
        Answer({"error": {"code": "forbiden", "message": "x"}}),
        "refused with the code 'forbiden'; known are",
    ),
    (Answer({"error": {"code": "internal"}}), "refused with the code 'internal'"),
    (Answer(gzip.compress(b"{}"), headers={"content-encoding": "gzip"}), "cannot be read"),
    (Answer(b'"' + b"x" * ANSWER_MAX_BYTES + b'"'), f"answered with more than {ANSWER_MAX_BYTES} bytes"),
    (Answer({}, status=404), "answered 404"),
    (Answer({}, status=400), "answered 400"),
    (Answer({}, status=201), "answered 201"),
]


@on_loop
@pytest.mark.parametrize(("answer", "fault"), BAD, ids=[fault + str(i) for i, (_, fault) in enumerate(BAD)])
async def test_answers_that_make_no_sense_allow_nothing(
    answer: Answer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Backend(lambda asked: answer) as backend, asking(backend.url, hook_unavailable="allow") as hooks:
        with pytest.raises(HookFailed, match="the server's log says why"):
            await hooks.ask_publish(ANN, HELLO)
        assert len(backend.requests) == 1, "such an answer would be the same again"
    assert fault in caplog.text
    assert f"the publish hook at {backend.url}/publish" in caplog.text


@on_loop
@pytest.mark.parametrize("result", [{"dat": 1}, {"data": 1, "channel": "admin"}, {"event": 7}, False, "no", [1]])
async def test_publish_takes_no_result_that_it_does_not_know(result: Any) -> None:
    async with Backend(lambda asked: Answer({"result": result})) as backend, asking(backend.url) as hooks:
        with pytest.raises(HookFailed):
            await hooks.ask_publish(ANN, HELLO)


@on_loop
@pytest.mark.parametrize("result", [False, True, {}, "no"])
async def test_subscribe_takes_no_result(result: Any) -> None:
    async with Backend(lambda asked: Answer({"result": result})) as backend, asking(backend.url) as hooks:
        with pytest.raises(HookFailed):
            await hooks.ask_subscribe(ANN, "room:1")


@on_loop
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    answer = Answer({}, status=status, headers={"location": "/elsewhere"})
    async with Backend(lambda asked: answer) as backend, asking(backend.url) as hooks:
        with pytest.raises(HookFailed):
            await hooks.ask_subscribe(ANN, "room:1")
    assert backend.paths == ["/subscribe"]


@on_loop
async def test_cookies_of_the_backend_are_not_kept() -> None:
    answer = Answer({}, headers={"set-cookie": "user=ann; Path=/"})
    async with Backend(lambda asked: answer) as backend, asking(backend.url) as hooks:
        for _ in range(2):
            await hooks.ask_subscribe(ANN, "room:1")
    assert ["cookie" in asked.headers for asked in backend.requests] == [False, False]


@on_loop
async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Backend() as backend, Backend() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with asking(backend.url) as hooks:
            await hooks.ask_subscribe(ANN, "room:1")
    assert (len(backend.requests), len(proxy.requests)) == (1, 0)


@on_loop
async def test_hooks_without_a_url_are_not_asked() -> None:
    urls = {f"hook_{hook}_url": None for hook in ("connect", "subscribe", "call", "disconnect")}
    async with Backend() as backend, asking(backend.url, **urls) as hooks:
        assert (hooks.connect, hooks.subscribe, hooks.call, hooks.disconnect) == (None, None, None, None)
        assert hooks.authorize is None, "what a token grants is not asked for over HTTP"
        with pytest.raises(NotFound):
            await hooks.ask_call(ANN, "m", 1)
    assert backend.requests == []


@on_loop
async def test_hostile_names_stay_inside_the_json() -> None:
    nasty = 'room:1"}\r\nX-Evil: 1\r\n\r\n\u2028'
    async with Backend() as backend, asking(backend.url) as hooks:
        await hooks.ask_call(ANN, nasty, {nasty: nasty})
    [asked] = backend.requests
    assert "x-evil" not in asked.headers
    assert json.loads(asked.body)["method"] == nasty
    check_signature(asked)
