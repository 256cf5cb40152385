"""A real nginx between client and server, with what its location says and otherwise as nginx comes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from tests.serving import Server

PATHS = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"

CONF = """
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
events {{ }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_set_header Host $http_host;
      {location}
    }}
  }}
}}
"""

BARE = ""
"""Nothing but proxy_pass: HTTP/1.0 to the server, no Upgrade, buffering on; but X-Accel-Buffering is listened to."""

DEAF = "proxy_ignore_headers X-Accel-Buffering;"
"""The same, but that streams are buffered whatever the server says."""

FORBIDDING = "if ($http_upgrade) { return 403; }"
"""WebSocket is refused by name."""

CHUNKED = """proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ignore_headers X-Accel-Buffering;"""
"""Streams are buffered, but come in chunks (HTTP/1.1): nginx passes each of them on when it has all of it."""

DOCUMENTED = """proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";"""
"""WebSocket is passed on."""

STOP_S = 60
"""Seconds after which one that should end is taken for hung."""


def find_nginx() -> str | None:
    """Return the path of nginx, which Debian keeps out of a user's PATH."""
    return shutil.which("nginx", path=PATHS)


class Nginx:
    """A process of nginx's, in a folder of its own.

    Args:
        nginx: Its path.
        folder: For its configuration and files.
        upstream: Port of the server.
        location: Directives for everything that is passed on.
    """

    def __init__(self, nginx: str, folder: Path, upstream: int, location: str) -> None:
        user = "user root;" if os.geteuid() == 0 else ""
        # It is given a socket that listens already, as when one nginx replaces another: nobody has to wait for it.
        with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
            self.port = listener.getsockname()[1]
            conf = folder / "nginx.conf"
            conf.write_text(CONF.format(user=user, port=self.port, upstream=upstream, location=location))
            self._log = folder / "error.log"
            self._process = subprocess.Popen(
                [nginx, "-p", str(folder), "-c", str(conf), "-e", str(self._log)],
                pass_fds=[listener.fileno()],
                env={**os.environ, "NGINX": f"{listener.fileno()};"},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.poll() is None, f"nginx has ended by itself: {self._log.read_text()}"
        self._process.terminate()
        self._process.wait(STOP_S)


Through = Callable[[Server, str], Nginx]


@pytest.fixture
def through(tmp_path: Path) -> Iterator[Through]:
    """Put nginx in front of a server; without one the tests are skipped, but in CI they fail."""
    path = find_nginx()
    if path is None:
        sentence = "there is no nginx here: install it with `sudo apt-get install nginx-light`"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    with ExitStack() as stack:
        yield lambda server, location: stack.enter_context(Nginx(path, tmp_path, server.port, location))
