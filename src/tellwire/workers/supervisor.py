"""Who starts workers, looks after them, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from tellwire.config import Settings
from tellwire.errors import TellwireError
from tellwire.node import own_title
from tellwire.workers.exchange import Mailbox
from tellwire.workers.listeners import Listeners
from tellwire.workers.worker import Orders

STEADY_S = 10.0
"""Seconds after which a worker counts as one that runs: if it dies later, another is started at once."""

TRIES = 8
"""Workers that may die in a row before that time; then the server gives up. With the pauses it takes a minute."""

PAUSE_MAX_S = 30.0

KILL_AFTER_S = 20.0

COMMAND = (sys.executable, "-m", "tellwire.cli.worker")

_log = logging.getLogger("tellwire")


class GaveUp(TellwireError):
    """Workers that cannot be kept alive; the text says which, and how they ended."""


class Worker:
    """One process, from its start to its end.

    Args:
        number: Its number, from 1.
        process: The process.
        line: What it says comes here.
        on_word: Called when it has said ``ready``, or ``stop``: that the whole server shall.
    """

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        line: socket.socket,
        on_word: Callable[[str], None],
    ) -> None:
        self.number = number
        self.process = process
        self.why = ""
        self.is_ready = False
        self.is_draining = False
        self.retires = asyncio.Event()
        """It has ended, or has begun to."""
        self._line = line
        self._on_word = on_word
        self._tasks = (asyncio.create_task(self._listen()), asyncio.create_task(self._wait()))

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        rest = b""
        with contextlib.suppress(OSError):
            while piece := await loop.sock_recv(self._line, 4096):
                *words, rest = (rest + piece).split(b"\n")
                for word in words:
                    self._hear(word.decode(errors="replace"))

    def _hear(self, word: str) -> None:
        if word == "ready":
            self.is_ready = True
        elif word == "draining":
            self.is_draining = True
            self.retires.set()
        self._on_word(word)
        if word.startswith("failed "):
            self.why = word.removeprefix("failed ")

    async def _wait(self) -> None:
        await self.process.wait()
        await asyncio.wait((self._tasks[0],), timeout=1.0)  # what it said last
        self._tasks[0].cancel()
        self._line.close()
        self.retires.set()

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None

    @property
    def how(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode
        assert code is not None
        if code >= 0:
            return f"ended with exit code {code}" + (f": {self.why}" if self.why else "")
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"

    def send(self, number: int) -> None:
        """Send it a signal, if it is there."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def end(self) -> None:
        """Wait until it has ended."""
        await asyncio.wait((self._tasks[1],))


