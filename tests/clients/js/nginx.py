"""A real nginx between client and server, with what its location says and otherwise as nginx comes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

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

STOP_S = 20
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
