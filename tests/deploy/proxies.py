"""The proxies of docs/deploying.md, with the very configurations that stand there.

Only addresses, names and paths of certificates are others, and what each needs to run without root.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from tests.docs.examples import file
from tests.serving import ROOT, WATCHDOG_S, Certificate

DEPLOYING = ROOT / "docs" / "deploying.md"
BACKEND = "127.0.0.1:8000"


def find(name: str) -> str | None:
    """Find a program, also where Debian has those for root."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def free_port() -> int:
    """Find a port for a server that cannot tell which one it took."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Setting(NamedTuple):
    """Where a proxy runs, and for whom."""

    folder: Path
    port: int
    backend: int
    certificate: Certificate
    second: int | None = None
    """Another server beside `backend`, for nginx."""

    def replace(self, text: str, *pairs: tuple[str, str]) -> str:
        """Put this setting's addresses in place of the page's; each has to be there."""
        for before, after in ((BACKEND, f"127.0.0.1:{self.backend}"), *pairs):
            assert before in text, before
            text = text.replace(before, after)
        return text


def nginx(program: str, setting: Setting) -> list[str]:
    """Write nginx's files; return its command line."""
    text = file(DEPLOYING, "nginx.conf")
    if setting.second is not None:
        text = re.sub(r"^upstream .*?^}$", file(DEPLOYING, "upstream.conf"), text, flags=re.DOTALL | re.MULTILINE)
        assert "127.0.0.1:8001" in text
        text = text.replace("127.0.0.1:8001", f"127.0.0.1:{setting.second}")
    site = setting.replace(
        text,
        ("listen 443", f"listen 127.0.0.1:{setting.port}"),
        ("/etc/ssl/push.example.org.pem", str(setting.certificate.cert)),
        ("/etc/ssl/push.example.org.key", str(setting.certificate.key)),
    )
    (setting.folder / "site.conf").write_text(site)
    user = pwd.getpwuid(os.getuid()).pw_name
    group = grp.getgrgid(os.getgid()).gr_name
    paths = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (setting.folder / "nginx.conf").write_text(
        f"user {user} {group}; daemon off; pid nginx.pid; error_log stderr; events {{ worker_connections 256; }}\n"
        f"http {{ access_log off; {paths} include site.conf; }}\n"
    )
    return [program, "-p", str(setting.folder), "-e", "stderr", "-c", "nginx.conf"]


def caddy(program: str, setting: Setting) -> list[str]:
    """Write Caddy's file; return its command line."""
    certificate = setting.certificate
    # Here it cannot get a certificate by itself, and must not listen on port 80.
    names = ", ".join(f"https://{name}:{setting.port}" for name in ("push.example.org", "localhost"))
    address = f"{names} {{\n    bind 127.0.0.1\n    tls {certificate.cert} {certificate.key}"
    site = setting.replace(file(DEPLOYING, "Caddyfile"), ("push.example.org {", address))
    options = "{\n    admin off\n    auto_https disable_redirects\n    default_sni push.example.org\n}\n"
    (setting.folder / "Caddyfile").write_text(options + site)
    return [program, "run", "--adapter", "caddyfile", "--config", "Caddyfile"]


def haproxy(program: str, setting: Setting) -> list[str]:
    """Write HAProxy's file; return its command line."""
    both = setting.folder / "both.pem"
    both.write_text(setting.certificate.cert.read_text() + setting.certificate.key.read_text())
    text = setting.replace(
        file(DEPLOYING, "haproxy.cfg"),
        ("bind :443", f"bind 127.0.0.1:{setting.port}"),
        ("/etc/haproxy/push.example.org.pem", str(both)),
    )
    (setting.folder / "haproxy.cfg").write_text(text)
    return [program, "-db", "-f", "haproxy.cfg"]


PROXIES: dict[str, Callable[[str, Setting], list[str]]] = {"nginx": nginx, "caddy": caddy, "haproxy": haproxy}


class Proxy:
    """A proxy in a process of its own, with TLS on a free port of 127.0.0.1.

    Where it is not installed the test is skipped; but nginx is wanted in CI.
    """

    def __init__(
        self, name: str, folder: Path, backend: int, certificate: Certificate, *, second: int | None = None
    ) -> None:
        program = find(name)
        if program is None:
            sentence = f"there is no {name} here: install it with `sudo apt-get install {name}`"
            if name == "nginx" and os.environ.get("CI") == "true":
                pytest.fail(sentence)
            pytest.skip(sentence)
        self.port = free_port()
        command = PROXIES[name](program, Setting(folder, self.port, backend, certificate, second))
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
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

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
