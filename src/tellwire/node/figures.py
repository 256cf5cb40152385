"""What a node can tell an operator of itself: its figures, its connections, its channels.

Nothing is kept for it: all is found out at the moment it is asked for, from what is there to serve readers.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tellwire.counters import RATES_OVER_S
from tellwire.log import Tail
from tellwire.node.callers import Caller, caller_of
from tellwire.protocol.internal import is_internal
from tellwire.subscriber import Subscriber

if TYPE_CHECKING:
    from tellwire.node.steward import Node

LISTED = 100
"""Connections or channels in one answer, where the request does not say."""

NAMED_MAX = 100
"""Channels named for one connection; how many there are is told beside them."""

BREATH = 2000
"""Channels or connections looked at before the node goes on with its readers."""

Figures = dict[str, Any]


class ConnectionsWanted(msgspec.Struct, omit_defaults=True):
    """Which connections are asked for: of all, of a user, a client or a channel."""

    user: str | None = None
    client: str | None = None
    channel: str | None = None
    limit: int = LISTED


class ChannelsWanted(msgspec.Struct, omit_defaults=True):
    """Which channels are asked for."""

    prefix: str = ""
    sort: Literal["readers", "rate", "lag"] = "readers"
    limit: int = LISTED


def stats_of(node: Node) -> Figures:
    """Return what is open, what was done, and how fast, over the last ten seconds."""
    counters = node.counters
    lags = [lag for subscriber in node.hub.subscribers if (lag := lag_of(subscriber))]
    return {
        **node.roster.card(),
        "uptime_s": round(time.time() - counters.started_at, 1),
        "epoch": node.hub.epoch,
        "ready": node.ready,
        "draining": node.draining,
        "connections": {name: count for name, count in counters.connections.items() if count},
        "channels": sum(1 for tail in node.hub.tails if not is_internal(tail.channel)),
        "lagging": len(lags),
        "lag_max": max(lags, default=0),
        "published": counters.published_messages,
        "delivered": counters.delivered_messages,
        "rates": counters.rates(),
    }


async def connections_of(node: Node, wanted: ConnectionsWanted) -> tuple[list[Figures], int]:
    """Return connections, those that lag most first, and how many fit."""
    matching = [
        subscriber
        for subscriber in node.hub.subscribers
        if isinstance(subscriber.caller, Caller)
        and (wanted.user is None or caller_of(subscriber).user == wanted.user)
        and (wanted.client is None or subscriber.client == wanted.client)
        and (wanted.channel is None or wanted.channel in subscriber.channels)
    ]
    listed = []
    for number, subscriber in enumerate(heapq.nlargest(wanted.limit, matching, key=lag_of)):
        if number % BREATH == BREATH - 1:
            await asyncio.sleep(0)
        if not subscriber.closed:
            listed.append(_describe(node, subscriber))
    return listed, len(matching)


def _describe(node: Node, subscriber: Subscriber) -> Figures:
    caller = caller_of(subscriber)
    names = [name for name in subscriber.channels if not is_internal(name)]
    lag = lag_of(subscriber)
    messages, age_ms = _missing(subscriber) if lag else (0, 0)
    return {
        "node": node.name,
        "client": caller.client,
        "user": caller.user,
        "transport": caller.transport,
        "address": caller.address,
        "since": int(caller.since * 1000),
        "channels": names[:NAMED_MAX],
        "channel_count": len(names),
        "lag": lag,
        "lag_messages": messages,
        "lag_ms": age_ms,
    }


def lag_of(subscriber: Subscriber) -> int:
    """Return by how many places of the log a reader is behind."""
    if not subscriber.channels or (subscriber.live and not subscriber.joining):
        return 0
    return max(0, subscriber.hub.flushed - subscriber.cursor.seq)


def _missing(subscriber: Subscriber) -> tuple[int, int]:
    """Return how many messages a reader has not had, and for how long, in ms, the oldest of them has waited.

    As far as this node keeps them: for a reader that is farther behind than that, both are at least so much.
    """
    messages = 0
    oldest_ms = now_ms = int(time.time() * 1000)
    for name, subscription in subscriber.channels.items():
        count, first = subscription.tail.run.behind(subscriber.joining.get(name, subscriber.place))
        messages += count
        if first is not None:
            oldest_ms = min(oldest_ms, first.message.time)
    return messages, now_ms - oldest_ms


async def channels_of(node: Node, wanted: ChannelsWanted) -> tuple[list[Figures], int]:
    """Return the channels that are read, those with the most readers, messages or lag first, and how many fit."""
    tails = [t for t in node.hub.tails if t.channel.startswith(wanted.prefix) and not is_internal(t.channel)]
    now_ms = int(time.time() * 1000)
    rates: dict[str, float] = {}
    lags: dict[str, int] = {}
    if wanted.sort == "lag":
        lags = _lags(node, {tail.channel for tail in tails})
        listed = heapq.nlargest(wanted.limit, tails, key=lambda tail: (lags.get(tail.channel, 0), tail.readers))
    elif wanted.sort == "rate":
        for number, tail in enumerate(tails):
            if number % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            rates[tail.channel] = rate_of(tail, now_ms)
        listed = heapq.nlargest(wanted.limit, tails, key=lambda tail: (rates[tail.channel], tail.readers))
    else:
        listed = heapq.nlargest(wanted.limit, tails, key=lambda tail: tail.readers)
    rates = rates or {tail.channel: rate_of(tail, now_ms) for tail in listed}
    lags = lags or _lags(node, {tail.channel for tail in listed})
    return [
        {
            "channel": tail.channel,
            "readers": tail.readers,
            "rate": rates[tail.channel],
            "lag_max": lags.get(tail.channel, 0),
        }
        for tail in listed
    ], len(tails)


def rate_of(tail: Tail, now_ms: int) -> float:
    """Return how many messages with a place a channel got in a second, over the last ten; from those still kept."""
    begin_ms = now_ms - RATES_OVER_S * 1000
    count, first = tail.run.newest(lambda entry: entry.message.time < begin_ms)
    if first is None:
        return 0.0
    # Where the bound in bytes has dropped older ones, what is left stands for a shorter time.
    over_s = RATES_OVER_S if len(tail.run) > count else max(1.0, (now_ms - first.message.time) / 1000)
    return round(count / over_s, 1)


def _lags(node: Node, channels: set[str]) -> dict[str, int]:
    lags: dict[str, int] = {}
    for subscriber in node.hub.subscribers:
        lag = lag_of(subscriber)
        if lag:
            for name in channels.intersection(subscriber.channels):
                lags[name] = max(lag, lags.get(name, 0))
    return lags
