"""Room for the threads that wait for a disk, beside a busy event loop."""

from __future__ import annotations

import asyncio
import time


class Breaths:
    """Lets other threads have the interpreter while the event loop is busy.

    A thread that comes back from SQLite asks for the interpreter by force only after it has waited 5 ms undisturbed,
    and a busy uvloop disturbs it more often: it gives the interpreter up between callbacks, and takes it back before
    the thread is awake. Measured beside a loop with nothing but callbacks of 0.2 ms: a commit took up to 17 s. So while
    there is work for the threads, a loop that takes all of its processor's time stands still for 0.5 ms in every 5.
    """

    EVERY_S = 0.005
    PAUSE_S = 0.0005
    BUSY = 0.8

    def __init__(self) -> None:
        self.jobs = 0
        """Work that was given to other threads and is not done."""
        self._timer: asyncio.TimerHandle | None = None
        self._wall = self._used = 0.0

    def begin(self) -> None:
        """Count a job; whoever begins it takes it off ``jobs`` when it is done."""
        self.jobs += 1
        if self._timer is None:
            self._set()

    def _set(self) -> None:
        self._wall, self._used = time.monotonic(), time.thread_time()
        self._timer = asyncio.get_running_loop().call_later(self.EVERY_S, self._breathe)

    def _breathe(self) -> None:
        self._timer = None
        if self.jobs:
            if time.thread_time() - self._used > self.BUSY * (time.monotonic() - self._wall):
                time.sleep(self.PAUSE_S)
            self._set()
