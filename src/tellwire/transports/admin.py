"""The operator's part: who is connected, what is read, who lags; publishing, disconnecting, revoking."""

from __future__ import annotations

import heapq
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tellwire import __version__
from tellwire.errors import BadRequest
from tellwire.message import Appended
from tellwire.node import Caller, Node, caller_of, check_count
from tellwire.protocol.commands import Publish
from tellwire.protocol.internal import is_internal
from tellwire.subscriber import Subscriber
from tellwire.transports.publishing import PublishEndpoint
from tellwire.transports.requests import (
    Answer,
    Decoders,
    Endpoint,
    Query,
    RawHeaders,
    Receive,
    Scope,
    Send,
    read_command,
)

LISTED = 100
"""Connections or channels in one answer, where the request does not say."""

NAMED_MAX = 100
"""Channels named for one connection; how many there are is told beside them."""

BODY_MAX_BYTES = 65_536

Handler = Callable[[Node, Scope, Receive], Awaitable[Any]]


class AdminEndpoint(Endpoint):
    """One operation of operators; whoever asks needs it among their ``admin`` grants."""

    transport = "admin"

    def __init__(self, node: Node, operation: str, handler: Handler) -> None:
        super().__init__(node)
        self._operation = operation
        self._handler = handler

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        await self.node.allow(caller, "admin", [self._operation])
        answer = await self._handler(self.node, scope, receive)
        return Answer(200, msgspec.json.encode(answer))


class AdminPublishEndpoint(PublishEndpoint):
    """``POST /v1/admin/publish``: to any channel, past the application's handlers."""

    transport = "admin"

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        await self.node.allow(caller, "admin", ["publish"])
        return await super().respond(scope, receive, send, extra, caller)

    async def publish(self, command: Publish, caller: Caller, *, packed: bool) -> Appended:
        return await self.node.publish_own(command, packed=packed)


async def show_stats(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return the figures of this node: what is open, what was done, and how fast, over the last ten seconds."""
    counters = node.counters
    lagging = sum(1 for subscriber in node.hub.subscribers if _lag(subscriber))
    return {
        "node": node.name,
        "version": __version__,
        "uptime_s": round(time.time() - counters.started_at, 1),
        "epoch": node.hub.epoch,
        "connections": {name: count for name, count in counters.connections.items() if count},
        "channels": sum(1 for tail in node.hub.tails if not is_internal(tail.channel)),
        "lagging": lagging,
        "published": counters.published_messages,
        "delivered": counters.delivered_messages,
        "rates": counters.rates(),
    }


async def list_connections(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return connections, those that lag most first: of all, of a user, a client or a channel."""
    query = Query(scope)
    limit = _limit(query)
    user, client = query.text("user"), query.text("client")
    channel = query.channels[0] if query.channels else None
    matching = [
        subscriber
        for subscriber in node.hub.subscribers
        if isinstance(subscriber.caller, Caller)
        and (user is None or caller_of(subscriber).user == user)
        and (client is None or subscriber.client == client)
        and (channel is None or channel in subscriber.channels)
    ]
    return {"connections": [_describe(s) for s in heapq.nlargest(limit, matching, key=_lag)], "total": len(matching)}


def _describe(subscriber: Subscriber) -> dict[str, Any]:
    caller = caller_of(subscriber)
    names = [name for name in subscriber.channels if not is_internal(name)]
    return {
        "client": caller.client,
        "user": caller.user,
        "transport": caller.transport,
        "address": caller.address,
        "since": int(caller.since * 1000),
        "channels": names[:NAMED_MAX],
        "channel_count": len(names),
        "lag": _lag(subscriber),
    }


def _lag(subscriber: Subscriber) -> int:
    """Return by how many places of the log a reader is behind."""
    if not subscriber.channels or (subscriber.live and not subscriber.joining):
        return 0
    return max(0, subscriber.hub.flushed - subscriber.cursor.seq)


async def list_channels(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return the channels that are read on this node, those with the most readers first, and who is in them."""
    query = Query(scope)
    prefix = query.text("prefix") or ""
    tails = [t for t in node.hub.tails if t.channel.startswith(prefix) and not is_internal(t.channel)]
    listed = heapq.nlargest(_limit(query), tails, key=lambda tail: tail.readers)
    lags = _lags(node, {tail.channel for tail in listed})
    channels = []
    for tail in listed:
        counts = await node.presence.count(tail.channel)
        channels.append(
            {
                "channel": tail.channel,
                "readers": tail.readers,
                "members": counts.clients,
                "users": counts.users,
                "lag_max": lags.get(tail.channel, 0),
            }
        )
    return {"channels": channels, "total": len(tails)}


def _lags(node: Node, channels: set[str]) -> dict[str, int]:
    lags: dict[str, int] = {}
    for subscriber in node.hub.subscribers:
        lag = _lag(subscriber)
        if lag:
            for name in channels.intersection(subscriber.channels):
                lags[name] = max(lag, lags.get(name, 0))
    return lags


class _Disconnect(msgspec.Struct):
    user: str | None = None
    client: str | None = None
    reason: str = ""
    reconnect: bool = True


class _Revoke(msgspec.Struct):
    user: str | None = None
    token_id: str | None = None


_DISCONNECT = Decoders(_Disconnect, "disconnect")
_REVOKE = Decoders(_Revoke, "revoke")


async def disconnect(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Close the connections of a user or a client, on all nodes."""
    order, _ = await read_command(scope, receive, BODY_MAX_BYTES, _DISCONNECT)
    _need_one(user=order.user, client=order.client)
    await node.control.disconnect(user=order.user, client=order.client, reason=order.reason, comes_back=order.reconnect)
    return {}


async def revoke(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Refuse a user's tokens up to now, or one token, and close its connections, on all nodes."""
    order, _ = await read_command(scope, receive, BODY_MAX_BYTES, _REVOKE)
    _need_one(user=order.user, token_id=order.token_id)
    await node.control.revoke(user=order.user, token_id=order.token_id)
    return {}


def _need_one(**given: str | None) -> None:
    if sum(value is not None for value in given.values()) != 1:
        raise BadRequest(f"give one of {' and '.join(given)}")


def _limit(query: Query) -> int:
    limit = query.integer("limit")
    return LISTED if limit is None else check_count("limit", limit, least=1)


def admin_doors(node: Node) -> dict[str, dict[str, Any]]:
    """Return the operator's paths, with what answers each of their methods."""
    reading: dict[str, Handler] = {"stats": show_stats, "connections": list_connections, "channels": list_channels}
    doing: dict[str, Handler] = {"disconnect": disconnect, "revoke": revoke}
    doors: dict[str, dict[str, Any]] = {
        f"/v1/admin/{name}": {"GET": AdminEndpoint(node, name, handler)} for name, handler in reading.items()
    }
    doors |= {f"/v1/admin/{name}": {"POST": AdminEndpoint(node, name, handler)} for name, handler in doing.items()}
    doors["/v1/admin/publish"] = {"POST": AdminPublishEndpoint(node)}
    return doors
