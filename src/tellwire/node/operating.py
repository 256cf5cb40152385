"""What operators can have every node do: look, cut off, take out of a channel, drain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from tellwire.node.callers import Caller
from tellwire.node.control import DisconnectWanted
from tellwire.node.figures import (
    ChannelsWanted,
    ConnectionsWanted,
    channels_of,
    connections_of,
    stats_of,
)
from tellwire.node.roster import Roster
from tellwire.protocol.encodings import OBJECTS
from tellwire.protocol.pushes import Unsubscribed
from tellwire.subscriber import Subscriber

if TYPE_CHECKING:
    from tellwire.node.steward import Node

Answer = tuple[Any, Iterable[Any]]


class UnsubscribeWanted(msgspec.Struct, omit_defaults=True):
    """Which readings are to end: those of a channel, of a user or a client."""

    channel: str
    user: str | None = None
    client: str | None = None


class DrainWanted(msgspec.Struct, omit_defaults=True):
    """Whether the whole server is meant, or only the node that is asked, a worker of it."""

    whole: bool = True


async def _stats(node: Node, wanted: bytes) -> Answer:
    return stats_of(node), ()


async def _connections(node: Node, wanted: bytes) -> Answer:
    listed, total = await connections_of(node, msgspec.json.decode(wanted, type=ConnectionsWanted))
    return {"count": total}, listed


async def _channels(node: Node, wanted: bytes) -> Answer:
    listed, total = await channels_of(node, msgspec.json.decode(wanted, type=ChannelsWanted))
    return {"count": total}, listed


async def _disconnect(node: Node, wanted: bytes) -> Answer:
    order = msgspec.json.decode(wanted, type=DisconnectWanted)
    return {"count": node.control.disconnect_here(order)}, ()


async def _unsubscribe(node: Node, wanted: bytes) -> Answer:
    order = msgspec.json.decode(wanted, type=UnsubscribeWanted)
    count = 0
    for subscriber in list(node.hub.subscribers):
        caller: object = subscriber.caller
        if (
            isinstance(caller, Caller)
            and caller.identity is not None
            and (order.user is None or caller.user == order.user)
            and (order.client is None or caller.client == order.client)
        ):
            count += await end_reading(node, subscriber, order.channel)
    return {"count": count}, ()


async def end_reading(node: Node, subscriber: Subscriber, channel: str) -> bool:
    """End a connection's reading of a channel and what goes with it, and tell it; False where there was none.

    A poll has none: it asks anew each time.
    """
    if subscriber.encoding is OBJECTS:
        return False
    ended = node.hub.unsubscribe(subscriber, channel)
    await node.members.expel(subscriber, channel)
    if ended and not subscriber.closed:
        # A stream stays open even with nothing to read: an EventSource would come back with the same address at once.
        subscriber.door.write(subscriber.encoding.push(Unsubscribed(channel, None, "forbidden")))
    return ended


async def _drain(node: Node, wanted: bytes) -> Answer:
    node.on_stop(msgspec.json.decode(wanted, type=DrainWanted).whole)
    return {"count": sum(node.counters.connections.values())}, ()


def answer_questions(roster: Roster) -> None:
    """Have a node answer what operators ask of all of them."""
    roster.answer_with("stats", _stats)
    roster.answer_with("connections", _connections)
    roster.answer_with("channels", _channels)
    roster.answer_with("disconnect", _disconnect)
    roster.answer_with("unsubscribe", _unsubscribe)
    roster.answer_with("drain", _drain)
