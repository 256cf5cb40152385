"""A clock that goes only when nothing else happens: a test of minutes takes as long as what is done in them."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class Stuck(Exception):
    """Everybody waits, and nothing will ever happen."""


class _Selector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Stuck("all tasks wait for each other, and no timer is set")
            self.now += max(timeout, 0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing is to be done."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def stand_still(self, seconds: float) -> None:
        """Let time pass in which nothing is done, as for a process that was stopped."""
        self._clock.now += seconds

    @property
    def timers(self) -> int:
        """How many timers are set."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # no public way
        return sum(not handle.cancelled() for handle in scheduled)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in virtual time, and see that it leaves neither a task, nor a timer, nor an unseen exception."""
    unseen: list[dict[str, Any]] = []

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.set_exception_handler(lambda _, context: unseen.append(context))
        await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(0)
        assert loop.timers == 0

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(watched())
    assert unseen == []
