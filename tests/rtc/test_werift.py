"""A second stack that has nothing to do with ours or aiortc: npm's werift, in Node.js."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serving import WATCHDOG_S, Server

PROGRAM = Path(__file__).parent / "werift.mjs"


def test_werift_reads_and_publishes(rtc_server: Server, channel: str) -> None:
    node = shutil.which("node")
    if node is None or not (PROGRAM.parents[1] / "node_modules" / "werift").is_dir():
        sentence = "werift is missing: install Node.js, and `npm ci` in tests/"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    for number in range(300):
        rtc_server.publish(channel, number)
    command = [node, str(PROGRAM), f"http://127.0.0.1:{rtc_server.port}", channel, "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = [json.loads(line) for line in (process.stdout.readline(), process.stdout.readline())]
            assert {"ready": True} in told
            assert {"lost": "gone"} in told
            for number in range(100):
                rtc_server.publish(channel, f"ours {number}")
            rtc_server.publish(channel, "end")
            had = json.loads(process.stdout.readline())["had"]
            assert process.wait(WATCHDOG_S) == 0
        finally:
            process.kill()
    assert had[:300] == list(range(300))
    for name in ("werift", "ours"):
        assert [each for each in had[300:] if str(each).startswith(name)] == [f"{name} {n}" for n in range(100)]
    assert len(had) == 501
