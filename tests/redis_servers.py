"""Real Redis servers for tests: each a process of its own, on a free port of the loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ports import free_port
from tests.wires import WATCHDOG_S, Address

SERVER = shutil.which("redis-server")

needs_redis = pytest.mark.skipif(SERVER is None, reason="there is no redis-server here")

_MENDED = "Fatal error: the truncated file is not the last file"
"""What Redis 7.0 ends with when it was killed twice: within a write, and within the rewriting of that file."""


class RedisServer:
    """One redis-server and its directory, over several starts.

    Args:
        directory: Where its files are.
        options: Further settings, as on its command line.
        config: A file of settings that it may write to, as Sentinels do.
        host: Where it is reached.
        through: What starts it, such as ``ip netns exec NAME``.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        config: Path | None = None,
        host: str = "127.0.0.1",
        through: Sequence[str] = (),
    ) -> None:
        assert SERVER is not None
        self.host = host
        self._through = through
        self.directory = directory
        self.port = free_port()
        self._options = options
        self._config = [] if config is None else [str(config)]
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """What a broker on it is called."""
        return f"redis://{self.host}:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        # As what watches over a server would, where it refuses a file that it has mended.
        if not self._start() and not (_MENDED in self._said() and self._start()):
            pytest.fail(f"redis-server did not start: {self._said()}")

    def _start(self) -> bool:
        assert SERVER is not None
        command = [
            *self._through, SERVER, *self._config, "--port", str(self.port), "--bind", self.host,
            "--dir", str(self.directory),
            "--daemonize", "no", *self._options,
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        deadline = time.monotonic() + WATCHDOG_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _said(self) -> str:
        return (self.directory / "log").read_text()[-2000:]

    def _ask(self, line: bytes) -> bytes:
        with socket.create_connection((self.host, self.port), timeout=WATCHDOG_S) as connection:
            connection.sendall(line + b"\r\n")
            return connection.recv(65_536)

    def _answers(self) -> bool:
        try:
            return self._ask(b"PING") == b"+PONG\r\n"
        except OSError:
            return False

    def command(self, line: str) -> bytes:
        """Send an inline command; return the first of what it answers."""
        answer = self._ask(line.encode())
        assert answer, f"{line} was not answered"
        assert not answer.startswith(b"-"), answer
        return answer

    def until(self, line: str, wanted: bytes) -> None:
        """Wait until a command's answer has something in it."""
        deadline = time.monotonic() + WATCHDOG_S
        while wanted not in self.command(line):
            if time.monotonic() > deadline:
                pytest.fail(f"{line} does not answer {wanted!r}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL, and what it started to write its file anew."""
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
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


class Cable:
    """What connects a node with its Redis, or another broker's server, and can be cut.

    Args:
        server: Where it ends.
    """

    def __init__(self, server: Address) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """What a broker is called that is connected by it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """End all connections, and let no further ones through."""
        with self._lock:
            self._is_cut = True
            self._drop()

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_cut = False

    def stall(self) -> None:
        """Let nothing through any more, without a word to either end."""
        self._flows.clear()

    def go_on(self) -> None:
        """Let through what was held back, and all that comes."""
        self._flows.set()

    def close(self) -> None:
        """End it."""
        self._flows.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(WATCHDOG_S)

    def _drop(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_cut:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self._server.port))
                except OSError:  # the server is away
                    near.close()
                    continue
                self._ends |= {near, far}
            thread = threading.Thread(target=self._carry, args=(near, far), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._flows.wait()
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def running(server: RedisServer) -> Iterator[RedisServer]:
    """Start a server, and end it."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_server(directory: Path, *options: str) -> Iterator[RedisServer]:
    """Start a server, and end it."""
    with running(RedisServer(directory, "--save", "", *options)) as server:
        yield server


@contextmanager
def redis_sentinel(directory: Path, master: RedisServer, name: str) -> Iterator[RedisServer]:
    """Start a Sentinel that watches a master, and alone decides to replace it, once it is told to be quick."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sentinel.conf").write_text(
        f"""sentinel monitor {name} 127.0.0.1 {master.port} 1
sentinel down-after-milliseconds {name} 600000
sentinel failover-timeout {name} 3000
"""
    )
    sentinel = RedisServer(directory, "--sentinel", config=directory / "sentinel.conf")
    sentinel.start()
    try:
        # On a busy machine it must not stop working for half a minute because it stood still for two seconds, and not
        # make a replica of a server again that a test has taken from its master for longer than four such periods.
        sentinel.command("SENTINEL DEBUG tilt-trigger 600000 publish-period 60000")
        yield sentinel
    finally:
        sentinel.kill()


@contextmanager
def redis_cluster(directory: Path, *options: str, replicas: int = 0) -> Iterator[list[RedisServer]]:
    """Start a Redis Cluster of three masters, each with so many replicas; the masters come first.

    A master is replaced after some seconds; where nobody can replace it, it is also not taken for dead before a while.
    """
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                redis_server(
                    directory / str(number), "--cluster-enabled", "yes", "--cluster-port", str(free_port()),
                    "--cluster-node-timeout", "3000" if replicas else "20000",
                    "--repl-diskless-sync-delay", "0", *options,
                )
            )
            for number in range(3 * (1 + replicas))
        ]  # fmt: skip
        program = shutil.which("redis-cli")
        assert program is not None
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        create = [program, "--cluster", "create", *addresses, "--cluster-replicas", str(replicas), "--cluster-yes"]
        made = subprocess.run(create, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        for server in servers:
            server.until("CLUSTER INFO", b"cluster_state:ok")
        yield servers


class Watched(NamedTuple):
    """A master, a replica that is up to date, and a Sentinel that knows both; ``place`` begins the log's URL."""

    master: RedisServer
    replica: RedisServer
    sentinel: RedisServer
    place: str

    def kill_master(self) -> None:
        """Kill the master, which is then replaced within a second or two; before, it may take its time to answer."""
        self.master.kill()
        self.sentinel.command("SENTINEL SET tell down-after-milliseconds 300")


@contextmanager
def watched_redis(directory: Path) -> Iterator[Watched]:
    """Start a master, its replica and a Sentinel, and end them."""
    with redis_server(directory / "master", "--repl-diskless-sync-delay", "0") as master:
        replicates = ("--replicaof", f"127.0.0.1 {master.port}", "--repl-ping-replica-period", "1")
        with redis_server(directory / "replica", *replicates) as replica:
            replica.until("INFO replication", b"master_link_status:up")
            with redis_sentinel(directory / "sentinel", master, "tell") as sentinel:
                sentinel.until("SENTINEL REPLICAS tell", str(replica.port).encode())
                yield Watched(master, replica, sentinel, f"redis+sentinel://127.0.0.1:{sentinel.port}/tell")
