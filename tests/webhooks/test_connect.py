"""Who a backend says that somebody is, and for how long that holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tellwire.auth import Identity
from tellwire.errors import Expired, Forbidden, HookFailed, Unauthorized
from tellwire.hooks import ConnectRequest
from tellwire.testing.harness import on_loop
from tellwire.webhooks.cache import CACHE_MAX_BYTES, ENTRY_BYTES, IdentityCache
from tests.webhooks.backend import Answer, Asked, Backend, Time, asking


def as_user(asked: Asked) -> Answer:
    return Answer({"result": {"user": asked.json["token"]}})


@on_loop
async def test_connect_says_who_wants_in() -> None:
    request = ConnectRequest(
        token="T",
        headers={"authorization": "Bearer T", "cookie": "s=1", "user-agent": "x", "x-tenant": "acme"},
        cookies={"s": "1"},
        query={"channel": "room:1", "ticket": "abc"},
        path="/v1/ws",
        address="192.0.2.1",
        transport="websocket",
        origin="https://example.org",
    )
    forwarded = {"hook_forward_headers": ("Cookie", "X-Tenant", "absent"), "hook_forward_query": ("ticket",)}
    time = Time()
    async with Backend() as backend, asking(backend.url, time, **forwarded) as hooks:
        assert await hooks.ask_connect(request) is None
    [asked] = backend.requests
    assert asked.json == {
        "hook": "connect",
        "time": int(time.now * 1000),
        "token": "T",
        "headers": {"cookie": "s=1", "x-tenant": "acme"},
        "query": {"ticket": "abc"},
        "path": "/v1/ws",
        "transport": "websocket",
        "address": "192.0.2.1",
        "origin": "https://example.org",
    }


@on_loop
async def test_connect_is_answered_with_an_identity() -> None:
    time = Time()
    result = {
        "user": "ann",
        "info": {"name": "Ann"},
        "can": {"publish": ["room:*"]},
        "channels": ["news"],
        "expires_at": time.now + 60,
    }
    async with Backend(lambda asked: Answer({"result": result})) as backend, asking(backend.url, time) as hooks:
        identity = await hooks.ask_connect(ConnectRequest(token="T"))
    assert identity is not None
    assert (identity.user, identity.info, identity.channels) == ("ann", b'{"name": "Ann"}', ("news",))
    assert (identity.expires_at, identity.issued_at) == (time.now + 60, time.now)
    assert identity.grants.may("publish", "room:1")
    assert identity.grants.may("subscribe", "news")
    assert not identity.grants.may("publish", "news")
    assert not identity.grants.may("admin", "stats")


@on_loop
async def test_an_empty_identity_may_nothing() -> None:
    async with Backend(lambda asked: Answer({"result": {}})) as backend, asking(backend.url) as hooks:
        identity = await hooks.ask_connect(ConnectRequest())
    assert identity is not None
    assert (identity.user, identity.grants.can) == (None, ())


@on_loop
@pytest.mark.parametrize(
    ("result", "fault"),
    [
        ({"can": ["room:1"]}, "cannot be read"),
        ({"can": {"publish": "room:1"}}, "can.publish has to be a list"),
        ({"channels": ["$control"]}, "not a channel name"),
        ({"user": ""}, "1 to 255 characters"),
        ({"user": 7}, "cannot be read"),
        ({"expires_at": 1_700_000_060_000_000}, "not in seconds since 1970"),
        ({"expires_at": -1}, "not in seconds since 1970"),
        ({"expires_at": "tomorrow"}, "cannot be read"),
        ({"expire_at": 1}, "unknown field"),
        ({"info": "\ud800"}, "cannot be read"),
        (True, "cannot be read"),
        ("ann", "cannot be read"),
    ],
)
async def test_identities_that_make_no_sense_let_nobody_in(
    result: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = Answer({"result": result})
    async with Backend(lambda asked: answer) as backend, asking(backend.url, hook_unavailable="allow") as hooks:
        with pytest.raises(HookFailed):
            await hooks.ask_connect(ConnectRequest(token="T"))
    assert fault in caplog.text


@on_loop
async def test_an_identity_that_has_expired_lets_nobody_in() -> None:
    time = Time()
    answer = Answer({"result": {"user": "ann", "expires_at": time.now}})
    async with Backend(lambda asked: answer) as backend, asking(backend.url, time) as hooks:
        with pytest.raises(Expired):
            await hooks.ask_connect(ConnectRequest(token="T"))


@on_loop
async def test_an_answer_holds_for_the_same_credentials() -> None:
    time = Time()
    async with Backend(as_user) as backend, asking(backend.url, time, hook_cache_s=30) as hooks:

        async def ask(**fields: Any) -> None:
            await hooks.ask_connect(ConnectRequest(**{"token": "T", **fields}))

        await ask(path="/v1/ws", address="192.0.2.1", transport="websocket", query={"since": "1"})
        await ask(path="/v1/messages", address="192.0.2.2", transport="poll", query={"since": "2"})
        assert len(backend.requests) == 1
        others: list[dict[str, Any]] = [
            {"token": "U"},
            {"headers": {"cookie": "s=1"}},
            {"headers": {"authorization": "s=1"}},
            {"origin": "https://example.org"},
        ]
        for n, other in enumerate(others):
            await ask(**other)
            assert len(backend.requests) == 2 + n
        time.now += 29.9
        await ask()
        assert len(backend.requests) == 5
        time.now += 0.2
        await ask()
        assert len(backend.requests) == 6


@on_loop
async def test_that_the_token_decides_is_kept_too() -> None:
    async with Backend() as backend, asking(backend.url) as hooks:
        for _ in range(2):
            assert await hooks.ask_connect(ConnectRequest(token="T")) is None
    assert len(backend.requests) == 1


@on_loop
async def test_strangers_are_asked_for_each_time() -> None:
    names = iter(["guest1", "guest2"])
    async with (
        Backend(lambda asked: Answer({"result": {"user": next(names)}})) as backend,
        asking(backend.url) as hooks,
    ):
        found = [await hooks.ask_connect(ConnectRequest(headers={"user-agent": "x"})) for _ in range(2)]
    assert [identity and identity.user for identity in found] == ["guest1", "guest2"]


@on_loop
async def test_an_answer_holds_no_longer_than_it_says() -> None:
    time = Time()

    def for_a_second(asked: Asked) -> Answer:
        return Answer({"result": {"user": "ann", "expires_at": time.now + 1}})

    async with Backend(for_a_second) as backend, asking(backend.url, time, hook_cache_s=30) as hooks:
        await hooks.ask_connect(ConnectRequest(token="T"))
        time.now += 1
        await hooks.ask_connect(ConnectRequest(token="T"))
    assert len(backend.requests) == 2


@on_loop
async def test_nothing_is_kept_where_that_is_wanted() -> None:
    async with Backend(as_user) as backend, asking(backend.url, hook_cache_s=0) as hooks:
        for _ in range(3):
            await hooks.ask_connect(ConnectRequest(token="T"))
    assert len(backend.requests) == 3


@on_loop
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer({}, status=401), Unauthorized),
        (Answer({"error": {"code": "forbidden"}}), Forbidden),
        (Answer(b"x"), HookFailed),
    ],
)
async def test_refusals_and_failures_are_not_kept(answer: Answer, error: type[Exception]) -> None:
    async with Backend(lambda asked: answer) as backend, asking(backend.url) as hooks:
        with pytest.raises(error):
            await hooks.ask_connect(ConnectRequest(token="T"))
        backend.answer = as_user
        identity = await hooks.ask_connect(ConnectRequest(token="T"))
    assert identity is not None
    assert identity.user == "T"


@on_loop
async def test_many_at_once_with_the_same_credentials_ask_once() -> None:
    gate = asyncio.Event()

    async def later(asked: Asked) -> Answer:
        await gate.wait()
        return as_user(asked)

    async with Backend(later) as backend, asking(backend.url) as hooks:
        flights = [asyncio.create_task(hooks.ask_connect(ConnectRequest(token="T"))) for _ in range(50)]
        await backend.seen(1)
        flights[0].cancel()  # the one that the others wait for
        with pytest.raises(asyncio.CancelledError):
            await flights[0]
        gate.set()
        found = await asyncio.gather(*flights[1:])
        assert len(backend.requests) == 1
    assert {identity and identity.user for identity in found} == {"T"}


@on_loop
async def test_many_at_once_are_refused_together() -> None:
    async with Backend(lambda asked: Answer({}, status=401)) as backend, asking(backend.url) as hooks:
        flights = [hooks.ask_connect(ConnectRequest(token="T")) for _ in range(20)]
        found = await asyncio.gather(*flights, return_exceptions=True)
        assert len(backend.requests) == 1
    assert {type(one) for one in found} == {Unauthorized}


@on_loop
@pytest.mark.parametrize(
    "answer", [Answer(b"<html>"), Answer({}, status=500), Answer({}, status=401), Answer(raw=b""), Answer({"x": 1})]
)
async def test_credentials_are_in_no_log_and_no_error(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    request = ConnectRequest(token="CANARY", headers={"cookie": "s=CANARY", "authorization": "Bearer CANARY"})
    async with Backend(lambda asked: answer) as backend:
        urls: dict[str, Any] = {"hook_connect_url": f"{backend.url}/connect?key=CANARY", "hook_secret": "CANARY" * 8}
        async with asking(backend.url, **urls) as hooks:
            with pytest.raises(Exception) as raised:  # noqa: PT011 - whichever it is
                await hooks.ask_connect(request)
            assert "CANARY" not in repr(hooks)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("tellwire", "httpx"))]
    assert "CANARY" not in "".join(ours) + str(raised.value)


@pytest.mark.parametrize("size", [0, 50_000])
def test_the_cache_is_bounded_in_bytes(size: int) -> None:
    time = Time()
    cache = IdentityCache(30, time, time)
    most = CACHE_MAX_BYTES // (size + ENTRY_BYTES)
    for n in range(most + 100):
        cache.keep(b"%d" % n, Identity(), size)
        cache.find(b"0")  # used all the time
    assert cache.size <= CACHE_MAX_BYTES
    assert len(cache) == most
    assert cache.find(b"0") is not None
    assert cache.find(b"1") is None
    assert cache.find(b"%d" % (most + 99)) is not None


def test_the_cache_counts_what_it_forgets() -> None:
    time = Time()
    cache = IdentityCache(30, time, time)
    forget: list[Callable[[], object]] = [
        lambda: cache.keep(b"a", None, 5),  # in its own place
        lambda: setattr(time, "now", time.now + 31),
        lambda: cache.find(b"a"),
    ]
    cache.keep(b"a", Identity(), 100)
    for step in forget:
        step()
    assert (len(cache), cache.size) == (0, 0)
