"""The lease that a node has for all of its members (decision 15), and those of nodes that died."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from tellwire.errors import TellwireError
from tellwire.node.departures import NAMELESS
from tellwire.node.roster import ROSTER
from tellwire.presence import Member

if TYPE_CHECKING:
    from tellwire.node.steward import Node

SWEEPS_PER_LEASE = 3
"""How often a node renews its lease, and looks for dead ones, while one lasts."""

_log = logging.getLogger("tellwire")


async def keep_lease(node: Node) -> None:
    """Renew a node's lease on its members, for ever."""
    while True:
        try:
            if not await node.presence.beat():
                await node.members.enter_again()
        except TellwireError as exc:
            node.hub.report("this node's lease could not be renewed; it is tried again", exc)
        await asyncio.sleep(node.limits.node_lease_s / SWEEPS_PER_LEASE)


async def sweep(node: Node) -> None:
    """Tell of the members of nodes that have died, for ever."""
    swept: deque[Member] = deque()  # taken out of the store, so that nobody else tells of them
    while True:
        try:
            while swept or (found := await node.presence.sweep()):
                if not swept:
                    swept += found
                await _swept(node, swept[0])
                swept.popleft()
        except TellwireError as exc:
            node.hub.report("members of a dead node could not be told of; it is tried again", exc)
        await asyncio.sleep(node.limits.node_lease_s / SWEEPS_PER_LEASE)


async def _swept(node: Node, member: Member) -> None:
    if member.channel == ROSTER:
        _log.warning("the node %s was not heard of for its lease; its members are taken to have left", member.client)
        return
    if member.channel == NAMELESS:
        await node.departures.tell(member, None, "its node died")
    else:
        await node.members.telling.tell("leave", member)
    node.counters.presence_sweeps += 1
