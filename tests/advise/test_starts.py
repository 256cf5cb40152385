"""The lines to begin with that the adviser gives to programs: each is run, and gets a message."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from tellwire.advise import load_rules
from tellwire.advise.rules import Start
from tests.serving import WATCHDOG_S, Server

PROGRAMS = [
    (transport, start) for start in load_rules().starts if start.language == "python" for transport in start.transports
]


NAMES = [f"{transport}-{'-'.join(start.when)}" for transport, start in PROGRAMS]

SHELL = [start for start in load_rules().starts if start.language == "console"]


@pytest.fixture
def deaf_to_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the programs from whatever proxy this machine goes out by: they talk to 127.0.0.1."""
    monkeypatch.setenv("NO_PROXY", "*")
    return


@pytest.mark.usefixtures("deaf_to_proxies")
@pytest.mark.parametrize(("transport", "start"), PROGRAMS, ids=NAMES)
def test_program_prints_what_is_published(
    start_server: Callable[..., Server], server: Server, channel: str, transport: str, start: Start
) -> None:
    if transport == "grpc":
        server = start_server(server={"grpc_port": 0})
    text = start.text(transport, f"http://127.0.0.1:{server.port}").replace("news", channel)
    if transport == "grpc":
        text = text.replace(":50051", f":{server.grpc_port}")
    program = subprocess.Popen([sys.executable, "-u", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        lines: list[bytes] = []
        out = program.stdout
        assert out is not None
        reader = threading.Thread(target=lambda: lines.append(out.readline()))
        reader.start()
        # It reads from now on, and now is when it has connected: say it until it has heard it.
        for _ in range(WATCHDOG_S * 5):
            server.publish(channel, {"text": "hello"})
            reader.join(0.2)
            if not reader.is_alive():
                break
        assert lines == [b"{'text': 'hello'}\n"]
    finally:
        program.kill()
        print(program.communicate()[1].decode())  # why it printed nothing, where it did not


@pytest.mark.usefixtures("deaf_to_proxies")
@pytest.mark.parametrize("start", SHELL)
def test_shell_publishes(server: Server, start: Start) -> None:
    text = start.text("sse", f"http://127.0.0.1:{server.port}")
    done = subprocess.run(["sh", "-c", text], capture_output=True, timeout=WATCHDOG_S, text=True)
    assert '"duplicate":false' in done.stdout, done.stderr


def test_lines_fit_a_terminal() -> None:
    for start in load_rules().starts:
        for transport in start.transports:
            for line in start.text(transport, "http://127.0.0.1:8000").splitlines():
                assert len(line) <= 76, line
