"""Start coroutines at once, and lose none of them.

Most of what a node does never waits (its log is in memory, its channel is followed already), and a task for each would
cost more than the work. `Tasks.start` runs a coroutine up to its first wait, as Python 3.12's eager tasks do, and
makes a task of what is left only where something is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

_log = logging.getLogger("tellwire")

Done = Callable[[T | None, BaseException | None], None]
"""Called with a coroutine's result, or None and its exception."""


class Tasks:
    """Every task that a node has started; none dies unseen and none is left behind."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coro: Coroutine[Any, Any, T], done: Done[T] | None = None) -> asyncio.Task[T] | None:
        """Run `coro` until it first waits; return a task for what is left, None where nothing is.

        `done` is called with what comes of it, before this returns where nothing was waited for. An exception that
        nobody takes is logged.
        """
        try:
            waited_for = coro.send(None)
        except StopIteration as stop:
            if done is not None:
                done(stop.value, None)
            return None
        except Exception as exc:
            self._report(done, exc)
            return None
        task = asyncio.get_running_loop().create_task(_Begun(coro, waited_for))
        self._tasks.add(task)

        def finished(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                if done is not None:
                    done(None, asyncio.CancelledError())
            elif (exc := task.exception()) is not None:
                self._report(done, exc)
            elif done is not None:
                done(task.result(), None)

        task.add_done_callback(finished)
        return task

    def _report(self, done: Done[T] | None, exc: BaseException) -> None:
        if done is not None:
            done(None, exc)
        else:
            _log.error("a background task failed", exc_info=exc)

    async def aclose(self) -> None:
        """Cancel what still runs and wait for it; may be called twice."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Begun(Coroutine[Any, Any, T]):
    """A coroutine that was run up to its first wait already, for a task to carry on.

    A class and not a generator: a task that is cancelled before its first step throws into what it was given, and a
    generator that has not begun ends there, without a word to the coroutine inside.
    """

    __slots__ = ("_coro", "_fresh", "_waited_for")

    def __init__(self, coro: Coroutine[Any, Any, T], waited_for: Any) -> None:
        self._coro = coro
        self._fresh = True
        self._waited_for = waited_for

    def send(self, value: Any) -> Any:
        if self._fresh:
            self._fresh = False
            waited_for, self._waited_for = self._waited_for, None
            return waited_for
        return self._coro.send(value)

    def throw(self, *failure: Any) -> Any:
        if self._fresh:
            # The task has not seen what the coroutine waits for, so it could not cancel it.
            self._fresh = False
            waited_for, self._waited_for = self._waited_for, None
            if isinstance(waited_for, asyncio.Future):
                waited_for.cancel()
        return self._coro.throw(*failure)

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coro.__await__()
