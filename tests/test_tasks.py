from __future__ import annotations

import asyncio
import logging

import pytest

from tellwire.tasks import Tasks
from tellwire.testing.harness import on_loop


class Outcomes:
    """Keeps what `Tasks.start` calls its callback with."""

    def __init__(self) -> None:
        self.all: list[tuple[object, BaseException | None]] = []

    def __call__(self, result: object, failure: BaseException | None) -> None:
        self.all.append((result, failure))


@on_loop
async def test_start_finishes_what_never_waits_at_once() -> None:
    async def work() -> int:
        return 7

    outcomes, tasks = Outcomes(), Tasks()
    assert tasks.start(work(), outcomes) is None
    assert outcomes.all == [(7, None)]
    assert len(tasks) == 0


@on_loop
async def test_start_runs_up_to_the_first_wait_at_once() -> None:
    steps: list[str] = []
    gate = asyncio.get_running_loop().create_future()

    async def work() -> str:
        steps.append("begun")
        steps.append(await gate)
        await asyncio.sleep(0)
        async with asyncio.timeout(60):  # needs a task of its own
            steps.append(await asyncio.create_task(other()))
        return "done"

    async def other() -> str:
        return "other"

    outcomes, tasks = Outcomes(), Tasks()
    task = tasks.start(work(), outcomes)
    assert task is not None
    assert steps == ["begun"]
    assert len(tasks) == 1
    gate.set_result("woken")
    assert await task == "done"
    await asyncio.sleep(0)
    assert steps == ["begun", "woken", "other"]
    assert outcomes.all == [("done", None)]
    assert len(tasks) == 0


@on_loop
async def test_start_keeps_the_order_of_beginning() -> None:
    begun: list[int] = []

    async def work(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(0)

    tasks = Tasks()
    for number in range(10):
        tasks.start(work(number))
    assert begun == list(range(10))
    await tasks.aclose()


@pytest.mark.parametrize("waits", [False, True])
@on_loop
async def test_start_hands_an_exception_over(waits: bool) -> None:
    failure = ValueError("wrong")

    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise failure

    outcomes, tasks = Outcomes(), Tasks()
    task = tasks.start(work(), outcomes)
    if task is not None:
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert outcomes.all == [(None, failure)]
    assert len(tasks) == 0


@pytest.mark.parametrize("waits", [False, True])
@on_loop
async def test_start_logs_an_exception_that_nobody_takes(waits: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise ValueError("wrong")

    tasks = Tasks()
    task = tasks.start(work())
    if task is not None:
        await asyncio.wait([task])
        await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.name == "tellwire"
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "wrong"


@on_loop
async def test_start_passes_what_is_raised_at_a_wait_through() -> None:
    gate = asyncio.get_running_loop().create_future()
    caught: list[str] = []

    async def work() -> str:
        try:
            await gate
        except OSError as exc:
            caught.append(str(exc))
        return "mended"

    task = Tasks().start(work())
    assert task is not None
    gate.set_exception(OSError("broken"))
    assert await task == "mended"
    assert caught == ["broken"]


@pytest.mark.parametrize("turns", [0, 1, 2])
@on_loop
async def test_close_cancels_what_still_runs(turns: int) -> None:
    ended: list[str] = []
    gate = asyncio.get_running_loop().create_future()

    async def work() -> None:
        try:
            await gate
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    outcomes, tasks = Outcomes(), Tasks()
    tasks.start(work(), outcomes)
    for _ in range(turns):
        await asyncio.sleep(0)
    await tasks.aclose()
    await asyncio.sleep(0)
    assert ended == ["cleaned up"]
    assert gate.cancelled()
    ((result, failure),) = outcomes.all
    assert result is None
    assert isinstance(failure, asyncio.CancelledError)
    await tasks.aclose()
    assert len(tasks) == 0
