"""Real NATS servers for tests: each a process of its own, on a free port of the loopback."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.request import urlopen

import pytest

from tests.ports import free_port
from tests.redis_servers import Cable
from tests.wires import WATCHDOG_S

SERVER = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")

needs_nats = pytest.mark.skipif(SERVER is None, reason="there is no nats-server here")


class NatsServer:
    """One nats-server and its directory, over several starts.

    Args:
        directory: Where its files are.
        config: Further settings, in the server's own notation.
        jetstream: Whether it keeps streams.
    """

    def __init__(self, directory: Path, config: str = "", *, jetstream: bool = True) -> None:
        self.directory = directory
        self.port = free_port()
        self.http_port = free_port()
        self.config = config
        self._jetstream = jetstream
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """What a broker on it is called."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self, until: str = "/healthz") -> None:
        """Start it and wait until it answers."""
        assert SERVER is not None
        file = self.directory / "server.conf"
        store = f'jetstream {{ store_dir: "{self.directory}/store" }}' if self._jetstream else ""
        file.write_text(
            f"host: 127.0.0.1\nport: {self.port}\nhttp: 127.0.0.1:{self.http_port}\nmax_payload: 4MB\n"
            f"{store}\n{self.config}\n"
        )
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [SERVER, "-c", str(file)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + WATCHDOG_S
        while not self._answers(until):
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"nats-server did not start: {(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def _answers(self, path: str) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2):
                pass
            return bool(self.monitor(path).get("status", "ok") == "ok")
        except OSError:
            return False

    def monitor(self, path: str) -> dict[str, Any]:
        """Ask its monitoring port; raises OSError."""
        with urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=2) as answer:
            found: dict[str, Any] = json.loads(answer.read() or b"{}")
            return found

    @property
    def version(self) -> tuple[int, ...]:
        """Its version; it has to be there."""
        told = str(self.monitor("/varz")["version"])
        return tuple(int(part) for part in told.partition("-")[0].split("."))

    def kill(self) -> None:
        """End it with SIGKILL."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it stand still, all its threads."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any(not _stands((task / "stat").read_text()) for task in tasks.iterdir()):
            time.sleep(0.001)

    def go_on(self) -> None:
        """Let it run again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class Refusal(NamedTuple):
    """What a server answers instead of storing a message."""

    code: int
    err_code: int
    description: str
    status: str = ""
    """The line that it sends beside."""

    def message(self, reply: str, sid: str) -> bytes:
        """Write it as the server does."""
        error = {"code": self.code, "err_code": self.err_code, "description": self.description}
        said = json.dumps({"error": error, "stream": "it", "seq": 0}).encode()
        head = f"NATS/1.0 {self.status}\r\n\r\n".encode() if self.status else b""
        sizes = f"HMSG {reply} {sid} {len(head)}" if head else f"MSG {reply} {sid}"
        return f"{sizes} {len(head) + len(said)}\r\n".encode() + head + said + b"\r\n"


NO_PEERS = Refusal(400, 10005, "no suitable peers for placement, peer offline")
# As nats-server has them from 2.11 on.
IN_THE_WAY = Refusal(400, 10164, "wrong last sequence")
SAME_ID = Refusal(409, 10158, "duplicate message id is in process")
OVERRUN = Refusal(429, 10167, "too many requests", "429 Too Many Requests")


class FeedCable(Cable):
    """A cable that may keep from a node what its stream feeds it, or answer publishes itself and not let them through.

    Args:
        server: Where it ends.
    """

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.holds_feed = False
        self.refusals: Iterator[Refusal] = iter(())
        """What is answered to the next publishes that want an answer, one for each."""
        self.requests: list[tuple[str, Refusal | None]] = []
        """Words in the subjects of requests to the API, and what becomes of the next one each; None: it gets lost."""
        self._speaking = threading.Lock()
        super().__init__(server)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with source.makefile("rb") as stream, suppress(OSError):
            if sink.getsockname()[1] == self.port:
                self._to_node(stream, sink)
            else:
                self._to_server(stream, source, sink)
        super()._pump(source, sink)

    def _to_node(self, stream: BinaryIO, node: socket.socket) -> None:
        while line := stream.readline():
            kind, *parts = line.split()
            if kind in (b"MSG", b"HMSG"):
                line += stream.read(int(parts[-1]) + 2)
            # A message of a stream has where it is acknowledged as its reply; heartbeats come without.
            is_fed = any(part.startswith(b"$JS.ACK.") or part.endswith(b".f") for part in parts[:3])
            if not (self.holds_feed and is_fed):
                with self._speaking:
                    node.sendall(line)

    def _to_server(self, stream: BinaryIO, node: socket.socket, server: socket.socket) -> None:
        sids: dict[str, str] = {}
        while line := stream.readline():
            kind, *parts = line.decode().split()
            if kind == "SUB":
                sids[parts[0]] = parts[-1]
            elif kind in ("PUB", "HPUB"):
                line += stream.read(int(parts[-1]) + 2)
            is_taken, refusal = self._taken(kind, parts)
            if refusal is not None:
                reply = parts[1]
                with self._speaking:
                    node.sendall(refusal.message(reply, sids[reply.rpartition(".")[0] + ".*"]))
            elif not is_taken:
                server.sendall(line)

    def _taken(self, kind: str, parts: list[str]) -> tuple[bool, Refusal | None]:
        """Tell whether what a node sends is kept from the server, and what it is answered."""
        if kind == "HPUB" and len(parts) == 4 and (refusal := next(self.refusals, None)):
            return True, refusal
        asked = next((each for each in self.requests if kind == "PUB" and each[0] in parts[0]), None)
        if asked is None:
            return False, None
        self.requests.remove(asked)
        return True, asked[1]


def _stands(stat: str) -> bool:
    return stat.rpartition(")")[2].split()[0] == "T"


@contextmanager
def nats_server(directory: Path, config: str = "", *, jetstream: bool = True) -> Iterator[NatsServer]:
    """Start a server, and end it."""
    server = NatsServer(directory, config, jetstream=jetstream)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def nats_cluster(directory: Path) -> Iterator[list[NatsServer]]:
    """Start three servers that are one cluster, and end them."""
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    servers = [
        NatsServer(
            directory / str(number),
            f"server_name: n{number}\ncluster {{ name: tellwire, listen: 127.0.0.1:{port}, routes: [{routes}] }}",
        )
        for number, port in enumerate(ports)
    ]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.start("/varz")
        deadline = time.monotonic() + WATCHDOG_S
        while not all(server._answers("/healthz") for server in servers) or not any(map(_leads_all, servers)):
            if time.monotonic() > deadline:
                pytest.fail("the cluster has no leader that knows all of it")
            time.sleep(0.02)
        yield servers


def _leads_all(server: NatsServer) -> bool:
    """Tell whether a server leads a cluster of three, and has heard of the other two."""
    followers = server.monitor("/jsz").get("meta_cluster", {}).get("replicas", [])
    return len(followers) == 2 and all(each.get("current") and not each.get("offline") for each in followers)
