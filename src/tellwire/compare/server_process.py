"""The server's process: started here, or one of this machine; its CPU clock and its memory."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0

_LISTENS = re.compile(rb"listens on (http://\S+)")
_GRPC = re.compile(rb"gRPC on (grpc://\S+)")

_RTC = ("--rtc", "--rtc-offers-per-s", "10000", "--rtc-offers-per-caller-s", "10000")
"""All readers come from one address at once, which a server otherwise has to take for an attack."""


class ServerFailed(Exception):
    """The server that was started here did not come up; the text has its last words."""


class OwnServer:
    """A server on a free port, as it comes but for gRPC and data channels: ``async with OwnServer() as server``."""

    url = ""
    grpc: str | None = None
    """Where it has gRPC, if what that needs is installed."""
    pid = 0

    async def __aenter__(self) -> Self:
        # What is set for the user's own server is not meant for this one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TELLWIRE_")}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tellwire", "serve", "--port", "0"),
            *(("--grpc-port", "0") if importlib.util.find_spec("grpc") else ()),
            *(_RTC if importlib.util.find_spec("aiortc") else ()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            env=environment,
            # Ctrl-C is for the comparison, which then stops the server.
            start_new_session=True,
        )
        self.pid = self._process.pid
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self.url = await self._address()
        except BaseException as exc:
            await self._stop()
            if isinstance(exc, TimeoutError):
                raise ServerFailed(f"a server of its own did not start within {START_TIMEOUT_S:g} s") from exc
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _address(self) -> str:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if found := _LISTENS.search(line):
                url = found[1].decode()
                # The line after it says where gRPC is, or something else.
                if found := _GRPC.search(await self._process.stdout.readline()):
                    self.grpc = found[1].decode()
                return url
        await self._process.wait()
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-3:]
        raise ServerFailed("a server of its own did not start: " + " ".join(last))

    async def _stop(self) -> None:
        if self._process.returncode is None:
            # No reader is left that it could send elsewhere: nothing is lost by ending it at once.
            self._process.kill()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await self._process.wait()
        self._log.close()


class Gauge:
    """Reads CPU and memory of a process of this machine; both are None where the system does not tell."""

    def __init__(self, pid: int | None) -> None:
        self.pid = pid

    def cpu_s(self) -> float | None:
        """Return the CPU time of all its threads so far, by its CPU clock: nanoseconds, where `ps` has hundredths."""
        if self.pid is None or not sys.platform.startswith("linux"):
            return None
        try:
            # clock_getcpuclockid(3) as Linux has it: the pid's complement, three bits further up, and CPUCLOCK_SCHED.
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return None

    def memory_bytes(self) -> int | None:
        """Return its resident memory."""
        if self.pid is None:
            return None
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return None

    @property
    def unknown(self) -> str | None:
        """Why it cannot tell, None where it can."""
        if self.pid is None:
            return (
                "the server's CPU and memory: its process is not known here; "
                "on the server's machine, --pid says which one it is"
            )
        if self.cpu_s() is None or self.memory_bytes() is None:
            return f"the server's CPU and memory: this system does not tell of process {self.pid}"
        return None
