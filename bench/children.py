"""Processes that the benchmark starts: pinned to one core, watched, and killed by their own pid whatever happens."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

SERVER_CORE = 0
LOAD_CORE = 1

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

_PORTS = range(28_000, 32_700)
"""Below those that Linux gives to outgoing connections, so that none of these takes a server's before it listens."""


class ChildFailedError(Exception):
    """A process that did not start, or ended before its time; the message has the last lines of its log."""


def free_port(count: int = 1) -> int:
    """Return a TCP port of the loopback interface that nobody listens on, nor on the next ones up to `count`."""
    while True:
        port = secrets.choice(_PORTS)
        with ExitStack() as probes, suppress(OSError):
            for number in range(count):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port + number))
            return port


def pinned(core: int) -> None:
    """Bind the calling process to one core, and let it die with the benchmark; runs between fork and exec."""
    os.sched_setaffinity(0, {core})
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A server under test, as an asynchronous context would have it, but plain: `with Child(...) as child`."""

    def __init__(self, name: str, command: Sequence[str], port: int, log: Path, *, ports: int = 1) -> None:
        """Name what to start; it is ready once it listens on `port`, and on the next ones up to `ports`."""
        self.name = name
        self.port = port
        self._ports = ports
        self._command = command
        self._log = log

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: pinned(SERVER_CORE),  # the benchmark has no threads
            )
        try:
            for number in range(self._ports):
                self._wait_for(self.port + number)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def _wait_for(self, port: int, deadline_s: float = 20.0) -> None:
        give_up = time.monotonic() + deadline_s
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                raise ChildFailedError(f"{self.name} ended with status {self._process.returncode}:\n{self.log_tail()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise ChildFailedError(f"{self.name} does not listen on port {port}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Return the last lines that the process wrote."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    @property
    def pids(self) -> list[int]:
        """The process and its descendants (nginx works in a child of its own)."""
        found = [self._process.pid]
        for pid in found:
            try:
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                continue
        return found

    def memory_kib(self) -> dict[str, int]:
        """Return resident and proportional memory of all its processes, in KiB."""
        sums = {"Rss": 0, "Pss": 0}
        for pid in self.pids:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            for name in sums:
                match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
                sums[name] += int(match[1]) if match else 0
        return sums

    def kill(self) -> None:
        """End it at once, parents first, so that none is started again."""
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
