"""The load generator: compiled from C, started beside a server, driven line by line."""

from __future__ import annotations

import json
import select
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from children import LOAD_CORE, Child, pinned

HERE = Path(__file__).parent

BOTTLENECK_SHARE = 0.9
"""Share of its core beyond which the load generator, and not the server, may have set the figure."""

BOTTLENECK = "the load generator was the bottleneck"
DISTURBED = "other programs held the cores"

NOISE_SHARE = 0.1
"""Share of the time that a process waited for its core, beyond which other programs disturbed the figure."""

Figures = dict[str, Any]


class LoadFailedError(Exception):
    """The load generator could not do what it was told."""


def compile_c(cache: Path) -> None:
    """Compile the load generator and the peer written in C into `cache`; raise LoadFailedError without a compiler."""
    targets = {"load": sorted((HERE / "load").glob("*.c")), "send_loop": [HERE / "peers" / "send_loop.c"]}
    cache.mkdir(parents=True, exist_ok=True)
    for name, sources in targets.items():
        command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(cache / name), *map(str, sources)]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            raise LoadFailedError(
                "the load generator is written in C and there is no gcc. On Debian or Ubuntu:\n"
                "    sudo apt-get install gcc libc6-dev"
            ) from None
        except subprocess.CalledProcessError:
            raise LoadFailedError(f"gcc could not compile {name}; its messages are above") from None


class Generator:
    """Connections to a server, open and listening: `with Generator(...) as load`."""

    def __init__(self, binary: Path, server: Child, settings: Mapping[str, object]) -> None:
        self._server = server
        self._command = [str(binary), f"port={server.port}", *(f"pid={pid}" for pid in server.pids)]
        self._command += [f"{name}={value}" for name, value in settings.items()]
        self.connected: Figures = {}
        """What opening the connections took."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: pinned(LOAD_CORE),  # the benchmark has no threads
        )
        try:
            self.connected = self._answer(180)
            if self.connected["closed"] or self.connected["opened"] < self.connected["wanted"]:
                figures = self.connected
                raise LoadFailedError(
                    f"{self._server.name}: {figures['opened']} of {figures['wanted']} connections opened. "
                    f"{figures['trouble']}\n{self._server.log_tail()}"
                )
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._kill()

    def fan(self, rate: float, secs: float, *, warm: float = 0.5, drain: float = 3.0) -> Figures:
        """Publish `rate` messages a second for `secs`, and tell what arrived."""
        return self._command_line(f"fan rate={rate} warm={warm} secs={secs} drain={drain}", warm + secs + drain)

    def ack(self, window: int, secs: float, *, warm: float = 0.5) -> Figures:
        """Publish over one connection with `window` messages unanswered at any time."""
        return self._command_line(f"ack window={window} warm={warm} secs={secs}", warm + secs)

    def _command_line(self, line: str, expected_s: float) -> Figures:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self._answer(expected_s + 30)

    def _answer(self, deadline_s: float) -> Figures:
        assert self._process.stdout is not None
        give_up = time.monotonic() + deadline_s
        line = b""
        while not line.endswith(b"\n"):
            left = give_up - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise LoadFailedError(f"the load generator did not answer within {deadline_s:.0f} s")
            byte = self._process.stdout.read1(65536)  # type: ignore[attr-defined]  # a pipe is a BufferedReader
            if not byte:
                raise LoadFailedError(f"the load generator ended: {self._process.wait()}\n{self._server.log_tail()}")
            line += byte
        figures: Figures = json.loads(line)
        return figures

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def noise_of(runs: Sequence[Figures]) -> str:
    """Say in a sentence how much other programs disturbed all runs."""
    shares = [
        max(run.get("server_queued_share", 0), run["own_queued_share"]) for run in runs if "own_queued_share" in run
    ]
    if not shares:
        return "How noisy the machine was is not known."
    disturbed = sum(share > NOISE_SHARE for share in shares)
    return (
        f"Server or load generator waited for their core {statistics.median(shares):.1%} of the time (median of "
        f"{len(shares)} runs, at most {max(shares):.0%}), and for more than {NOISE_SHARE:.0%} in {disturbed} of them."
    )


def remarks(figures: Figures) -> list[str]:
    """Say what casts doubt on a measurement."""
    found = []
    if figures["own_cpu_share"] > BOTTLENECK_SHARE:
        found.append(BOTTLENECK)
    if max(figures.get("server_queued_share", 0), figures.get("own_queued_share", 0)) > NOISE_SHARE:
        found.append(DISTURBED)
    if figures.get("closed"):
        found.append(f"{figures['closed']} connections were closed: {figures['trouble']}")
    return found
