"""nginx, HAProxy and Caddy with the very configurations under deploy/.

Only addresses, names and paths of certificates are others, what each needs to run without root, and how long it waits
to hear of a server's health. With one server the line or address of the second is left out, as the documentation says.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from tests.deploy.files import BACKEND, SECOND, deployed
from tests.ports import free_port
from tests.serving import WATCHDOG_S, Certificate, written

STILL_S = 60
"""Seconds for which a server may leave a question for its health without an answer: on a busy machine it stands still,
and the only one that there is would not be asked for anything else any more."""


def find(name: str) -> str | None:
    """Find a program, also where Debian has those for root."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Setting(NamedTuple):
    """Where a proxy runs, and for whom."""

    folder: Path
    port: int
    backends: Sequence[int]
    """The ports of its servers; the files name two."""
    certificate: Certificate

    def read(self, name: str, *pairs: tuple[str, str]) -> str:
        """Read a file of ours with this setting's addresses; what is replaced has to be there."""
        text = deployed(name)
        first, *more = (f"127.0.0.1:{port}" for port in self.backends)
        # Of a line with nothing but the second server the whole, else its address.
        line = next(line for line in text.splitlines(keepends=True) if SECOND in line)
        if BACKEND in line:
            pairs = ((f"{BACKEND} {SECOND}", " ".join((first, *more))), *pairs)
        else:
            lines = (line.replace(SECOND, each).replace("two", f"more{n}") for n, each in enumerate(more))
            pairs = ((BACKEND, first), (line, "".join(lines)), *pairs)
        for before, after in pairs:
            assert before in text, before
            text = text.replace(before, after)
        return text


def nginx(program: str, setting: Setting) -> list[str]:
    """Write nginx's files; return its command line."""
    site = setting.read(
        "nginx.conf",
        ("listen 443", f"listen 127.0.0.1:{setting.port}"),
        ("/etc/ssl/push.example.org.pem", str(setting.certificate.cert)),
        ("/etc/ssl/push.example.org.key", str(setting.certificate.key)),
    )
    return nginx_with(program, setting.folder, site)


def nginx_with(program: str, folder: Path, site: str) -> list[str]:
    """Write a site, and what nginx wants around it; return its command line."""
    (folder / "site.conf").write_text(site)
    user = pwd.getpwuid(os.getuid()).pw_name
    group = grp.getgrgid(os.getgid()).gr_name
    paths = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"user {user} {group}; daemon off; pid nginx.pid; error_log stderr; events {{ worker_connections 512; }}\n"
        f"http {{ access_log off; {paths} include site.conf; }}\n"
    )
    return [program, "-p", str(folder), "-e", "stderr", "-c", "nginx.conf"]


@contextmanager
def nginx_before(program: str, folder: Path, site: str) -> Iterator[int]:
    """Run nginx with a site that listens on port 80, here on a free one of the loopback; return that."""
    port = free_port()
    assert "listen 80;" in site
    command = nginx_with(program, folder, site.replace("listen 80;", f"listen 127.0.0.1:{port};"))
    subprocess.run([*command, "-t"], cwd=folder, check=True, capture_output=True, timeout=WATCHDOG_S)
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stderr=log) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=WATCHDOG_S).close()
                except ConnectionRefusedError:
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.02)
                else:
                    break
            yield port
        finally:
            process.terminate()
            process.wait(WATCHDOG_S)


def caddy(program: str, setting: Setting) -> list[str]:
    """Write Caddy's file; return its command line."""
    certificate = setting.certificate
    # Here it is not to ask anybody for a certificate, to listen on port 80, or to have the machine trust one of its
    # own, which it does as root: the list of all authorities would be written anew while other programs read it.
    names = ", ".join(f"https://{name}:{setting.port}" for name in ("push.example.org", "localhost"))
    address = f"{names} {{\n    bind 127.0.0.1\n    tls {certificate.cert} {certificate.key}"
    site = setting.read(
        "Caddyfile", ("push.example.org {", address), ("health_timeout 2s", f"health_timeout {STILL_S}s")
    )
    options = "{\n    admin off\n    auto_https off\n    skip_install_trust\n    default_sni push.example.org\n}\n"
    (setting.folder / "Caddyfile").write_text(options + site)
    return [program, "run", "--adapter", "caddyfile", "--config", "Caddyfile"]


def haproxy(program: str, setting: Setting) -> list[str]:
    """Write HAProxy's file; return its command line."""
    both = setting.folder / "both.pem"
    both.write_text(setting.certificate.cert.read_text() + setting.certificate.key.read_text())
    text = setting.read(
        "haproxy.cfg",
        ("bind :443", f"bind 127.0.0.1:{setting.port}"),
        ("timeout check   5s", f"timeout check   {STILL_S}s"),
        ("/etc/haproxy/push.example.org.pem", str(both)),
    )
    (setting.folder / "haproxy.cfg").write_text(text)
    return [program, "-db", "-f", "haproxy.cfg"]


PROXIES: dict[str, Callable[[str, Setting], list[str]]] = {"nginx": nginx, "caddy": caddy, "haproxy": haproxy}


def wanted(name: str) -> str:
    """Return a proxy's program; without it a test is skipped, but in CI it fails."""
    program = find(name)
    if program is None:
        package = "nginx-light" if name == "nginx" else name
        sentence = f"there is no {name} here: install it with `sudo apt-get install {package}`"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return program


class Proxy:
    """A proxy in a process of its own, with TLS on a free port of 127.0.0.1, before servers on the ports `backends`."""

    def __init__(self, name: str, folder: Path, backends: Sequence[int], certificate: Certificate) -> None:
        program = wanted(name)
        self.port = free_port()
        command = PROXIES[name](program, Setting(folder, self.port, backends, certificate))
        home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        self._log = (folder / "log").open("w+b")
        self._process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **home}, stdout=self._log, stderr=self._log
        )
        self.context = certificate.client_context("http/1.1")
        self._wait()

    @property
    def log(self) -> str:
        """What it has written."""
        return written(self._log)

    def _wait(self) -> None:
        """Wait until it listens, with pauses between the questions, as none of the three tells."""
        deadline = time.monotonic() + WATCHDOG_S
        while True:
            assert self._process.poll() is None, self.log
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=WATCHDOG_S) as raw:
                    self.context.wrap_socket(raw, server_hostname="localhost").close()
            except (OSError, ssl.SSLError):
                assert time.monotonic() < deadline, self.log
                time.sleep(0.05)
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(WATCHDOG_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
