"""Three nodes in processes of their own, and what their readers and publishers have in common."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from tests.ports import free_port
from tests.serving import Server
from tests.wires import WATCHDOG_S, At

PACE_S = 0.02
"""Between two publishes of one publisher: what the load is, not what anybody waits for."""
BREATH_S = 0.1
"""Before somebody whom a node did not serve asks the next one."""

TRANSIENT = frozenset({"unavailable", "draining", "connection_lost", "timeout"})
"""Codes of errors after which the same may be tried again."""

BEGIN, END = "begin", "end"
"""What is said before and after everything; the rest are numbers."""

UNAVAILABLE = "tellwire.errors.Unavailable"

FAULT = re.compile(
    r"^(\w[\w.]*(?:Error|Exception|Unavailable|Closed))\b.*$(?!\n\n(?:The above exception|During handling))",
    re.MULTILINE,
)
"""The last line of a traceback, unless another exception came of it."""


class Nodes:
    """Three nodes on one log, each in a process of its own; one that has ended is started again on its port."""

    def __init__(self, urls: Sequence[str], **limits: Any) -> None:
        self._urls = urls
        # Hundreds who come at once may take longer for their requests than a server waits for them otherwise.
        self._limits = {"drain_s": 0.1, "head_s": WATCHDOG_S, "connect_s": WATCHDOG_S, **limits}
        self.servers = [self._start(url, free_port()) for url in urls]
        self.addresses = [At(server.port) for server in self.servers]

    def _start(self, url: str, port: int) -> Server:
        """Start one as what watches over it would: again, where the broker did not answer within the second it has."""
        deadline = time.monotonic() + WATCHDOG_S
        while True:
            try:
                return Server(
                    server={"port": port, "broker": url},
                    limits=self._limits,
                    namespaces=[{"name": "default", "history_messages": 100_000}],
                )
            except RuntimeError as exc:
                if UNAVAILABLE not in str(exc) or time.monotonic() > deadline:
                    raise

    def start_again(self, place: int) -> None:
        """Start a node that has ended."""
        former = self.servers[place]
        self.servers[place] = self._start(self._urls[place], former.port)
        former.close()

    def close(self) -> None:
        """End all, which have to end well."""
        try:
            for server in self.servers:
                assert "never retrieved" not in server.log, server.log[-5000:]
                # A beat that fails while the broker is away is told of at length; nothing else is to fail.
                unknown = [fault for fault in FAULT.findall(server.log) if fault != UNAVAILABLE]
                assert not unknown, (unknown, server.log[-5000:])
        finally:
            for server in self.servers:
                server.close()
