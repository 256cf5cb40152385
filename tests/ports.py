"""Ports for servers whose address has to be known before they start, or has to be theirs again when they come back."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

_FIRST, _LAST = 12_000, 27_999
"""Below the ports that an operating system gives to outgoing connections (from 32768 on Linux, from 49152 by RFC 6335,
section 6): while a server is away nobody is given its port. Above all that browsers refuse ("bad ports" of the fetch
standard, up to 10080)."""

_NEXT = Path(tempfile.gettempdir()) / f"tellwire-tests-{os.getuid()}-next-port"
"""Which is next. One file for all processes of a user: a port that one is told of is told again after all others."""


def free_port(count: int = 1) -> int:
    """Return a port of the loopback, TCP and UDP, that nobody has and that nobody else is told of.

    With `count` it is the first of so many in a row.
    """
    with _NEXT.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        port = int(file.read() or _FIRST)
        while port + count - 1 > _LAST or not all(map(_is_free, range(port, port + count))):
            port = port + 1 if port < _LAST else _FIRST
        file.truncate(0)
        file.write(str(port + count if port + count <= _LAST else _FIRST))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        try:
            stream.bind(("127.0.0.1", port))
            datagrams.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
