"""A TCP proxy that is between client and server, and does to the line what it is told to.

It can forbid, cut, swallow, slow down, delay, tear apart and damage. Damage sets the highest bit of a byte that the
server sent, where nearly everything is ASCII: a frame, a head, a chunk's length or a text is then broken for certain.
A damage that leaves a text valid, such as one digit for another, nobody can see without TLS.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from typing import Self

HEAD_MAX_BYTES = 65_536
TORN_MAX_BYTES = 7
DAMAGE_EVERY_MAX_BYTES = 4000
SLICES_PER_S = 20


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
        """Whether nothing is passed on; connections stay open, and those that lost something pass nothing any more."""
        self.rate: int | None = None
        """Bytes a second that each connection passes on each way."""
        self.delay_s = 0.0
        """For how long each piece is held."""
        self.is_torn = False
        """Whether everything is passed on in pieces of a few bytes."""
        self.damages = 0
        """Bytes of the server's that are still to be damaged."""
        self._chance = random.Random(port)
        self._until_damage = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._lost: set[socket.socket] = set()
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
                    for each in (client, server):
                        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    state = {"buffers": False}
                    back = self._start(self._answer, server, client, state)
                    while head and not self._is(self.forbidden, head):
                        state["buffers"] = self._is(self.buffered, head)
                        self._pass(head, server)
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
                if state["buffers"]:
                    data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if data.startswith(b"HTTP/") else b""
                self._pass(self._damaged(data), client)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _pass(self, data: bytes, to: socket.socket) -> None:
        """Pass it on as the line is now; that may change before all of it has gone."""
        while data:
            if self.is_silent or to in self._lost:
                self._lost.add(to)  # what TCP carries has no holes
                return
            rate = self.rate
            if self.is_torn:
                piece = data[: self._chance.randint(1, TORN_MAX_BYTES)]
            else:
                piece = data if rate is None else data[: rate // SLICES_PER_S]
            # These waits are the line's own, which is what is tested: nothing is waited for with them.
            if self.delay_s:
                time.sleep(self.delay_s)
            if rate is not None:
                time.sleep(len(piece) / rate)
            to.sendall(piece)
            data = data[len(piece) :]

    def _damaged(self, data: bytes) -> bytes:
        with self._lock:
            if self.damages == 0 or self.is_silent:
                return data
            if len(data) <= self._until_damage:
                self._until_damage -= len(data)
                return data
            damaged = bytearray(data)
            damaged[self._until_damage] ^= 0x80
            self.damages -= 1
            self._until_damage = self._chance.randrange(DAMAGE_EVERY_MAX_BYTES)
            return bytes(damaged)

    @staticmethod
    def _is(texts: set[str], head: bytes) -> bool:
        line = head.partition(b"\r\n")[0].decode("latin-1")
        return any(text in line for text in texts)