class Supervisor:
    """Several workers on one port.

    Each runs as a node of its own. One that died is started again at once, and more slowly where that happens again
    and again; one that drains because an operator said so is replaced before it has ended.

    Args:
        settings: Those of each worker; the port is one for all.
        on_ready: Called with where they listen, once all of them do.
        command: What is run as a worker.
        pause_s: Seconds before the third try of a worker that dies at once; doubled for each further one.
        kill_after_s: Seconds beyond the drain after which a worker that does not end is killed.
    """

    def __init__(
        self,
        settings: Settings,
        on_ready: Callable[[socket.socket], None],
        *,
        command: Sequence[str] = COMMAND,
        pause_s: float = 1.0,
        kill_after_s: float = KILL_AFTER_S,
    ) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._command = command
        self._pause_s = pause_s
        self._kill_after_s = kill_after_s
        self._count = settings.server.workers
        self._server = own_title(settings.server.node_name).server
        self._workers: set[Worker] = set()
        self._serving: dict[int, Worker] = {}
        self._stop = asyncio.Event()
        self._mailboxes = [Mailbox() for _ in range(self._count)]
        self._listeners = Listeners(settings.server.host, settings.server.port, self._count)
        self._is_up = False

    async def run(self) -> bool:
        """Serve until SIGTERM or SIGINT; return whether every worker has ended as it should. Raises GaveUp."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            keeping = [asyncio.create_task(self._keep(slot)) for slot in range(self._count)]
            stopping = asyncio.create_task(self._stop.wait())
            try:
                done, _ = await asyncio.wait((*keeping, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._stop.set()
                for task in (stopping, *keeping):
                    task.cancel()
                await asyncio.gather(stopping, *keeping, return_exceptions=True)
                is_fine = await self._end()
            for task in done:
                task.result()  # raises GaveUp
            return is_fine
        finally:
            self._listeners.close()
            for mailbox in self._mailboxes:
                mailbox.close()

    def _hear(self, word: str) -> None:
        if word == "stop":
            self._stop.set()
        elif word == "ready" and not self._is_up:
            ready = sum(worker.is_ready and not worker.ended for worker in self._serving.values())
            if ready == self._count:
                self._is_up = True
                self._on_ready(self._listeners.of(0)[0])

    async def _keep(self, slot: int) -> None:
        """Have one worker in this slot, for ever."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            worker = await self._start(slot)
            await worker.retires.wait()
            if self._stop.is_set():
                return
            if worker.is_draining and not (worker.ended and worker.process.returncode):
                _log.info("worker %d drains; another takes its place", worker.number)
                failures = 0
                continue
            if not self._is_up:
                raise GaveUp(f"worker {worker.number} {worker.how}")
            failures = 1 if loop.time() - began >= STEADY_S else failures + 1
            if failures >= TRIES:
                raise GaveUp(
                    f"worker {worker.number} {worker.how}; it was the {failures}th in a row that did not live for "
                    f"{STEADY_S:g} s, so this server gives up. The log above says why they died"
                )
            pause_s = 0.0 if failures == 1 else min(self._pause_s * 2 ** (failures - 2), PAUSE_MAX_S)
            when = f"in {pause_s:g} s" if pause_s else "now"
            _log.error("worker %d (process %d) %s; another is started %s", worker.number, worker.process.pid,
                       worker.how, when)  # fmt: skip
            if pause_s:
                self._listeners.close_of(slot)
                await asyncio.sleep(pause_s)

    async def _start(self, slot: int) -> Worker:
        number = slot + 1
        line, theirs = socket.socketpair()
        line.setblocking(False)
        listeners = [listener.fileno() for listener in self._listeners.of(slot)]
        inside = self._mailboxes[slot].inside.fileno()
        slots = {at + 1: mailbox.slot.fileno() for at, mailbox in enumerate(self._mailboxes)}
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    str(theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *listeners, inside, *slots.values()),
                )
        except BaseException:
            line.close()
            raise
        worker = Worker(number, process, line, self._hear)
        self._workers = {worker, *(each for each in self._workers if not each.ended)}
        self._serving[slot] = worker
        orders = Orders(number, self._server, self._worker_settings(), listeners, inside, slots)
        with contextlib.suppress(OSError):  # it has died already, as will be found
            await asyncio.get_running_loop().sock_sendall(line, msgspec.json.encode(orders) + b"\n")
        return worker

    def _worker_settings(self) -> Settings:
        return replace(self._settings, server=replace(self._settings.server, workers=1))

    async def _end(self) -> bool:
        """Have every worker drain, and wait for it."""
        self._listeners.close()
        workers = list(self._workers)
        for worker in workers:
            worker.send(signal.SIGTERM)
        if workers:
            ends = [asyncio.create_task(worker.end()) for worker in workers]
            _, late = await asyncio.wait(ends, timeout=self._settings.limits.stop_s + self._kill_after_s)
            for worker in workers:
                if late and not worker.ended:
                    _log.error("worker %d does not end; it is killed", worker.number)
                    worker.send(signal.SIGKILL)
            await asyncio.wait(ends)
        # One that had not begun to serve knows of no draining, and ends by the signal.
        fine = (0, -signal.SIGTERM, -signal.SIGINT)
        for worker in workers:
            if worker.process.returncode not in fine:
                _log.error("worker %d %s", worker.number, worker.how)
        return all(worker.process.returncode in fine for worker in workers)


def supervise(settings: Settings, on_ready: Callable[[socket.socket], None]) -> bool:
    """Serve with several workers until SIGTERM or SIGINT (see `Supervisor.run`)."""

    async def serve() -> bool:
        return await Supervisor(settings, on_ready).run()

    return asyncio.run(serve())
