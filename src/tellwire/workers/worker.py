"""What a worker's process runs: ``python -m tellwire.workers.worker FD``, and nobody starts it by hand.

The descriptor is a socket to the supervisor. It brings what the worker has to know, as one line; the worker says on it
that it is ready, that it begins to stop, or that all have to; and its end is the supervisor's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from tellwire.config import Settings
from tellwire.limits import Limits
from tellwire.node import Title
from tellwire.workers.exchange import Exchange

ORPHAN_S = 20.0
"""Seconds beyond the drain after which a worker without a supervisor ends, however it stands."""


class Orders(msgspec.Struct):
    """What a worker is told: its number (from 1), its server's name, its settings, and its descriptors."""

    worker: int
    server: str
    settings: Settings
    listeners: list[int]
    inside: int
    slots: dict[int, int]


class Line:
    """The line to the supervisor."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def read_orders(self) -> Orders:
        """Wait for what this worker has to know."""
        text = bytearray()
        while not text.endswith(b"\n"):
            piece = self._end.recv(65_536)
            if not piece:
                sys.exit(0)  # it has gone before it said anything
            text += piece
        return msgspec.json.decode(bytes(text), type=Orders)

    def say(self, word: str) -> None:
        """Tell the supervisor something; one that has gone need not know."""
        with contextlib.suppress(OSError):
            self._end.sendall(word.encode() + b"\n")

    def end_with(self, limits: Limits) -> None:
        """Stop as on SIGTERM when the supervisor is gone."""

        def watch() -> None:
            with contextlib.suppress(OSError):
                while self._end.recv(1):
                    pass
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(limits.stop_s + ORPHAN_S)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def main(set_up_logging: Callable[[Settings, int], None]) -> None:
    """Serve as a worker until the supervisor says SIGTERM, or is gone."""
    # Until the server has handlers of its own, both end this process without a word, Ctrl-C in a terminal too.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    line = Line(socket.socket(fileno=int(sys.argv[1])))
    orders = line.read_orders()
    settings = orders.settings
    set_up_logging(settings, orders.worker)
    line.end_with(settings.limits)

    from tellwire.errors import TellwireError
    from tellwire.server import Part, run

    exchange = Exchange(
        orders.worker,
        socket.socket(fileno=orders.inside),
        {worker: socket.socket(fileno=slot) for worker, slot in orders.slots.items()},
    )
    part = Part(
        Title(orders.server, orders.worker),
        [socket.socket(fileno=listener) for listener in orders.listeners],
        lambda whole: line.say("stop" if whole else "draining"),
        exchange.collect,
        exchange.open,
    )
    try:
        run(settings, lambda _: line.say("ready"), part)
    except (TellwireError, ValueError) as exc:
        line.say(f"failed {exc}".replace("\n", " "))
        sys.exit(1)
