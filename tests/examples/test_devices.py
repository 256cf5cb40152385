"""Commands to a device and its acknowledgements, with the Python client on both ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.examples.conftest import EXAMPLES
from tests.serving import WATCHDOG_S, Server

DEVICES = EXAMPLES / "devices"
StartDevice = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start_device(server: Server, channel: str, tmp_path: Path) -> Iterator[StartDevice]:
    """Start the lamp that the test's channel is named after, as often as one likes, always with the same place."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        options = ["--url", f"http://127.0.0.1:{server.port}", "--place", str(tmp_path / "place")]
        command = [sys.executable, str(DEVICES / "device.py"), channel, *options]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == f"{channel} listens\n"
        return started[-1]

    yield start
    for each in started:
        stop(each)


def stop(device: subprocess.Popen[str]) -> None:
    device.kill()
    device.wait(WATCHDOG_S)
    assert device.stdout is not None
    device.stdout.close()


def tell(server: Server, device: str, what: str, timeout_s: float = WATCHDOG_S) -> tuple[int, str]:
    """Run the operator's side; return its exit code and what it printed."""
    options = ["--url", f"http://127.0.0.1:{server.port}", "--timeout", str(timeout_s)]
    command = [sys.executable, str(DEVICES / "command.py"), device, what, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.strip()


def answers(server: Server, device: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{server.port}/v1/messages?channel=device:{device}:done&since=earliest"
    return [message["data"] for message in httpx.get(url, timeout=WATCHDOG_S).json()["messages"]]


def test_device_does_what_it_is_told_and_says_so(server: Server, start_device: StartDevice, channel: str) -> None:
    start_device()
    assert tell(server, channel, "report") == (0, "off")
    assert tell(server, channel, "on") == (0, "on")
    assert tell(server, channel, "report") == (0, "on")
    assert tell(server, channel, "dance") == (1, "this lamp does not know how")


def test_command_that_came_while_it_was_off_is_done_once(
    server: Server, start_device: StartDevice, channel: str
) -> None:
    stop(start_device())
    for number, what in enumerate(("on", "off", "on")):
        server.publish(f"device:{channel}:commands", {"do": what}, id=f"c{number}")
    device = start_device()
    assert tell(server, channel, "report") == (0, "on")
    assert [answer["command"] for answer in answers(server, channel)][:3] == ["c0", "c1", "c2"]
    # Killed and started again, it does none of them twice.
    stop(device)
    start_device()
    assert tell(server, channel, "report") == (0, "off")
    assert len(answers(server, channel)) == 5


def test_command_is_not_done_too_late(server: Server, start_device: StartDevice, channel: str) -> None:
    server.publish(f"device:{channel}:commands", {"do": "on", "until": 1_700_000_000}, id="late")
    start_device()
    assert tell(server, channel, "report") == (0, "off")
    assert answers(server, channel)[0] == {"command": "late", "ok": False, "error": "too late"}


def test_device_that_is_not_there_is_told_of(server: Server, channel: str) -> None:
    assert tell(server, channel, "on", timeout_s=1) == (2, "")
