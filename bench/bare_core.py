"""Tellwire without what came after its core: ``bare_core.py PORT`` serves it, for comparison with the whole.

A publish goes from the wire to the log with the checks of its fields and nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

import tellwire.server.assembly
from tellwire.config import Server, Settings
from tellwire.limits import Limits
from tellwire.names import check_channel
from tellwire.node import Node
from tellwire.node.drafts import make_draft
from tellwire.protocol.commands import AnyCommand, Publish
from tellwire.protocol.pushes import Published
from tellwire.server import run
from tellwire.subscriber import Subscriber


class BareNode(Node):
    """A node that asks nobody: no rights, no buckets, no hooks, no counters on a publish."""

    publishes_wait = False

    async def handle(self, subscriber: Subscriber, command: AnyCommand, reply: Any, *, packed: bool) -> None:
        if type(command) is not Publish:
            await super().handle(subscriber, command, reply, packed=packed)
            return
        channel = check_channel(command.channel)
        draft = make_draft(command, self.namespaces.of(channel), None, packed=packed)
        appended = await self.broker.append(draft)
        reply(Published(str(appended.position) if appended.position else None, appended.duplicate, command.ref))


def main() -> None:
    """Serve until SIGTERM."""
    tellwire.server.assembly.Node = BareNode  # type: ignore[attr-defined]  # what makes it, not where it is from
    settings = Settings(server=Server(port=int(sys.argv[1]), log_level="warning"), limits=Limits())
    run(settings, lambda url: None)


if __name__ == "__main__":
    main()
