"""A supervisor that wants to know is told when the server takes connections."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import WATCHDOG_S


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_supervisor_is_told_that_the_server_is_ready(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "notify")
    if kind == "abstract" and sys.platform != "linux":
        pytest.skip("names without a file are Linux'")
    shown, address = (path, path) if kind == "path" else (f"@{path}", f"\0{path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(address)
        supervisor.settimeout(WATCHDOG_S)
        with subprocess.Popen(
            [sys.executable, "-m", "tellwire", "serve", "--port", "0"],
            env={**os.environ, "NOTIFY_SOCKET": shown},
            stdout=subprocess.PIPE,
        ) as server:
            assert server.stdout is not None
            assert supervisor.recv(100) == b"READY=1"
            assert b"listens on" in server.stdout.readline()
            server.terminate()
            assert server.wait(WATCHDOG_S) == 0


@pytest.mark.parametrize("shown", ["/nowhere/at/all", "vsock:2:1", ""])
def test_supervisor_that_is_not_there_keeps_nobody_from_starting(shown: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tellwire", "serve", "--port", "0"],
        env={**os.environ, "NOTIFY_SOCKET": shown},
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        assert b"listens on" in server.stdout.readline()
        server.terminate()
        assert server.wait(WATCHDOG_S) == 0
