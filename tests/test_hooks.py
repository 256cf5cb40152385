from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tellwire.auth import Grants, Identity
from tellwire.errors import Forbidden, HookFailed, NotFound, TellwireError, Timeout, Unauthorized
from tellwire.hooks import Client, ConnectRequest, Disconnected, Hooks, Publishing, encode_value
from tellwire.tasks import Tasks
from tellwire.testing.harness import on_loop

ANN = Client("c1", Identity(user="ann", info=b'{"name":"Ann"}'), "websocket")
HELLO = Publishing("room:1", {"text": "hello"}, id="m1")
GONE = Disconnected("c1", "ann", None, "websocket", 1001, "went away", 1_700_000_000.0)


class Counted:
    """Keeps what hooks count."""

    def __init__(self) -> None:
        self.all: list[tuple[str, bool]] = []

    def hooked(self, name: str, begin_s: float, *, failed: bool) -> None:
        assert begin_s > 0
        self.all.append((name, failed))


async def wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_client_has_what_its_token_says() -> None:
    assert ANN.user == "ann"
    assert ANN.info == {"name": "Ann"}
    assert Client("c2", Identity(), "poll").info is None


def test_requests_do_not_show_credentials() -> None:
    request = ConnectRequest(
        token="SECRET",
        headers={"authorization": "Bearer SECRET"},
        cookies={"session": "SECRET"},
        query={"ticket": "SECRET"},
        path="/v1/ws",
    )
    assert "SECRET" not in repr(request)
    assert "/v1/ws" in repr(request)


@on_loop
async def test_hooks_without_handlers_let_everything_go_on() -> None:
    hooks = Hooks()
    assert await hooks.ask_connect(ConnectRequest()) is None
    assert await hooks.ask_authorize(ANN, "subscribe", "room:1") is None
    assert await hooks.ask_publish(ANN, HELLO) is None
    await hooks.ask_subscribe(ANN, "room:1")
    await hooks.tell_disconnect(GONE)
    with pytest.raises(NotFound, match="there is no method 'add'"):
        await hooks.ask_call(ANN, "add", [1, 2])


@on_loop
async def test_plain_and_async_handlers_are_asked_alike() -> None:
    def connect(request: ConnectRequest) -> Identity:
        return Identity(user=request.headers["x-user"])

    async def connect_later(request: ConnectRequest) -> Identity:
        await asyncio.sleep(0)
        return connect(request)

    request = ConnectRequest(headers={"x-user": "ann"})
    for handler in (connect, connect_later):
        assert await Hooks(connect=handler).ask_connect(request) == Identity(user="ann")


@on_loop
async def test_authorize_decides_or_leaves_it_to_the_grants() -> None:
    decisions = {"room:1": True, "room:2": False}
    hooks = Hooks(authorize=lambda client, operation, name: decisions.get(name))
    assert await hooks.ask_authorize(ANN, "publish", "room:1") is True
    assert await hooks.ask_authorize(ANN, "publish", "room:2") is False
    assert await hooks.ask_authorize(ANN, "publish", "room:3") is None


@on_loop
async def test_publish_may_alter_a_message() -> None:
    def censor(client: Client | None, publishing: Publishing) -> Publishing:
        return replace(publishing, data={"text": publishing.data["text"].replace("hell", "h***")})

    altered = await Hooks(publish=censor).ask_publish(ANN, HELLO)
    assert altered == replace(HELLO, data={"text": "h***o"})


@on_loop
async def test_publish_may_alter_data_in_place() -> None:
    def stamp(client: Client | None, publishing: Publishing) -> Publishing:
        publishing.data["by"] = client.user if client else None
        return publishing

    altered = await Hooks(publish=stamp).ask_publish(ANN, replace(HELLO, data={}))
    assert altered is not None
    assert altered.data == {"by": "ann"}


@on_loop
async def test_call_finds_a_method_then_the_fallback() -> None:
    hooks = Hooks(call=lambda client, method, data: [method, data])
    hooks.rpc["add"] = lambda client, data: sum(data)
    assert await hooks.ask_call(ANN, "add", [1, 2]) == 3
    assert await hooks.ask_call(ANN, "other", "x") == ["other", "x"]


