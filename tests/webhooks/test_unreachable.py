"""A backend that is down, slow or overrun: what is asked again, what is told, and who else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tellwire.auth import Identity
from tellwire.errors import HookFailed, TellwireError, Timeout, Unavailable
from tellwire.hooks import Client, ConnectRequest, Hooks, Publishing
from tellwire.testing.harness import on_loop
from tellwire.webhooks import WebHooks
from tellwire.webhooks.breaker import FAILURES_MAX, OPEN_FIRST_S
from tellwire.webhooks.endpoint import CLIENT_SHARE, WAITING_PER_SLOT, Endpoint
from tests.ports import free_port
from tests.webhooks.backend import HALF, HANG_UP, Answer, Asked, Backend, Time, asking, in_virtual_time

ANN = Client("c1", Identity(user="ann"), "websocket")
BOB = Client("c2", Identity(user="bob"), "sse")
HELLO = Publishing("room:1", "hello", id="m1")

QUESTIONS: dict[str, Callable[[Hooks], Awaitable[object]]] = {
    "connect": lambda hooks: hooks.ask_connect(ConnectRequest(token="T")),
    "subscribe": lambda hooks: hooks.ask_subscribe(ANN, "room:1"),
    "publish": lambda hooks: hooks.ask_publish(ANN, HELLO),
    "call": lambda hooks: hooks.ask_call(ANN, "add", [1]),
}
NOT_HTTP = Answer(raw=b"SSH-2.0-OpenSSH\r\n")
ALLOW: dict[str, Any] = {"hook_unavailable": "allow", "hook_retries": 0}
REPEATABLE = ["connect", "subscribe", "publish"]


class Hanging:
    """Answers requests of some path only when told to."""

    def __init__(self, *paths: str) -> None:
        self.paths = paths
        self.let_go = asyncio.Event()

    async def __call__(self, asked: Asked) -> Answer:
        if asked.path in self.paths:
            await self.let_go.wait()
        return Answer()


def endpoint_of(hooks: WebHooks, hook: str) -> Endpoint:
    return hooks._endpoints[hook]


async def start(*asks: Coroutine[Any, Any, object]) -> list[asyncio.Task[object]]:
    """Begin to ask, and let everybody come to their first wait."""
    tasks = [asyncio.create_task(ask) for ask in asks]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


@on_loop
@pytest.mark.parametrize("hook", REPEATABLE)
@pytest.mark.parametrize(
    "fault",
    [Answer({}, status=500), Answer({}, status=503), Answer({}, status=429), HANG_UP, HALF, NOT_HTTP],
    ids=["500", "503", "429", "hang-up", "half", "not-http"],
)
async def test_questions_without_an_answer_are_asked_again(hook: str, fault: Answer) -> None:
    answers = iter([fault, fault, Answer()])
    time = Time()
    async with Backend(lambda asked: next(answers)) as backend, asking(backend.url, time, hook_retries=2) as hooks:
        assert await QUESTIONS[hook](hooks) is None
    assert len(backend.requests) == 3
    assert len({asked.key for asked in backend.requests}) == 1, "one question, one key"
    assert len({asked.body for asked in backend.requests}) == 1
    assert time.slept == [0.1, 0.2], "each pause twice the last, with the jitter in its middle"


@on_loop
@pytest.mark.parametrize("fault", [Answer({}, status=503), HANG_UP, HALF], ids=["503", "hang-up", "half"])
async def test_calls_that_may_have_arrived_are_not_made_again(fault: Answer) -> None:
    async with Backend(lambda asked: fault) as backend, asking(backend.url, hook_retries=2) as hooks:
        with pytest.raises(HookFailed, match="does not answer now"):
            await hooks.ask_call(ANN, "pay", 100)
        assert len(backend.requests) == 1


@on_loop
@pytest.mark.parametrize("hook", QUESTIONS)
async def test_nobody_there_is_tried_again_then_told(hook: str) -> None:
    time = Time()
    async with asking(f"http://127.0.0.1:{free_port()}", time, hook_retries=3) as hooks:
        with pytest.raises(Unavailable if hook == "connect" else HookFailed, match="try again"):
            await QUESTIONS[hook](hooks)
        assert time.slept == [0.1, 0.2, 0.4], "a call too: it cannot have arrived"


@on_loop
@pytest.mark.parametrize("fault", [Answer({}, status=500), HANG_UP])
async def test_allow_lets_in_while_nobody_answers_but_never_answers_calls(fault: Answer) -> None:
    async with Backend(lambda asked: fault) as backend, asking(backend.url, **ALLOW) as hooks:
        for _ in range(FAILURES_MAX + 1):  # also when the breaker is open
            for hook in REPEATABLE:
                assert await QUESTIONS[hook](hooks) is None
            with pytest.raises(HookFailed):
                await QUESTIONS["call"](hooks)


@on_loop
async def test_what_was_allowed_unasked_is_not_kept() -> None:
    async with Backend(lambda asked: HANG_UP) as backend, asking(backend.url, **ALLOW) as hooks:
        assert await hooks.ask_connect(ConnectRequest(token="T")) is None
        backend.answer = lambda asked: Answer({"result": {"user": "ann"}})
        identity = await hooks.ask_connect(ConnectRequest(token="T"))
        assert identity is not None


@in_virtual_time
@pytest.mark.parametrize(("hook", "error"), [("connect", Unavailable), ("publish", Timeout), ("call", Timeout)])
async def test_slow_answers_are_not_waited_for(hook: str, error: type[TellwireError]) -> None:
    hanging = Hanging(f"/{hook}")
    async with Backend(hanging) as backend, asking(backend.url, hook_timeout_s=0.3) as hooks:
        with pytest.raises(error):
            await QUESTIONS[hook](hooks)
        assert len(backend.requests) == 1


@asynccontextmanager
async def broken(time: Time, hook: str = "publish") -> AsyncIterator[tuple[Backend, WebHooks]]:
    """Give a backend that fails one hook, whose breaker is open."""

    def fail(asked: Asked) -> Answer:
        return Answer({}, status=500 if asked.path == f"/{hook}" else 200)

    async with Backend(fail) as backend, asking(backend.url, time, hook_retries=0) as hooks:
        for _ in range(FAILURES_MAX):
            with pytest.raises(TellwireError):
                await QUESTIONS[hook](hooks)
        yield backend, hooks


@on_loop
async def test_who_does_not_answer_is_left_alone() -> None:
    async with broken(Time()) as (backend, hooks):
        for _ in range(100):
            with pytest.raises(HookFailed, match="does not answer now"):
                await hooks.ask_publish(ANN, HELLO)
        assert len(backend.requests) == FAILURES_MAX
        await hooks.ask_subscribe(ANN, "room:1")
        await hooks.ask_connect(ConnectRequest())
        assert backend.paths[FAILURES_MAX:] == ["/subscribe", "/connect"], "hooks have breakers of their own"


@on_loop
async def test_who_answers_again_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    async with broken(time) as (backend, hooks):
        time.now += OPEN_FIRST_S
        with pytest.raises(HookFailed):
            await hooks.ask_publish(ANN, HELLO)
        assert len(backend.requests) == FAILURES_MAX + 1, "one probe"
        with pytest.raises(HookFailed):
            await hooks.ask_publish(ANN, HELLO)
        assert len(backend.requests) == FAILURES_MAX + 1
        backend.answer = lambda asked: Answer()
        time.now += 2 * OPEN_FIRST_S
        for _ in range(10):
            await hooks.ask_publish(ANN, HELLO)
        assert len(backend.requests) == FAILURES_MAX + 11
    assert caplog.text.count("gives no answer (status 500); it is left alone") == 1
    assert caplog.text.count("answers again") == 1


@on_loop
async def test_one_probe_at_a_time_and_the_others_are_told_at_once() -> None:
    time = Time()
    async with broken(time) as (backend, hooks):
        backend.answer = hanging = Hanging("/publish")
        time.now += OPEN_FIRST_S
        [probe] = await start(hooks.ask_publish(ANN, HELLO))
        await backend.seen(FAILURES_MAX + 1)
        for _ in range(10):
            with pytest.raises(HookFailed):
                await hooks.ask_publish(BOB, HELLO)
        hanging.let_go.set()
        await probe
        await hooks.ask_publish(BOB, HELLO)


@on_loop
async def test_a_probe_that_is_cancelled_makes_way_for_another() -> None:
    time = Time()
    async with broken(time) as (backend, hooks):
        backend.answer = Hanging("/publish")
        time.now += OPEN_FIRST_S
        [probe] = await start(hooks.ask_publish(ANN, HELLO))
        await backend.seen(FAILURES_MAX + 1)
        probe.cancel()
        await asyncio.wait({probe})
        backend.answer = lambda asked: Answer()
        for _ in range(5):  # the handler's own task is cancelled in a turn of its own
            await asyncio.sleep(0)
        await hooks.ask_publish(ANN, HELLO)


@on_loop
async def test_a_backend_that_comes_back_at_the_same_place_is_found() -> None:
    time = Time()
    async with Backend(port=free_port()) as first:
        pass
    async with asking(first.url, time, hook_retries=0) as hooks:
        for _ in range(FAILURES_MAX + 3):
            with pytest.raises(HookFailed):
                await hooks.ask_publish(ANN, HELLO)
        async with Backend(port=first.port) as second:
            time.now += OPEN_FIRST_S
            await hooks.ask_publish(ANN, HELLO)
            assert len(second.requests) == 1


@on_loop
async def test_a_hanging_hook_delays_neither_other_hooks_nor_other_clients() -> None:
    hanging = Hanging("/publish")
    async with Backend(hanging) as backend, asking(backend.url, hook_concurrency=2 * CLIENT_SHARE) as hooks:
        stuck = await start(*(hooks.ask_publish(ANN, HELLO) for _ in range(10)))
        await backend.seen(2)
        await hooks.ask_subscribe(ANN, "room:1")
        await hooks.ask_call(ANN, "add", [1])
        await hooks.ask_connect(ConnectRequest())
        hanging.paths = ()
        await hooks.ask_publish(BOB, HELLO)
        assert backend.paths.count("/publish") == 3, "two of one client, though more of its wait, and one of another"
        assert not any(task.done() for task in stuck)
        hanging.let_go.set()
        await asyncio.gather(*stuck)
        assert not endpoint_of(hooks, "publish")._lanes


@on_loop
@pytest.mark.parametrize("unavailable", ["deny", "allow"])
async def test_too_many_are_turned_away_at_once(unavailable: str) -> None:
    hanging = Hanging("/publish")
    slots = 2 * CLIENT_SHARE
    bounds: dict[str, Any] = {"hook_concurrency": slots, "hook_unavailable": unavailable}
    async with Backend(hanging) as backend, asking(backend.url, **bounds) as hooks:
        share = slots // CLIENT_SHARE
        of_ann = share + share * WAITING_PER_SLOT
        stuck = await start(*(hooks.ask_publish(ANN, HELLO) for _ in range(of_ann)))
        await backend.seen(share)
        # Never taken for a yes: whoever wants to get round the backend could bring this about.
        with pytest.raises(HookFailed, match="too many wait"):
            await hooks.ask_publish(ANN, HELLO)
        others = [Client(f"c{n}", Identity(), "poll") for n in range(10, 10 + slots * (WAITING_PER_SLOT + 1))]
        crowd = await start(*(hooks.ask_publish(client, HELLO) for client in others))
        turned_away = [task for task in crowd if task.done()]
        assert turned_away
        assert all(isinstance(task.exception(), HookFailed) for task in turned_away)
        endpoint = endpoint_of(hooks, "publish")
        assert endpoint._waiting == slots * WAITING_PER_SLOT
        hanging.let_go.set()
        await asyncio.gather(*stuck, *crowd, return_exceptions=True)
        assert endpoint._waiting == 0
        assert not endpoint._lanes
        await hooks.ask_publish(ANN, HELLO)


@in_virtual_time
async def test_waiting_for_a_slot_has_the_same_deadline_and_opens_no_breaker() -> None:
    hanging = Hanging("/publish")
    bounds: dict[str, Any] = {"hook_concurrency": 1, "hook_timeout_s": 1.0, "hook_unavailable": "allow"}
    async with Backend(hanging) as backend, asking(backend.url, **bounds) as hooks:
        asks = [hooks.ask_publish(ANN, HELLO) for _ in range(1 + WAITING_PER_SLOT)]
        found = await asyncio.gather(*asks, return_exceptions=True)
        assert found[0] is None, "the backend was slow, which is to be taken for a yes"
        assert {type(one) for one in found[1:]} == {HookFailed}, "an overrun queue never is"
        assert not endpoint_of(hooks, "publish").breaker.is_open
        hanging.let_go.set()
        await hooks.ask_publish(ANN, HELLO)


@in_virtual_time
async def test_clients_that_hang_up_open_no_breaker_and_hold_no_slot() -> None:
    hanging = Hanging("/publish", "/call")
    async with Backend(hanging) as backend, asking(backend.url, hook_concurrency=1) as hooks:
        for n in range(FAILURES_MAX + 1):
            [task] = await start(hooks.ask_publish(ANN, HELLO))
            await backend.seen(2 * n + 1)
            task.cancel()
            await asyncio.wait({task})
            with pytest.raises(Timeout):
                await asyncio.gather(hooks.ask_call(ANN, "slow", None, timeout_s=0.2), backend.seen(2 * n + 2))
        hanging.let_go.set()
        await hooks.ask_publish(ANN, HELLO)
        await hooks.ask_call(ANN, "slow", None)


@on_loop
async def test_closing_ends_what_still_asks() -> None:
    async with Backend(Hanging("/publish", "/connect")) as backend:
        async with asking(backend.url) as hooks:
            tasks = await start(hooks.ask_publish(ANN, HELLO), hooks.ask_connect(ConnectRequest(token="T")))
            await backend.seen(2)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in found} == {HookFailed}
        await hooks.aclose()
