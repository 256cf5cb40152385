"""Real Redis servers for tests: each a process of its own, on a free port of the loopback."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVER = shutil.which("redis-server")

needs_redis = pytest.mark.skipif(SERVER is None, reason="there is no redis-server here")

_START_S = 15.0


def free_port() -> int:
    """Return a port of the loopback on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class RedisServer:
    """One redis-server and its directory, over several starts.

    Args:
        directory: Where its files are.
        options: Further settings, as on its command line.
        config: A file of settings that it may write to, as Sentinels do.
    """

    def __init__(self, directory: Path, *options: str, config: Path | None = None) -> None:
        assert SERVER is not None
        self.directory = directory
        self.port = free_port()
        self._options = options
        self._config = [] if config is None else [str(config)]
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """What a broker on it is called."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert SERVER is not None
        command = [
            SERVER, *self._config, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory),
            "--daemonize", "no", *self._options,
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_S
        while self._ask(b"PING") != b"+PONG\r\n":
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"redis-server did not start: {(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def _ask(self, line: bytes) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(line + b"\r\n")
                return connection.recv(65_536)
        except OSError:
            return b""

    def command(self, line: str) -> bytes:
        """Send an inline command; return the first of what it answers."""
        answer = self._ask(line.encode())
        assert not answer.startswith(b"-"), answer
        return answer

    def until(self, line: str, wanted: bytes) -> None:
        """Wait until a command's answer has something in it."""
        deadline = time.monotonic() + _START_S
        while wanted not in self.command(line):
            if time.monotonic() > deadline:
                pytest.fail(f"{line} does not answer {wanted!r}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it stand still."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(directory: Path, *options: str) -> Iterator[RedisServer]:
    """Start a server, and end it."""
    server = RedisServer(directory, "--save", "", *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_sentinel(directory: Path, master: RedisServer, name: str) -> Iterator[RedisServer]:
    """Start a Sentinel that watches a master, and alone decides to replace it; it does so within a second or two."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sentinel.conf").write_text(
        f"""sentinel monitor {name} 127.0.0.1 {master.port} 1
sentinel down-after-milliseconds {name} 300
sentinel failover-timeout {name} 3000
"""
    )
    sentinel = RedisServer(directory, "--sentinel", config=directory / "sentinel.conf")
    sentinel.start()
    try:
        yield sentinel
    finally:
        sentinel.kill()