@on_loop
@pytest.mark.parametrize("refusal", [Unauthorized("log in first"), Forbidden("not you")])
async def test_refusals_reach_who_asked(refusal: TellwireError) -> None:
    def refuse(*_: object) -> None:
        raise refusal

    async def refuse_later(*_: object) -> None:
        await asyncio.sleep(0)
        raise refusal

    counted = Counted()
    for handler in (refuse, refuse_later):
        hooks = Hooks(connect=handler, subscribe=handler, publish=handler, call=handler, counters=counted)
        for asking in (
            hooks.ask_connect(ConnectRequest()),
            hooks.ask_subscribe(ANN, "room:1"),
            hooks.ask_publish(ANN, HELLO),
            hooks.ask_call(ANN, "x", None),
        ):
            with pytest.raises(type(refusal)) as raised:
                await asking
            assert raised.value is refusal
    assert counted.all == [("connect", False), ("subscribe", False), ("publish", False), ("call", False)] * 2


@on_loop
async def test_failures_are_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise KeyError("the password of the database")

    async def fail_later(*_: object) -> None:
        await asyncio.sleep(0)
        fail()

    counted = Counted()
    for handler in (fail, fail_later):
        caplog.clear()
        with pytest.raises(HookFailed) as raised:
            await Hooks(subscribe=handler, counters=counted).ask_subscribe(ANN, "room:1")
        assert "password" not in str(raised.value)
        [record] = caplog.records
        assert (record.name, record.levelno) == ("tellwire.hooks", logging.ERROR)
        assert handler.__qualname__ in record.message
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], KeyError)
    assert counted.all == [("subscribe", True)] * 2


