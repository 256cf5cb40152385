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


def free_port() -> int:
    """Return a port of the loopback, TCP and UDP, that nobody has and that nobody else is told of."""
    with _NEXT.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        port = int(file.read() or _FIRST)
        while not _is_free(port):
            port = _after(port)
        file.truncate(0)
        file.write(str(_after(port)))
    return port


def _after(port: int) -> int:
    return port + 1 if port < _LAST else _FIRST


def _is_free(port: int) -> bool:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        try:
            stream.bind(("127.0.0.1", port))
            datagrams.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
