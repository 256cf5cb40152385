"""How a worker asks the others of its server for their metrics, by descriptors that it was born with.

Each worker has a mailbox that all others can write to. What is put there is an end of a fresh socket, into which the
owner writes what it counts. There is no name, port or file that anybody else could open, and it works while the broker
is away, which is when metrics are looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping

ANSWER_S = 1.0
"""Seconds in which another worker has to answer; one that is being started does not."""

ANSWER_MAX_BYTES = 4 * 1024 * 1024


class Mailbox:
    """A pair of sockets: what is put into ``slot`` comes out of ``inside``."""

    def __init__(self) -> None:
        self.inside, self.slot = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def close(self) -> None:
        self.inside.close()
        self.slot.close()


class Exchange:
    """One worker's part.

    Args:
        worker: Its number.
        inside: Where questions come to it.
        slots: Where questions to the others go, by their numbers.
    """

    def __init__(self, worker: int, inside: socket.socket, slots: Mapping[int, socket.socket]) -> None:
        self._worker = worker
        self._inside = inside
        self._slots = slots
        self._tasks: set[asyncio.Task[None]] = set()
        for each in (inside, *slots.values()):
            each.setblocking(False)

    def open(self, tell: Callable[[], bytes]) -> None:
        """Answer from now on with what `tell` returns."""
        asyncio.get_running_loop().add_reader(self._inside, self._answer, tell)

    def _answer(self, tell: Callable[[], bytes]) -> None:
        while True:
            try:
                _, descriptors, _, _ = socket.recv_fds(self._inside, 1, 1)
            except BlockingIOError:
                return
            for descriptor in descriptors:
                task = asyncio.get_running_loop().create_task(self._write(socket.socket(fileno=descriptor), tell()))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _write(self, end: socket.socket, data: bytes) -> None:
        with end, contextlib.suppress(OSError, TimeoutError):
            end.setblocking(False)
            async with asyncio.timeout(ANSWER_S):
                await asyncio.get_running_loop().sock_sendall(end, data)

    async def collect(self) -> dict[int, bytes]:
        """Return what the other workers tell, of those that do so in time."""
        others = [worker for worker in self._slots if worker != self._worker]
        told = await asyncio.gather(*(self._ask(self._slots[worker]) for worker in others))
        return {worker: data for worker, data in zip(others, told, strict=True) if data}

    async def _ask(self, slot: socket.socket) -> bytes:
        mine, theirs = socket.socketpair()
        with mine:
            mine.setblocking(False)
            with theirs:
                try:
                    socket.send_fds(slot, [b"?"], [theirs.fileno()])
                except OSError:
                    return b""  # it has not looked into its mailbox for long
            loop = asyncio.get_running_loop()
            pieces: list[bytes] = []
            try:
                async with asyncio.timeout(ANSWER_S):
                    while (piece := await loop.sock_recv(mine, 65_536)) and len(pieces) * 65_536 < ANSWER_MAX_BYTES:
                        pieces.append(piece)
            except (OSError, TimeoutError):
                return b""
            return b"".join(pieces)
