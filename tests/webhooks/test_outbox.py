"""What a backend is told of connections that ended."""

from __future__ import annotations

import asyncio

import pytest

from tellwire.hooks import Disconnected
from tellwire.testing.harness import on_loop
from tellwire.webhooks import WebHooks
from tellwire.webhooks.breaker import FAILURES_MAX
from tellwire.webhooks.outbox import ATTEMPTS_MAX, OUTBOX_MAX_BYTES, WORKERS_MAX, Outbox
from tests.webhooks.backend import HANG_UP, Answer, Asked, Backend, Time, asking, in_virtual_time
from tests.webhooks.test_questions import check_signature


def gone(client: str = "c1", info: object = None) -> Disconnected:
    return Disconnected(client, "ann", info, "websocket", 1001, "went away", 1_700_000_000.5)


def outbox_of(hooks: WebHooks) -> Outbox:
    assert hooks._outbox is not None
    return hooks._outbox


def told(backend: Backend) -> list[str]:
    return [asked.json["client"]["client"] for asked in backend.requests]


@on_loop
async def test_the_backend_is_told_who_has_gone() -> None:
    time = Time()
    async with Backend() as backend, asking(backend.url, time) as hooks:
        await hooks.tell_disconnect(gone(info={"name": "Ann"}))
        await backend.seen(1)
    [asked] = backend.requests
    assert asked.path == "/disconnect"
    assert asked.json == {
        "hook": "disconnect",
        "time": int(time.now * 1000),
        "client": {"client": "c1", "user": "ann", "info": {"name": "Ann"}, "transport": "websocket"},
        "code": 1001,
        "reason": "went away",
        "since": 1_700_000_000.5,
    }
    check_signature(asked)


@on_loop
async def test_closing_delivers_what_waits() -> None:
    async with Backend() as backend:
        async with asking(backend.url) as hooks:
            for n in range(500):
                await hooks.tell_disconnect(gone(f"c{n}"))
        assert sorted(told(backend)) == sorted(f"c{n}" for n in range(500))
        assert (outbox_of(hooks).lost, outbox_of(hooks).size) == (0, 0)
        await hooks.aclose()
        await hooks.tell_disconnect(gone("late"))
        assert outbox_of(hooks).lost == 1
        assert "late" not in told(backend)


@on_loop
@pytest.mark.parametrize("fault", [HANG_UP, Answer({}, status=503)], ids=["hang-up", "503"])
async def test_it_is_told_again_until_it_answers(fault: Answer) -> None:
    answers = iter([fault] * (ATTEMPTS_MAX - 1) + [Answer(b"", status=202)])
    time = Time()
    async with Backend(lambda asked: next(answers)) as backend:
        async with asking(backend.url, time) as hooks:
            await hooks.tell_disconnect(gone())
        assert outbox_of(hooks).lost == 0
    assert len({asked.key for asked in backend.requests}) == 1
    assert len({asked.body for asked in backend.requests}) == 1
    assert time.slept == [1, 2, 4, 8]


@on_loop
async def test_it_is_not_told_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    async with Backend(lambda asked: HANG_UP) as backend:
        async with asking(backend.url) as hooks:
            await hooks.tell_disconnect(gone())
        assert len(backend.requests) == ATTEMPTS_MAX
        assert outbox_of(hooks).lost == 1
    assert "was not told of 1 connections: ReadError" in caplog.text or "RemoteProtocolError" in caplog.text


@on_loop
async def test_answers_that_refuse_are_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with Backend(lambda asked: Answer({}, status=404)) as backend:
        async with asking(backend.url) as hooks:
            await hooks.tell_disconnect(gone())
        assert len(backend.requests) == 1
        assert outbox_of(hooks).lost == 1
    assert "answered 404, where 200 or 204 would do" in caplog.text


@on_loop
async def test_an_outage_is_waited_out() -> None:
    """While the breaker is open nothing is sent, so what waits behind the first few loses no attempts."""
    outage = 12

    def fail_at_first(asked: Asked) -> Answer:
        return HANG_UP if len(backend.requests) <= outage else Answer()

    async with Backend(fail_at_first) as backend:
        async with asking(backend.url, hook_concurrency=1) as hooks:
            for n in range(100):
                await hooks.tell_disconnect(gone(f"c{n}"))
        assert outage > FAILURES_MAX
        assert outbox_of(hooks).lost == outage // ATTEMPTS_MAX
        assert len(backend.requests) == outage + 100 - outage // ATTEMPTS_MAX


@on_loop
async def test_what_waits_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    let_go = asyncio.Event()

    async def later(asked: Asked) -> Answer:
        await let_go.wait()
        return Answer()

    size = 50_000
    many = 2 * OUTBOX_MAX_BYTES // size
    async with Backend(later) as backend:
        async with asking(backend.url) as hooks:
            outbox = outbox_of(hooks)
            for n in range(WORKERS_MAX):
                await hooks.tell_disconnect(gone(f"first{n}"))
            await backend.seen(WORKERS_MAX)
            for n in range(many):
                await hooks.tell_disconnect(gone(f"c{n}", info="x" * size))
                assert outbox.size <= OUTBOX_MAX_BYTES
            assert len(backend.requests) == WORKERS_MAX, "as many at a time"
            lost = outbox.lost
            assert many // 2 <= lost < many
            let_go.set()
        assert outbox.lost == lost
        heard = told(backend)
        assert "c0" not in heard, "the oldest are given up"
        assert f"c{many - 1}" in heard, "and not the newest"
        assert len(backend.requests) == WORKERS_MAX + many - lost


@in_virtual_time
async def test_closing_waits_no_longer_than_a_hook_may_take(caplog: pytest.LogCaptureFixture) -> None:
    async def never(asked: Asked) -> Answer:
        await asyncio.get_running_loop().create_future()
        return Answer()

    async with Backend(never) as backend:
        async with asking(backend.url, hook_timeout_s=0.3) as hooks:
            for n in range(20):
                await hooks.tell_disconnect(gone(f"c{n}"))
            await backend.seen(WORKERS_MAX)
        assert outbox_of(hooks).lost == 20
        assert outbox_of(hooks).size == 0
    assert "was not told of 19 connections: the server stops" in caplog.text, "one line, not one for each"


@in_virtual_time
async def test_a_slow_backend_delays_nobody_who_tells() -> None:
    async def never(asked: Asked) -> Answer:
        await asyncio.get_running_loop().create_future()
        return Answer()

    async with Backend(never) as backend, asking(backend.url, hook_timeout_s=0.3) as hooks:
        for n in range(1000):
            await hooks.tell_disconnect(gone(f"c{n}"))  # would never return if it waited
