"""A TCP proxy that is between client and server, and forbids, cuts and swallows as it is told to."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

HEAD_MAX_BYTES = 65_536


class Proxy:
    """Passes on what comes to a port of its own.

    Args:
        port: Of the server.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.forbidden: set[str] = set()
        """Requests whose first line has one of these texts in it are cut off."""
        self.buffered: set[str] = set()
        """Answers to requests whose first line has one of these in it do not get past their head."""
        self.is_silent = False
        """Whether nothing is passed on; the connections stay open."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [self._start(self._accept)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    @staticmethod
    def _start(run: object, *args: object) -> threading.Thread:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]  # any callable
        thread.start()
        return thread

    def cut(self) -> None:
        """Cut every connection."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.add(client)
            self._threads.append(self._start(self._serve, client))

    def _serve(self, client: socket.socket) -> None:
        """Pass on requests one by one, each by what its first line says."""
        with client:
            try:
                head = client.recv(HEAD_MAX_BYTES)
                if not head or self._is(self.forbidden, head):
                    return
                with socket.create_connection(("127.0.0.1", self.upstream)) as server:
                    with self._lock:
                        self._sockets.add(server)
                    state = {"buffers": False}
                    back = self._start(self._answer, server, client, state)
                    while head and not self._is(self.forbidden, head):
                        state["buffers"] = self._is(self.buffered, head)
                        if not self.is_silent:
                            server.sendall(head)
                        head = client.recv(HEAD_MAX_BYTES)
                    server.shutdown(socket.SHUT_RDWR)
                    back.join()
            except OSError:
                pass
            finally:
                with self._lock:
                    self._sockets.discard(client)

    def _answer(self, server: socket.socket, client: socket.socket, state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(HEAD_MAX_BYTES):
                if self.is_silent:
                    continue
                if state["buffers"]:
                    data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if data.startswith(b"HTTP/") else b""
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _is(texts: set[str], head: bytes) -> bool:
        line = head.partition(b"\r\n")[0].decode("latin-1")
        return any(text in line for text in texts)
