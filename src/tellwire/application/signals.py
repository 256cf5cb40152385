"""Hearing in time that the server is told to stop.

An ASGI server tells its application of the end only when all connections are closed, and waits for that: with readers
that stay, for ever or until it cuts them. So whoever has handled SIGTERM and SIGINT so far still does, and the node
begins at the same moment to send its readers away, each with a cursor to come back with.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

_Handler = Callable[[int, FrameType | None], object]

_HEARD = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Calls a function on the event loop when the process is told to stop, beside what is done about it anyway.

    Only where a server handles the signal: what Python does by itself, or another thread has to do with, is left alone.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._put: list[tuple[int, _Handler, _Handler]] = []

    def hear(self) -> None:
        """Begin to listen; on the event loop."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in _HEARD:
            before = signal.getsignal(number)
            if callable(before) and before is not signal.default_int_handler:
                handler = self._beside(before, loop)
                signal.signal(number, handler)
                self._put.append((number, handler, before))

    def _beside(self, before: _Handler, loop: asyncio.AbstractEventLoop) -> _Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                loop.call_soon_threadsafe(self._told)
            before(number, frame)

        return handle

    def leave(self) -> None:
        """Put back what was there, where nobody else has put something there since."""
        if threading.current_thread() is threading.main_thread():
            for number, handler, before in self._put:
                if signal.getsignal(number) is handler:
                    signal.signal(number, before)
        self._put.clear()
