"""The server does its work within what the unit of systemd allows it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.deploy.confined import CANNOT
from tests.deploy.files import DEPLOY
from tests.serving import ROOT, WATCHDOG_S

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here, of Debian's package systemd"
)

CONFINED = [sys.executable, "-m", "tests.deploy.confined", str(DEPLOY / "tellwire.service")]


def test_server_keeps_its_log_within_the_unit(tmp_path: Path) -> None:
    settings = {"broker": f"sqlite:///{tmp_path / 'log.db'}", "port": 0, "grpc_port": 0}
    what = json.dumps({"kind": "direct", "server": settings, "limits": {"drain_s": 0.1}})
    command = [*CONFINED, sys.executable, "-m", "tests.serve", what]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line and process.wait(WATCHDOG_S) == CANNOT:
            pytest.skip("this system has no libseccomp, or its kernel no PR_SET_MDWE")
        url = f"http://127.0.0.1:{line.split()[0]}"
        with httpx.Client(base_url=url, timeout=WATCHDOG_S) as http:
            assert http.post("/v1/messages", json={"channel": "news", "data": 1}).is_success
            page = http.get("/v1/messages?channel=news&since=earliest").json()
        assert [message["data"] for message in page["messages"]] == [1]
        process.terminate()
        assert process.wait(WATCHDOG_S) == 0


def test_data_channels_say_what_the_unit_has_to_allow() -> None:
    command = [*CONFINED, sys.executable, "-m", "tellwire", "serve", "--port", "0", "--rtc"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=WATCHDOG_S)
    if done.returncode == CANNOT:
        pytest.skip("this system has no libseccomp, or its kernel no PR_SET_MDWE")
    assert done.returncode == 1
    assert "MemoryDenyWriteExecute=no" in done.stderr
    assert "Traceback" not in done.stderr
