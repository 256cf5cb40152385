"""Run the real command in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import IO

import pytest

from tests.serving import WATCHDOG_S

COMMAND = [sys.executable, "-m", "tellwire"]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without Tellwire's own names, and with `more`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TELLWIRE_")} | more


def run(*args: str, stdin: str | bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        [*COMMAND, *args],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=environment(**variables),
        timeout=WATCHDOG_S,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Running:
    """A command that runs on, whose lines can be read as they come."""

    def __init__(self, *args: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**variables),
        )

    @property
    def out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    @property
    def err(self) -> IO[str]:
        assert self.process.stderr is not None
        return self.process.stderr

    def lines(self, count: int) -> list[str]:
        """Wait for lines on standard output."""
        return [self.out.readline().rstrip("\n") for _ in range(count)]

    def end(self, signal: int) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(signal)
        return self.process.wait(WATCHDOG_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WATCHDOG_S)
        self.out.close()
        self.err.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Start commands that end with the test."""
    started: list[Running] = []

    def start(*args: str, **variables: str) -> Running:
        started.append(Running(*args, **variables))
        return started[-1]

    yield start
    for each in started:
        each.close()
