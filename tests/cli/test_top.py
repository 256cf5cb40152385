"""tellwire top: what it draws at which size, and in a terminal, with keys, and a server that goes and comes back."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tellwire.cli.tables import number, rate, span
from tellwire.cli.top_view import Moment, View, draw, share
from tests.cli.commands import COMMAND, environment, run
from tests.readers import SocketReader
from tests.serving import WATCHDOG_S, Certificate, Server

VIEW = View("http://127.0.0.1:8000")


def moment(nodes: int = 3, channels: int = 40, slow: int = 20) -> Moment:
    """Make a moment as a server tells it."""
    node: dict[str, Any] = {
        "answered": True, "ready": True, "draining": False, "uptime_s": 86_500.0, "channels": 12_345, "lagging": slow,
        "lag_max": 1_234_567, "rates": {"published": 0.3, "delivered": 98_765.4},
        "connections": {"websocket": 1200, "sse": 34},
    }  # fmt: skip
    return Moment(
        [{**node, "node": f"id{at}", "name": f"a-machine-with-a-long-name.example.org:{at}"} for at in range(nodes)],
        [
            {"channel": f"room:{at}" + "x" * at * 3, "rate": 12.5, "readers": 7, "nodes": 2, "members": 1, "lag_max": 0}
            for at in range(channels)
        ],
        channels,
        [
            {
                "client": "5lZ0_C3Gp1wD", "user": "somebody" * 10, "node": "id0", "transport": "websocket",
                "channel_count": 3, "lag": 5000, "lag_messages": 40, "lag_ms": 61_000,
            }
            for _ in range(slow)
        ],
    )  # fmt: skip


def drawn(shown: Moment | None, width: int, height: int, view: View = VIEW) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(draw(shown, view, width, height, shown.at + 3 if shown else 0.0))
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 15), (200, 60)])
@pytest.mark.parametrize("sizes", [(3, 40, 20), (1, 0, 0), (30, 2, 1), (1, 1, 500)])
def test_picture_fits_the_terminal(width: int, height: int, sizes: tuple[int, int, int]) -> None:
    lines = drawn(moment(*sizes), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert "q quit" in lines[-1]
    assert any(line.startswith("a-machine") for line in lines)


def test_picture_at_80_columns_says_what_matters() -> None:
    text = "\n".join(drawn(moment(), 80, 24))
    assert "in 0.9/s" in text
    assert "out 296k/s" in text
    assert re.search(r"connections 3702 +websocket 3600 +sse 102", text)
    assert re.search(r"NODE +STATE +CONN +IN/s +OUT/s +LAGGING +LAG", text)
    assert re.search(r"CHANNEL \(\d+ of 40\) +MSG/s +READERS +LAG", text)
    assert re.search(r"5lZ0_C3Gp1wD +somebody.*websocket +5000 +1m", text)


def test_picture_of_trouble_says_how_old_it_is() -> None:
    lines = drawn(moment(), 80, 24, replace(VIEW, trouble="no answer from here"))
    assert lines[2] == "as of 3s ago: no answer from here"
    assert drawn(None, 80, 24, replace(VIEW, trouble="no answer from here"))[1] == "no answer from here"


def test_picture_of_a_silent_node_says_since_when() -> None:
    shown = moment(1)
    node = {**shown.nodes[0], "answered": False, "said_s": 12.0}
    lines = drawn(replace(shown, nodes=[node]), 120, 30)
    assert "1 silent" in lines[1]
    assert any("silent" in line and "12s ago" in line for line in lines)


def test_lines_are_shared_so_that_none_is_left_over() -> None:
    assert share(10, [3, 40, 20]) == [3, 4, 3]
    assert share(10, [1, 0, 20]) == [1, 0, 9]
    assert share(100, [3, 4, 5]) == [3, 4, 5]
    assert share(2, [9, 9, 9]) == [1, 1, 0]


def test_figures_are_short() -> None:
    assert [number(value) for value in (0, 999, 9999, 12_345, 4_500_000, 2e9)] == [
        "0", "999", "9999", "12.3k", "4.5M", "2.0G",
    ]  # fmt: skip
    assert [rate(value) for value in (0, 0.1, 99.9, 100.4, 12_345)] == ["0", "0.1", "99.9", "100", "12.3k"]
    assert [span(value) for value in (0, 0.5, 59, 60, 7200, 90_000)] == ["0s", "0.5s", "59s", "1m", "2h", "1d"]


class Terminal:
    """`tellwire top` in a terminal of its own."""

    def __init__(self, url: str, *, width: int = 80, height: int = 24) -> None:
        self.far, self._near = pty.openpty()
        fcntl.ioctl(self._near, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.before = termios.tcgetattr(self._near)
        self.process = subprocess.Popen(
            [*COMMAND, "top", "--interval", "0.5"],
            stdin=self._near,
            stdout=self._near,
            stderr=subprocess.STDOUT,
            env=environment(TELLWIRE_URL=url, TERM="xterm", COLUMNS="", LINES=""),
        )

    def until(self, pattern: str) -> None:
        """Read until something new is drawn that fits."""
        text = ""
        deadline = time.monotonic() + WATCHDOG_S
        while re.search(pattern, text) is None:
            assert time.monotonic() < deadline, f"{pattern} did not come: {text[-2000:]!r}"
            if select.select([self.far], [], [], 0.5)[0]:
                text = (text + os.read(self.far, 65_536).decode(errors="replace"))[-20_000:]

    def press(self, key: str) -> None:
        os.write(self.far, key.encode())

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        deadline = time.monotonic() + WATCHDOG_S
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.far], [], [], 0.05)[0]:
                os.read(self.far, 65_536)  # else it may wait for us
        code = self.process.wait(1)
        assert termios.tcgetattr(self._near) == self.before, "the terminal is as it was"
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WATCHDOG_S)
        os.close(self.far)
        os.close(self._near)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_(url: str, **size: int) -> Terminal:
        opened.append(Terminal(url, **size))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def test_top_lives_through_a_server_that_goes_and_comes_back(
    terminal: Callable[..., Terminal], start_server: Callable[..., Server]
) -> None:
    server = start_server()
    with SocketReader(server, "shown-here") as reader:
        top = terminal(f"http://127.0.0.1:{server.port}")
        top.until("shown-here")
        server.publish("shown-here", 1)
        reader.read_data(1)
        top.press("r")
        top.until(r"channels by")
    server.kill()
    server.wait()
    top.until("as of .* ago: no answer from")
    start_server(server={"port": server.port, "node_name": "back-again"})
    top.until("back-again")
    top.press("q")
    assert top.end() == 0


def test_top_ends_with_ctrl_c(terminal: Callable[..., Terminal], server: Server) -> None:
    top = terminal(f"http://127.0.0.1:{server.port}", width=120, height=40)
    top.until("NODE")
    top.process.send_signal(signal.SIGINT)
    assert top.end() == 0


def test_top_ends_where_the_certificate_is_not_accepted(
    terminal: Callable[..., Terminal], start_server: Callable[..., Server], certificate: Certificate
) -> None:
    top = terminal(f"https://localhost:{start_server(server=certificate.settings).port}")
    top.until(r"\x1b\[\?1049l.*Error: the certificate of localhost:\d+ is not accepted: .*--ca-file")
    assert top.end() == 1


def test_top_without_a_terminal_prints_once(server: Server) -> None:
    with SocketReader(server, "printed"):
        done = run("top", TELLWIRE_URL=f"http://127.0.0.1:{server.port}")
    assert done.returncode == 0, done
    assert re.search(r"^printed +0 +1 +1 +0 +0$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout
