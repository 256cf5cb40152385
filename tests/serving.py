"""Real servers for the tests, each in a process of its own on a free port of 127.0.0.1.

`server` is shared by the tests of one session; they keep apart by channels of their own. `start_server` starts one with
its own settings for one test.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.ports import free_port
from tests.wires import Http

ROOT = Path(__file__).parent.parent

WATCHDOG_S = 60
"""Seconds after which a process that should end is taken for hung; no test measures a time."""


PATIENT_S = 600.0
"""A heartbeat, or a limit, for servers that are to keep who stands still, however long that is on this machine."""


class Certificate(NamedTuple):
    """A self-signed certificate."""

    cert: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)}

    def client_context(self, *protocols: str) -> ssl.SSLContext:
        """Make a client's context that trusts it, and offers `protocols` (ALPN)."""
        context = ssl.create_default_context(cafile=str(self.cert))
        if protocols:
            context.set_alpn_protocols(protocols)
        return context


KEPT_S = 10.0
"""Seconds without a publish after which another connection is opened for the next: a server closes idle ones."""


def written(file: IO[bytes]) -> str:
    """Return what a process has written to a file that was given to it: to read it must not move its end of it."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


class Server:
    """A server process.

    Args:
        kind: Which server carries the app (see tests.serve).
        settings: The rooms of `tellwire.config.Settings`; without a port, a free one that is nobody else's while the
            server is away.
    """

    program = "tests.serve"

    def __init__(self, kind: str = "direct", **settings: Any) -> None:
        what = {"kind": kind, **settings}
        what["server"] = {"port": free_port(), **settings.get("server", {})}
        self.kind = kind
        self._log = TemporaryFile()  # noqa: SIM115  # lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.program, json.dumps(what)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate(timeout=WATCHDOG_S)
            with self._log:
                raise RuntimeError(f"the server did not start: {self.log}")
        self.port, *others = map(int, line.split())
        self.grpc_port = others[0] if others else int(what["server"].get("grpc_port") or 0)
        self.pid = self._process.pid
        self._publisher: Http | None = None
        self._published_at = 0.0

    @property
    def log(self) -> str:
        """What it has written to standard error."""
        return written(self._log)

    @property
    def rss(self) -> int:
        """Resident memory, in bytes."""
        resident: int = psutil.Process(self.pid).memory_info().rss
        return resident

    def publish(self, channel: str, data: Any, **fields: Any) -> str:
        """Publish over HTTP; return the position ("" for an ephemeral message)."""
        (position,) = self.publish_all([{"channel": channel, "data": data, **fields}])
        return position

    def publish_all(self, messages: list[dict[str, Any]]) -> list[str]:
        """Publish a list over HTTP; return the positions."""
        if self._publisher is not None and time.monotonic() - self._published_at > KEPT_S:
            self._publisher.close()
            self._publisher = None
        if self._publisher is None:
            self._publisher = Http(self)
        self._published_at = time.monotonic()
        body = json.dumps(messages, ensure_ascii=False).encode()
        answer = self._publisher.request("POST", "/v1/messages", body=body)
        assert answer.status == 200, answer
        items = answer.json()
        assert all("error" not in item for item in items), items
        return [item["position"] or "" for item in items]

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM)."""
        self._process.terminate()

    def interrupt(self) -> None:
        """Ask it to stop as Ctrl-C does (SIGINT)."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Stop it without a word (SIGKILL)."""
        self._process.kill()

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        return self._process.wait(WATCHDOG_S)

    def stop(self) -> int:
        """Stop it, if it still runs; return its exit code."""
        if self._publisher is not None:
            self._publisher.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        return code

    def close(self) -> None:
        """Stop it, and forget what it wrote."""
        self.stop()
        self._log.close()


SHARED: dict[str, Any] = {
    "server": {"grpc_port": 0},
    "limits": {"drain_s": 0.1},
    "namespaces": [
        {"name": "default", "history_messages": 10_000},
        {"name": "short", "history_messages": 5},
        {"name": "tight", "message_max_bytes": 64},
        {"name": "large", "message_max_bytes": 2_000_000},
        {"name": "fleeting", "ephemeral": True},
    ],
}
"""Settings of the shared servers: quick to stop, and a namespace for each setting that tests are about."""


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Tellwire's own server, shared by all tests."""
    server = Server(**SHARED)
    yield server
    server.close()


@pytest.fixture(scope="session")
def foreign_servers(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """The shared servers by kind, started when first asked for; ``sqlite`` is our own with its log in a file."""
    servers = {"direct": server}

    def get(kind: str) -> Server:
        if kind == "sqlite" and kind not in servers:
            path = tmp_path_factory.mktemp("log") / "log.db"
            servers[kind] = Server(**{**SHARED, "server": {"broker": f"sqlite:///{path}", "grpc_port": 0}})
        elif kind not in servers:
            servers[kind] = Server(kind, **SHARED)
        return servers[kind]

    yield get
    for kind, each in servers.items():
        if kind != "direct":
            each.close()


@pytest.fixture(params=["direct", "sqlite", "uvicorn", "hypercorn"])
def any_server(request: pytest.FixtureRequest, foreign_servers: Callable[[str], Server]) -> Server:
    """Our own server over each broker, and every other that the app runs under."""
    return foreign_servers(request.param)


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Start servers with settings of their own; they end with the test."""
    started: list[Server] = []

    def start(kind: str = "direct", **settings: Any) -> Server:
        settings["limits"] = {"drain_s": 0.1, **settings.get("limits", {})}
        started.append(Server(kind, **settings))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def channel() -> str:
    """Return the name of a channel that nobody else uses."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return a certificate for servers with TLS."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(folder: Path, *names: str, days: int = 30) -> Certificate:
    """Make a self-signed certificate for host names, by default ``localhost`` and 127.0.0.1.

    Args:
        folder: Where its files go.
        names: DNS names.
        days: How long it is good from now; below 0 it no longer is.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    usual = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    subjects: list[x509.GeneralName] = [x509.DNSName(each) for each in names] or list(usual)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(subjects), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = Certificate(folder / "cert.pem", folder / "key.pem")
    paths.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    paths.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
