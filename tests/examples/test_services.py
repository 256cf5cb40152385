"""Services over gRPC: a sensor's upload, a feed in Python and in Node, a talk with a device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES
from tests.serving import ROOT, WATCHDOG_S, Server

NODE_HOME = ROOT / "tests" / "node_modules"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(server: Server) -> Iterator[Start]:
    """Start an example on the shared server."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[str]:
        program = shutil.which("node") or "node" if name.endswith(".mjs") else sys.executable
        address = f"127.0.0.1:{server.grpc_port}"
        process = subprocess.Popen(
            [program, str(EXAMPLES / "services" / name), address, *arguments],
            env=os.environ | {"NODE_HOME": f"{NODE_HOME}/"}, cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for each in started:
        each.kill()
        each.wait(WATCHDOG_S)
        for pipe in (each.stdin, each.stdout):
            assert pipe is not None
            pipe.close()


def say(process: subprocess.Popen[str], *lines: str) -> None:
    assert process.stdin is not None
    process.stdin.write("".join(f"{line}\n" for line in lines))
    process.stdin.flush()


def read(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def test_upload_is_read_by_a_feed_and_uploaded_again_is_there_once(start: Start, channel: str, tmp_path: Path) -> None:
    path = tmp_path / "readings.txt"
    path.write_text("".join(f"{number}.5\n" for number in range(100)))
    file = str(path)
    first = read(start("upload.py", channel, file), 1)[0]
    assert first.startswith("100 readings: 100 new, 0 there already, 0 refused")
    with path.open("a") as lines:
        lines.write("7\n")
    assert read(start("upload.py", channel, file), 1)[0].startswith("101 readings: 1 new, 100 there already")
    feed = start("feed.py", f"sensors:{channel}")
    expected = [f"sensors:{channel} {number}.5" for number in range(100)]
    assert read(feed, 101) == [*expected, f"sensors:{channel} 7.0"]


def test_device_and_operator_talk(start: Start, channel: str) -> None:
    device, operator = start("device.py", channel), start("device.py", channel, "operator")
    say(operator, "hello", "status")
    heard = ["operator: hello", "operator: status", "device: all is well"]
    assert read(operator, 3) == heard
    assert read(device, 3) == heard
    say(device, "it is warm here")
    assert read(operator, 1) == ["device: it is warm here"]


@pytest.mark.skipif(
    not ((shutil.which("node") and (NODE_HOME / "@grpc").is_dir()) or os.environ.get("CI") == "true"),
    reason="needs Node.js and the packages of tests/package.json: make test installs them",
)
def test_feed_in_node_reads_and_publishes(start: Start, server: Server, channel: str) -> None:
    server.publish(channel, "from Python")
    feed = start("feed.mjs", channel)
    assert read(feed, 1) == [f'{channel} "from Python"']
    say(feed, "from Node")
    assert read(feed, 1) == [f'{channel} "from Node"']
    server.publish(channel, {"$bytes": "AP8="})
    assert read(feed, 1) == [f'{channel} {{"$bytes":"AP8="}}'.replace('":"', '": "')]
