"""A log file that is published line by line, and its errors read elsewhere, through pipes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES
from tests.serving import WATCHDOG_S, Server

StartScript = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_script() -> Iterator[StartScript]:
    """Start scripts, each with all that it starts in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, server: Server, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = os.environ | {"TELLWIRE_URL": f"http://127.0.0.1:{server.port}"} | variables
        script = subprocess.Popen(
            ["sh", str(EXAMPLES / "log_tail" / name), *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(script)
        return script

    yield start
    for each in started:
        os.killpg(each.pid, signal.SIGKILL)
        each.wait(WATCHDOG_S)
        assert each.stdout is not None
        each.stdout.close()


def read_lines(script: subprocess.Popen[str], count: int) -> list[str]:
    assert script.stdout is not None
    return [script.stdout.readline().rstrip("\n") for _ in range(count)]


def test_errors_of_a_log_arrive_also_after_it_was_rotated(
    server: Server, start_script: StartScript, channel: str, tmp_path: Path
) -> None:
    log = tmp_path / "app.log"
    log.write_text('INFO starting\nERROR "one"\n')
    watch = start_script("watch.sh", server, channel, SINCE="earliest")
    start_script("ship.sh", server, str(log), channel)
    assert read_lines(watch, 1) == ['ERROR "one"']
    with log.open("a") as file:
        file.write('{"level": "ERROR"}\nDEBUG nothing\nERROR two\n')
    assert read_lines(watch, 2) == ['{"level": "ERROR"}', "ERROR two"]
    log.rename(tmp_path / "app.log.1")
    log.write_text("INFO fresh\nERROR three\n")
    assert read_lines(watch, 1) == ["ERROR three"]


def test_nothing_is_missing_or_twice_when_the_server_is_restarted(
    start_server: Callable[..., Server], start_script: StartScript, channel: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"server": {"broker": f"sqlite:///{tmp_path}/log.db"}}
    server = start_server(**settings)
    log = tmp_path / "app.log"
    log.write_text("".join(f"ERROR {number}\n" for number in range(50)))
    watch = start_script("watch.sh", server, channel, SINCE="earliest")
    start_script("ship.sh", server, str(log), channel)
    assert read_lines(watch, 50) == [f"ERROR {number}" for number in range(50)]
    server.kill()
    server.wait()
    with log.open("a") as file:
        file.write("".join(f"ERROR {number}\n" for number in range(50, 100)))
    settings["server"]["port"] = server.port
    start_server(**settings)
    assert read_lines(watch, 50) == [f"ERROR {number}" for number in range(50, 100)]


def test_without_a_file_it_says_how_it_is_called(tmp_path: Path) -> None:
    script = str(EXAMPLES / "log_tail" / "ship.sh")
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "sh ship.sh FILE" in done.stderr
