"""The sockets on which workers listen: one for each, on one port.

On Linux each worker has a socket of its own (SO_REUSEPORT), and the kernel spreads connections over them evenly. Of one
socket that all share, whoever wakes first takes whatever waits, so that long-lived connections pile up in one worker
(decision 18). Elsewhere SO_REUSEPORT does not spread, and they do share one.
"""

from __future__ import annotations

import socket
import sys

BACKLOG = 4096

SPREADS = sys.platform == "linux"


class Listeners:
    """The sockets of all workers. The supervisor keeps them, so that what waits in one outlives its worker.

    Args:
        host: Address to listen on, or a name of some.
        port: Port; 0 takes a free one.
        workers: How many there are.
    """

    def __init__(self, host: str, port: int, workers: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self._places = list(dict.fromkeys((family, address[:2]) for family, _, _, _, address in found))
        self._port = port
        self._of: list[list[socket.socket]] = []
        try:
            for worker in range(workers):
                self._of.append(self._of[0] if worker and not SPREADS else self._open())
        except BaseException:
            self.close()
            raise

    def _open(self) -> list[socket.socket]:
        opened: list[socket.socket] = []
        try:
            for family, (host, _) in self._places:
                listener = socket.socket(family, socket.SOCK_STREAM)
                opened.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if SPREADS:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((host, self._port))
                self._port = listener.getsockname()[1]
                listener.listen(BACKLOG)
        except BaseException:
            for listener in opened:
                listener.close()
            raise
        return opened

    def of(self, worker: int) -> list[socket.socket]:
        """Return the sockets of a worker, numbered from 0."""
        if not self._of[worker]:
            self._of[worker] = self._open()
        return self._of[worker]

    def close_of(self, worker: int) -> None:
        """Have the others get what would come to a worker that is away for long; what waits for it is cut."""
        if SPREADS:
            for listener in self._of[worker]:
                listener.close()
            self._of[worker] = []

    def close(self) -> None:
        """Take no more connections; may be called twice."""
        for listeners in self._of:
            for listener in listeners:
                listener.close()
