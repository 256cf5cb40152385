"""The operator's part: nodes, connections, channels, members; publishing, cutting off, revoking, draining."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec

from tellwire.errors import BadRequest
from tellwire.message import Appended
from tellwire.names import check_channel
from tellwire.node import (
    DEADLINE_S,
    Answers,
    Caller,
    ChannelsWanted,
    ConnectionsWanted,
    DisconnectWanted,
    DrainWanted,
    Known,
    Node,
    UnsubscribeWanted,
    check_count,
    stats_of,
)
from tellwire.presence import Member
from tellwire.protocol.commands import Publish
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
"""Nodes, connections, channels or members in one answer, where the request does not say."""

DEADLINE_MAX_S = 10.0
"""Most seconds in which other nodes have to answer; those that do not are named in the answer."""

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


# Looking


async def show_stats(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return the figures of this node."""
    return stats_of(node)


async def list_nodes(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return all nodes with their figures, those that do not answer with what they said last."""
    answers = await _ask(node, "stats", None, Query(scope))
    nodes = [{**said.head, "answered": True} for said in answers.said]
    nodes += [{**each.said, **each.card, **_silent(each), "answered": False} for each in answers.unanswered]
    nodes.sort(key=lambda each: (str(each.get("name")), each.get("started", 0)))
    return {"nodes": nodes, **_unanswered(answers)}


async def list_connections(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return connections, those that lag most first: of all, of a user, a client or a channel."""
    query = Query(scope)
    channel = query.channels[0] if query.channels else None
    wanted = ConnectionsWanted(query.text("user"), query.text("client"), channel, _limit(query))
    answers = await _ask(node, "connections", wanted, query)
    listed = (connection for said in answers.said for connection in said.items)
    return {
        "connections": heapq.nlargest(wanted.limit, listed, key=lambda connection: cast(int, connection["lag"])),
        "total": sum(said.head["count"] for said in answers.said),
        **_unanswered(answers),
    }


async def list_channels(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return the channels that are read, those with the most readers, messages or lag first, and who is in them."""
    query = Query(scope)
    sort = query.choice("sort", ("readers", "rate", "lag")) or "readers"
    field = "lag_max" if sort == "lag" else sort
    wanted = ChannelsWanted(query.text("prefix") or "", cast(Any, sort), _limit(query))
    answers = await _ask(node, "channels", wanted, query)
    channels: dict[str, dict[str, Any]] = {}
    for said in answers.said:
        for one in said.items:
            sum_ = channels.setdefault(one["channel"], {**one, "readers": 0, "nodes": 0})
            sum_["readers"] += one["readers"]
            sum_["nodes"] += 1
            # Every node that reads it sees all of its messages.
            sum_["rate"] = max(sum_["rate"], one["rate"])
            sum_["lag_max"] = max(sum_["lag_max"], one["lag_max"])
    listed = heapq.nlargest(wanted.limit, channels.values(), key=lambda one: (one[field], one["readers"]))
    for one in listed:
        counts = await node.presence.count(one["channel"])
        one |= {"members": counts.clients, "users": counts.users}
    # A channel that two nodes read is one; where a node has more than it lists, there are at least so many.
    total = max([len(channels), *(said.head["count"] for said in answers.said)])
    return {"channels": listed, "total": total, **_unanswered(answers)}


async def list_members(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Return who is in a channel, those that entered first at the beginning, and which node holds them."""
    query = Query(scope)
    (channel,) = query.channels if len(query.channels) == 1 else [None]
    if channel is None:
        raise BadRequest("presence is that of one channel; give ?channel=NAME, once")
    check_channel(channel)
    counts = await node.presence.count(channel)
    members = await node.presence.members(channel, _limit(query))
    return {
        "channel": channel,
        "clients": counts.clients,
        "users": counts.users,
        "members": [_show(member) for member in members],
    }


def _show(member: Member) -> dict[str, Any]:
    return {
        "client": member.client,
        "user": member.user,
        "node": member.node,
        "since": member.since,
        "info": None if member.info is None else msgspec.Raw(member.info),
        "state": None if member.state is None else msgspec.Raw(member.state),
    }


# Doing


class _Disconnect(msgspec.Struct):
    user: str | None = None
    client: str | None = None
    reason: str = ""
    reconnect: bool = True


class _Unsubscribe(msgspec.Struct):
    channel: str
    user: str | None = None
    client: str | None = None


class _Revoke(msgspec.Struct):
    user: str | None = None
    token_id: str | None = None


class _Drain(msgspec.Struct):
    node: str | None = None


_DISCONNECT = Decoders(_Disconnect, "disconnect")
_UNSUBSCRIBE = Decoders(_Unsubscribe, "unsubscribe")
_REVOKE = Decoders(_Revoke, "revoke")
_DRAIN = Decoders(_Drain, "drain")


async def disconnect(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Close the connections of a user or a client, on all nodes."""
    order, _ = await read_command(scope, receive, BODY_MAX_BYTES, _DISCONNECT)
    _need_one(user=order.user, client=order.client)
    wanted = DisconnectWanted(order.user, order.client, order.reason, order.reconnect)
    answers = await node.roster.ask("disconnect", wanted, _deadline(Query(scope)))
    return {"connections": sum(said.head["count"] for said in answers.said), **_unanswered(answers)}


async def unsubscribe(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Take a user or a client out of a channel, on all nodes."""
    order, _ = await read_command(scope, receive, BODY_MAX_BYTES, _UNSUBSCRIBE)
    _need_one(user=order.user, client=order.client)
    wanted = UnsubscribeWanted(check_channel(order.channel), order.user, order.client)
    answers = await node.roster.ask("unsubscribe", wanted, _deadline(Query(scope)))
    return {"readings": sum(said.head["count"] for said in answers.said), **_unanswered(answers)}


async def revoke(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Refuse a user's tokens up to now, or one token, and close its connections, on all nodes."""
    order, _ = await read_command(scope, receive, BODY_MAX_BYTES, _REVOKE)
    _need_one(user=order.user, token_id=order.token_id)
    await node.control.revoke(user=order.user, token_id=order.token_id)
    return {}


async def drain(node: Node, scope: Scope, receive: Receive) -> dict[str, Any]:
    """Begin to stop the server that is asked, or the node or server that is named, as SIGTERM would."""
    order, _ = await read_command(scope, receive, BODY_MAX_BYTES, _DRAIN)
    deadline_s = _deadline(Query(scope))
    name = order.node or node.roster.title.server
    meant = await node.roster.find(name, servers=True) if order.node else await node.roster.own_server()
    answers = await node.roster.ask("drain", DrainWanted(all(each.server == name for each in meant)), deadline_s, meant)
    names = {each.id: each.name for each in meant}
    return {
        "node": node.name,
        "draining": [
            {"node": said.node, "name": names[said.node], "connections": said.head["count"]} for said in answers.said
        ],
        **_unanswered(answers),
    }


def _need_one(**given: str | None) -> None:
    if sum(value is not None for value in given.values()) != 1:
        raise BadRequest(f"give one of {' and '.join(given)}")


# Asking the others


async def _ask(node: Node, what: str, wanted: Any, query: Query) -> Answers:
    """Ask all nodes, or the one that the request names."""
    name = query.text("node")
    only = await node.roster.find(name) if name is not None else None
    return await node.roster.ask(what, wanted, _deadline(query), only)


def _unanswered(answers: Answers) -> dict[str, Any]:
    return {"unanswered": [_silent(each) for each in answers.unanswered]}


def _silent(known: Known) -> dict[str, Any]:
    return {"node": known.id, "name": known.name, "said_s": round(known.said_s, 1)}


def _limit(query: Query) -> int:
    limit = query.integer("limit")
    return LISTED if limit is None else check_count("limit", limit, least=1)


def _deadline(query: Query) -> float:
    deadline_s = query.seconds("timeout") or DEADLINE_S
    if deadline_s > DEADLINE_MAX_S:
        raise BadRequest(f"timeout is at most {DEADLINE_MAX_S:g} seconds")
    return deadline_s


def admin_doors(node: Node) -> dict[str, dict[str, Any]]:
    """Return the operator's paths, with what answers each of their methods."""
    reading: dict[str, Handler] = {
        "stats": show_stats,
        "nodes": list_nodes,
        "connections": list_connections,
        "channels": list_channels,
        "presence": list_members,
    }
    doing: dict[str, Handler] = {
        "disconnect": disconnect,
        "unsubscribe": unsubscribe,
        "revoke": revoke,
        "drain": drain,
    }
    doors: dict[str, dict[str, Any]] = {
        f"/v1/admin/{name}": {"GET": AdminEndpoint(node, name, handler)} for name, handler in reading.items()
    }
    doors |= {f"/v1/admin/{name}": {"POST": AdminEndpoint(node, name, handler)} for name, handler in doing.items()}
    doors["/v1/admin/publish"] = {"POST": AdminPublishEndpoint(node)}
    return doors
