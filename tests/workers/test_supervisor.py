"""Who looks after workers: what becomes of those that die, and of those that do not end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tellwire.config import Server, Settings
from tellwire.limits import Limits
from tellwire.testing.harness import on_loop
from tellwire.workers import GaveUp, Supervisor
from tellwire.workers.supervisor import TRIES
from tests.serving import WATCHDOG_S

SETTINGS = Settings(server=Server(port=0, workers=2, broker="redis://127.0.0.1:1"), limits=Limits(drain_s=0.1))

PROGRAM = """
import os, signal, socket, sys, time
line = socket.socket(fileno=int(sys.argv[1]))
while not line.recv(65536).endswith(b"\\n"):
    pass
starts = {starts!r}
with open(starts, "ab", 0) as file:
    file.write(b"x")
count = os.path.getsize(starts)
def ready():
    line.sendall(b"ready\\n")
def stay():
    signal.pause()
"""


class Staged:
    """A supervisor of workers that run a few lines."""

    def __init__(self, tmp_path: Path, lines: str, *, workers: int = 2, kill_after_s: float = 20.0) -> None:
        script = self._script = tmp_path / "worker.py"
        self._starts = tmp_path / "starts"
        script.write_text(PROGRAM.format(starts=str(self._starts)) + lines)
        server = replace(SETTINGS.server, workers=workers)
        self.ready: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self.supervisor = Supervisor(
            replace(SETTINGS, server=server),
            self.ready.set_result,
            command=(sys.executable, str(script)),
            pause_s=0.001,
            kill_after_s=kill_after_s,
        )

    async def run(self) -> bool:
        async with asyncio.timeout(WATCHDOG_S):
            return await self.supervisor.run()

    def kill_one(self) -> None:
        """End one of the workers; other tests may have left processes of their own."""
        for child in psutil.Process().children():
            with suppress(psutil.Error):  # it has ended
                if str(self._script) in child.cmdline():
                    child.kill()
                    return
        pytest.fail("there is no worker to kill")

    @property
    def starts(self) -> int:
        return self._starts.stat().st_size


@on_loop
async def test_supervisor_gives_up_on_workers_that_die_at_once_again_and_again(tmp_path: Path) -> None:
    staged = Staged(tmp_path, "ready()\nif count > 2: sys.exit(7)\nstay()\n")
    running = asyncio.create_task(staged.run())
    await staged.ready
    staged.kill_one()
    with pytest.raises(GaveUp, match=rf"ended with exit code 7; it was the {TRIES}th in a row"):
        await running
    assert staged.starts == 2 + TRIES - 1


@on_loop
async def test_supervisor_does_not_try_again_what_could_not_be_started_at_all(tmp_path: Path) -> None:
    staged = Staged(tmp_path, 'line.sendall(b"failed there is no Redis\\n")\nsys.exit(1)\n')
    with pytest.raises(GaveUp, match=r"worker \d ended with exit code 1: there is no Redis"):
        await staged.run()
    assert staged.starts <= 2
    assert not staged.ready.done()


@on_loop
async def test_supervisor_goes_on_where_a_worker_stays_at_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The first runs until it is killed; the five after it die, the seventh has all stop.
    lines = 'ready()\nif 1 < count < 7: os.kill(os.getpid(), 9)\nif count == 7: line.sendall(b"stop\\n")\nstay()\n'
    staged = Staged(tmp_path, lines, workers=1)
    running = asyncio.create_task(staged.run())
    await staged.ready
    staged.kill_one()
    assert await running is True
    assert caplog.text.count("was ended by SIGKILL; another is started") == 6


@on_loop
async def test_supervisor_kills_workers_that_do_not_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready()\nwhile True: time.sleep(1)\n"
    staged = Staged(tmp_path, deaf, kill_after_s=0.2)
    running = asyncio.create_task(staged.run())
    await staged.ready
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running is False, "the exit code says that it went wrong"
    assert caplog.text.count("does not end; it is killed") == 2


@on_loop
async def test_supervisor_keeps_its_port_and_gives_it_back(tmp_path: Path) -> None:
    staged = Staged(tmp_path, "ready()\nstay()\n")
    running = asyncio.create_task(staged.run())
    address = (await staged.ready).getsockname()
    with pytest.raises(OSError, match="in use"):
        socket.create_server(address)
    os.kill(os.getpid(), signal.SIGINT)
    assert await running is True
    socket.create_server(address).close()
