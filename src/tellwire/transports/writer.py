"""Writing straight to a socket, and knowing when it is full."""

from __future__ import annotations

import asyncio
import os

_write = os.write

SLOT_MAX_BYTES = 16 * 1024
"""What may wait for a server that sends for us (plain ASGI) before a reader counts as one whose socket is full: what a
socket's buffer does under our own. One batch was too little: an ephemeral message behind another was always lost."""

KEPT_MAX_BYTES = 256 * 1024
"""What may wait in the transport's buffer before no more commands are read from a peer that reads no answers."""


def descriptor_of(transport: asyncio.Transport) -> int:
    """Return the descriptor that bytes can be written to past the transport; -1 where they cannot (TLS, Windows)."""
    # Over TLS the bytes on the socket are not ours to make.
    sock = transport.get_extra_info("socket")
    if sock is None or os.name != "posix" or transport.get_extra_info("sslcontext") is not None:
        return -1
    descriptor: int = sock.fileno()
    return descriptor


def write_at_once(transport: asyncio.Transport, data: bytes) -> None:
    """Send bytes now and not at the end of this turn of the loop, where nothing waits in the transport's buffer.

    What comes after them then finds the buffer empty, too.
    """
    fd = descriptor_of(transport)
    if fd < 0 or transport.is_closing() or transport.get_write_buffer_size():
        transport.write(data)
        return
    try:
        taken = _write(fd, data)
    except OSError:  # also one that is full; the transport finds out what to do
        taken = 0
    if taken < len(data):
        transport.write(data[taken:])


class SocketWriter:
    """A transport's sending side: writable means that nothing at all waits in its buffer.

    While nothing waits, bytes go to the socket by ``write(2)`` at once: a third cheaper than ``transport.write``, which
    makes the same system call. What the socket does not take goes to the transport, which then says when it is through.
    """

    __slots__ = ("_fd", "_out", "_pending_max_bytes", "transport", "writable")

    def __init__(self, transport: asyncio.Transport, pending_max_bytes: int = KEPT_MAX_BYTES) -> None:
        self.transport = transport
        self._pending_max_bytes = pending_max_bytes
        self._out: list[bytes] = []  # what goes out at the end of this turn of the loop, or before anything else
        # The descriptor stays open until after the protocol's connection_lost, which clears it here, so that it is
        # never another connection's.
        self._fd = descriptor_of(transport)
        has_tls = transport.get_extra_info("sslcontext") is not None
        # TLS transports take "high" for full, others what is above it: 0 would there be full when it is empty.
        transport.set_write_buffer_limits(high=1 if has_tls else 0)
        # What is left of an answer on this connection goes before anything of ours.
        self.writable = self._fd < 0 or not transport.get_write_buffer_size()

    def write(self, batch: bytes) -> None:
        """Send bytes; clears ``writable`` where the socket did not take them all."""
        if self._out:
            self._out.append(batch)
            batch = b"".join(self._out)
            self._out = []
        if not self.writable or self._fd < 0:
            self.transport.write(batch)
            return
        try:
            taken = _write(self._fd, batch)
        except BlockingIOError:
            taken = 0
        except OSError:
            self.lost()
            self.transport.abort()
            return
        if taken < len(batch):
            self.transport.write(memoryview(batch)[taken:])

    @property
    def is_overfull(self) -> bool:
        """Whether more waits in the buffer than a peer that reads its answers would leave there."""
        return not self.writable and self.transport.get_write_buffer_size() > self._pending_max_bytes

    def lost(self) -> None:
        """Never touch the socket again: its descriptor is about to be somebody else's."""
        self._fd = -1
        self._out = []
        self.writable = False
