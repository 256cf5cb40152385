"""Servers that tell what they hold, so that a test can see that nothing is left of who has gone."""

from __future__ import annotations

import time
from typing import Any

import psutil

from tests.serving import WATCHDOG_S, Server
from tests.wires import Http

COMES_AND_GOES = (
    "subscribers", "readings", "tails", "beating", "holds", "holders", "leased", "counting", "members", "rooms",
    "connections", "unknown", "addresses", "users", "node_tasks", "tasks", "timers", "files", "internal",
)  # fmt: skip
"""What must be as it was once all have left; the other figures are of what is kept on purpose, within bounds."""


class WatchedServer(Server):
    """A server with a page of what it holds (see tests.soak.serve)."""

    program = "tests.soak.serve"

    def look(self, wire: Http, query: str = "") -> dict[str, Any]:
        """Return what there is, over a connection to this server."""
        answer = wire.get(f"/figures{query}")
        assert answer.status == 200, answer
        return {**answer.json(), "rss": self.rss, "files": psutil.Process(self.pid).num_fds()}

    def look_until_empty(self, wire: Http, before: dict[str, Any]) -> dict[str, Any]:
        """Look until everything is gone that came since `before`; leases and grace have to run out first."""
        deadline = time.monotonic() + WATCHDOG_S
        while True:
            figures = self.look(wire)
            left = {name: figures[name] for name in COMES_AND_GOES if figures[name] != before[name]}
            if not left:
                return figures
            assert time.monotonic() < deadline, f"{left} is left of {self.look(wire, '?kinds')}"