@on_loop
@pytest.mark.parametrize(
    ("hook", "found", "wanted"),
    [
        ("connect", {"user": "ann"}, "a dict; it should return an Identity"),
        ("connect", True, "a bool"),
        ("authorize", 1, "a int; it should return True, False, or None"),
        ("authorize", "no", "a str"),
        ("subscribe", False, "a bool; it should return None; it refuses by raising Forbidden"),
        ("publish", False, "a bool; it should return a Publishing"),
        ("publish", {"text": "x"}, "a dict"),
        ("publish", replace(HELLO, channel="admin:1"), "of the same channel and id"),
        ("publish", replace(HELLO, id="m2"), "of the same channel and id"),
    ],
)
async def test_answers_of_the_wrong_kind_allow_nothing(
    hook: str, found: Any, wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = Hooks()
    setattr(hooks, hook, lambda *_: found)
    asking: dict[str, Callable[[], Awaitable[object]]] = {
        "connect": lambda: hooks.ask_connect(ConnectRequest()),
        "authorize": lambda: hooks.ask_authorize(ANN, "subscribe", "room:1"),
        "subscribe": lambda: hooks.ask_subscribe(ANN, "room:1"),
        "publish": lambda: hooks.ask_publish(ANN, HELLO),
    }
    with pytest.raises(HookFailed):
        await asking[hook]()
    assert wanted in caplog.text


@on_loop
async def test_handlers_that_take_too_long_are_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def hang(*_: object) -> None:
        try:
            await wait_for_ever()
        finally:
            ended.set()

    counted = Counted()
    hooks = Hooks(subscribe=hang, timeout_s=0.01, counters=counted)
    with pytest.raises(Timeout, match=r"did not answer within 0\.01 s"):
        await hooks.ask_subscribe(ANN, "room:1")
    await ended.wait()
    assert "hang took longer than 0.01 s" in caplog.text
    assert counted.all == [("subscribe", True)]


@on_loop
async def test_a_handler_that_minds_no_cancelling_holds_nobody() -> None:
    let_go = asyncio.Event()

    async def stubborn(*_: object) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    hooks = Hooks(subscribe=stubborn, timeout_s=0.01)
    with pytest.raises(Timeout):
        await hooks.ask_subscribe(ANN, "room:1")
    let_go.set()
    await hooks.aclose()
    await hooks.aclose()


@on_loop
async def test_callers_may_shorten_the_deadline_but_not_lengthen_it() -> None:
    async def hang(client: Client, data: object) -> None:
        await wait_for_ever()

    short, long = Hooks(timeout_s=0.01), Hooks(timeout_s=1000)
    for hooks, timeout_s in ((short, 1000), (long, 0.01)):
        hooks.rpc["hang"] = hang
        with pytest.raises(Timeout, match=r"0\.01 s"):
            await hooks.ask_call(ANN, "hang", None, timeout_s=timeout_s)


@on_loop
async def test_a_slow_handler_delays_no_other() -> None:
    gate = asyncio.Event()

    async def subscribe(client: Client, channel: str) -> None:
        if channel == "slow":
            await gate.wait()

    hooks = Hooks(subscribe=subscribe)
    slow = asyncio.create_task(hooks.ask_subscribe(ANN, "slow"))
    await hooks.ask_subscribe(ANN, "fast")
    assert not slow.done()
    gate.set()
    await slow


@on_loop
async def test_cancelling_who_asks_cancels_the_handler() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(*_: object) -> None:
        begun.set()
        try:
            await wait_for_ever()
        finally:
            ended.set()

    counted = Counted()
    asking = asyncio.create_task(Hooks(subscribe=hang, counters=counted).ask_subscribe(ANN, "room:1"))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await ended.wait()
    assert counted.all == [("subscribe", False)]


@on_loop
async def test_a_handler_cancelled_from_within_has_failed() -> None:
    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    with pytest.raises(HookFailed):
        await Hooks(subscribe=cancelled).ask_subscribe(ANN, "room:1")


@on_loop
async def test_handlers_have_a_task_where_who_asks_has_none() -> None:
    async def subscribe(client: Client, channel: str) -> None:
        async with asyncio.timeout(60):  # works in a task only
            await asyncio.sleep(0)

    outcome: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    tasks, hooks = Tasks(), Hooks(subscribe=subscribe)

    def start() -> None:
        assert asyncio.current_task() is None
        tasks.start(hooks.ask_subscribe(ANN, "room:1"), lambda _, failure: outcome.set_result(failure))

    asyncio.get_running_loop().call_soon(start)
    assert await outcome is None


@on_loop
async def test_telling_of_a_disconnect_never_fails(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Disconnected] = []

    async def fail(gone: Disconnected) -> None:
        told.append(gone)
        raise OSError("no database")

    await Hooks(disconnect=fail).tell_disconnect(GONE)
    assert told == [GONE]
    assert "no database" in caplog.text
    await Hooks(disconnect=lambda gone: wait_for_ever(), timeout_s=0.01).tell_disconnect(GONE)


@dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ({"a": [1, 2.5, "ü", True]}, '{"a":[1,2.5,"ü",true]}'),
        (b"\x00\xff", '{"$bytes":"AP8="}'),
        ([b"\x00"], '[{"$bytes":"AA=="}]'),
        (Point(1, 2), '{"x":1,"y":2}'),
        ({1: "one"}, '{"1":"one"}'),
        (datetime.date(2024, 2, 29), '"2024-02-29"'),
        (2**80, str(2**80)),
        ("two\nlines", '"two\\nlines"'),
    ],
)
def test_encode_value_makes_json_of_it(value: object, text: str) -> None:
    assert encode_value("call", value).decode() == text


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [object(), float("nan"), [float("inf")], "\ud800", nested(150), nested(100_000), {"a": lambda: None}]
)
def test_encode_value_refuses_what_cannot_be_sent(value: object, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(HookFailed):
        encode_value("call", value)
    assert "gave data that cannot be sent" in caplog.text


def test_grants_of_an_identity_are_open_to_handlers() -> None:
    client = Client("c1", Identity(grants=Grants.of({"call": ["math.*"]})), "call")
    assert client.identity.grants.may("call", "math.add")


@pytest.mark.parametrize("info", [b"", b"no json", b'{"a":1} {"b":2}', b'{"a":\n1}', b"\xff", "text"])
def test_identity_whose_info_is_no_value_is_a_failure(info: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It stands in frames as it is."""

    def connect(request: ConnectRequest) -> Identity:
        return Identity(user="ann", info=info)

    with pytest.raises(HookFailed):
        asyncio.run(Hooks(connect=connect).ask_connect(ConnectRequest()))
    assert "not the text of one JSON value" in caplog.text
