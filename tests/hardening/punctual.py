"""Clients that have to be quicker than a server's deadline, on a machine that may let them stand still meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.wires import Closed, Connection

Wire = TypeVar("Wire", bound=Connection)


def in_time(deadline_s: float, connect: Callable[[], Wire], ask: Callable[[Wire], object]) -> Wire:
    """Return a connection over which something was asked within `deadline_s` of its beginning, by the test's own clock.

    Where it was the test that stood still for longer, the server is right to have closed: then it is done once more.
    """
    while True:
        began = time.monotonic()
        wire: Wire | None = None
        try:
            wire = connect()
            ask(wire)
        except (Closed, OSError):
            if time.monotonic() - began < deadline_s:
                raise
        else:
            if time.monotonic() - began < deadline_s:
                return wire
        if wire is not None:
            wire.close()
