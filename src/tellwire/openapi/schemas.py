"""What travels in bodies, and what errors look like."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import msgspec

from tellwire.errors import error_classes
from tellwire.message import CURSOR_MAX_BYTES, Gap
from tellwire.names import CHANNEL_MAX_CHARS
from tellwire.node.calls import METHOD_MAX_CHARS
from tellwire.node.signals import CLIENT_MAX_CHARS
from tellwire.protocol.commands import (
    EVENT_MAX_CHARS,
    ID_MAX_CHARS,
    KEY_MAX_CHARS,
    SESSION_MAX_CHARS,
    Call,
    Presence,
    Publish,
    Send,
)
from tellwire.protocol.pushes import PUSHES, Count, Join, Leave, MessagePush, PresencePush, Push, Signal, Update

Schema = dict[str, Any]

CHANNEL: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": CHANNEL_MAX_CHARS,
    "pattern": r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.:/@=+~#$!-]*$",
}
SESSION: Schema = {"type": "string", "minLength": 1, "maxLength": SESSION_MAX_CHARS, "pattern": r"^[ -~]+$"}
CURSOR: Schema = {"type": "string", "minLength": 1, "maxLength": CURSOR_MAX_BYTES}
POSITION: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9]{1,32}\.(0|[1-9][0-9]{0,18})$"}
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
ANYTHING: Schema = {"description": "Any JSON value."}

BOUNDS: dict[str, Schema] = {
    "channel": CHANNEL,
    "session": SESSION,
    "expect": POSITION,
    "id": {"minLength": 1, "maxLength": ID_MAX_CHARS},
    "event": {"minLength": 1, "maxLength": EVENT_MAX_CHARS},
    "key": {"minLength": 1, "maxLength": KEY_MAX_CHARS},
    "to": {"minLength": 1, "maxLength": CLIENT_MAX_CHARS},
    "method": {"minLength": 1, "maxLength": METHOD_MAX_CHARS},
    "timeout_ms": {"minimum": 1},
}
"""What the fields of commands are held to, besides their types."""

_READ: tuple[type[Push], ...] = (MessagePush, Join, Update, Leave, Count, Signal)
"""What the list in a polling answer may hold."""


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def list_of(schema: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": schema, **bounds}


def object_of(required: dict[str, Schema], optional: dict[str, Schema] | None = None, says: str = "") -> Schema:
    schema: Schema = {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}
    return {**schema, "description": says} if says else schema


def make_schemas() -> dict[str, Schema]:
    _, made = msgspec.json.schema_components(
        [*PUSHES, Gap, Publish, Presence, Send, Call], ref_template="#/components/schemas/{name}"
    )
    commands = {kind: made.pop(kind.__name__) for kind in (Publish, Presence, Send, Call)}
    for schema in made.values():
        schema["description"] = _tidy(schema.get("description", ""))
        if (tag := schema["properties"].get("type")) is not None:
            tag["type"] = "string"
    position = {"position": nullable(POSITION), "duplicate": {"type": "boolean"}}
    failure = object_of({"code": TEXT, "message": TEXT}, {"head": nullable(POSITION), "retry_after_ms": COUNT})
    each: Schema = {
        "oneOf": [ref(kind.__name__) for kind in _READ],
        "discriminator": {
            "propertyName": "type",
            "mapping": {str(kind.__struct_config__.tag): ref(kind.__name__)["$ref"] for kind in _READ},
        },
    }
    session = {"session": SESSION}
    return {
        **made,
        "Page": object_of({"messages": list_of(each), "cursor": CURSOR, "gap": nullable(ref("Gap"))}),
        "PublishBody": _body(commands[Publish], ["data"], {}),
        "PresenceBody": _body(commands[Presence], ["session"], session),
        "SendBody": _body(commands[Send], ["data", "session"], session),
        "CallBody": _body(commands[Call], [], session),
        "Placed": object_of(position, says="Where a message is; `position` is null for ephemeral ones."),
        "NotPlaced": object_of({"error": failure}, says="Why one message of a list was refused."),
        "Members": _answer_of(made[PresencePush.__name__]),
        "Returned": object_of({"data": ANYTHING}),
        "IceServers": _ice_servers(),
        "Problem": object_of(
            {"type": TEXT, "title": TEXT, "status": {"type": "integer"}, "detail": TEXT, "code": TEXT},
            {"head": nullable(POSITION), "retry_after_ms": COUNT},
            "An error (RFC 9457).",
        ),
        **_admin_schemas(),
    }


def _ice_servers() -> Schema:
    server = object_of({"urls": list_of(TEXT)}, {"username": TEXT, "credential": TEXT})
    says = "As an RTCPeerConnection takes them; TURN servers are for known users. `expires_in_ms` null: for ever."
    return object_of({"ice_servers": list_of(server), "expires_in_ms": nullable(COUNT)}, says=says)


def _admin_schemas() -> dict[str, Schema]:
    how: dict[str, Schema] = {"reason": TEXT, "reconnect": {"type": "boolean", "default": True}}
    connection = {
        "client": TEXT, "user": nullable(TEXT), "transport": TEXT, "address": nullable(TEXT), "since": COUNT,
        "channels": list_of(TEXT), "channel_count": COUNT, "lag": COUNT, "lag_messages": COUNT, "lag_ms": COUNT,
        "node": TEXT,
    }  # fmt: skip
    channel = {
        "channel": TEXT, "readers": COUNT, "nodes": COUNT, "rate": {"type": "number", "minimum": 0}, "members": COUNT,
        "users": COUNT, "lag_max": COUNT,
    }  # fmt: skip
    member = {
        "client": TEXT, "user": nullable(TEXT), "node": TEXT, "since": COUNT, "info": ANYTHING, "state": ANYTHING,
    }  # fmt: skip
    silent = {"node": TEXT, "name": TEXT, "said_s": {"type": "number", "minimum": 0}}
    unanswered = {"unanswered": list_of(ref("SilentNode"))}
    draining = object_of({"node": TEXT, "name": TEXT, "connections": COUNT})
    stats = {
        "node": TEXT, "name": TEXT, "server": TEXT, "host": TEXT, "pid": COUNT, "started": COUNT,
        "ready": {"type": "boolean"}, "draining": {"type": "boolean"}, "lag_max": COUNT,
        "version": TEXT, "uptime_s": {"type": "number", "minimum": 0}, "epoch": TEXT,
        "connections": {"type": "object", "additionalProperties": COUNT}, "channels": COUNT, "lagging": COUNT,
        "published": COUNT, "delivered": COUNT, "rates": {"type": "object", "additionalProperties": {"type": "number"}},
    }  # fmt: skip
    return {
        "Stats": object_of(
            stats, says="Figures of one node; `rates` are a second, over the last ten; `lag_max` in places."
        ),
        "SilentNode": object_of(silent, says="A node that did not answer in time, and how long ago it was heard of."),
        "Nodes": object_of(
            {
                "nodes": list_of(
                    object_of(
                        {"node": TEXT, "name": TEXT, "answered": {"type": "boolean"}},
                        {
                            **{name: field for name, field in stats.items() if name not in ("node", "name")},
                            "said_s": silent["said_s"],
                            "at": {"type": "number"},
                        },
                    )
                ),
                **unanswered,
            },
            says="Of one that did not answer, the figures are what it said last.",
        ),
        "Connection": object_of(
            connection,
            says="`since` is in ms since 1970, `lag` in places of the log; `lag_messages` and `lag_ms`, for how long "
            "the oldest of them waits, are at least so much.",
        ),
        "Connections": object_of({"connections": list_of(ref("Connection")), "total": COUNT, **unanswered}),
        "Channel": object_of(channel, says="`rate` is messages a second, over the last ten."),
        "Channels": object_of({"channels": list_of(ref("Channel")), "total": COUNT, **unanswered}),
        "ChannelMembers": object_of(
            {"channel": TEXT, "clients": COUNT, "users": COUNT, "members": list_of(object_of(member))}
        ),
        "UnsubscribeUser": object_of({"channel": TEXT, "user": TEXT}),
        "UnsubscribeClient": object_of({"channel": TEXT, "client": TEXT}),
        "Unsubscribed": object_of({"readings": COUNT, **unanswered}),
        "Disconnected": object_of({"connections": COUNT, **unanswered}),
        "Drain": object_of({}, {"node": nullable(TEXT)}),
        "Draining": object_of(
            {"node": TEXT, "draining": list_of(draining), **unanswered}, says="`node` is who was asked."
        ),
        "DisconnectUser": object_of({"user": TEXT}, how),
        "DisconnectClient": object_of({"client": TEXT}, how),
        "RevokeUser": object_of({"user": TEXT}, says="Refuses the tokens that the user has had up to now."),
        "RevokeToken": object_of({"token_id": TEXT}, says="Refuses the token with this `jti`."),
        "Done": {"type": "object"},
    }


def _body(command: Schema, required: Sequence[str], extra: dict[str, Schema]) -> Schema:
    """Make the body of a request out of a command: without its type and ref, which are for WebSockets."""
    schema = deepcopy(command)
    properties = {name: field for name, field in schema["properties"].items() if name not in ("type", "ref")} | extra
    for name, field in properties.items():
        if name in BOUNDS:
            for kind in field.get("anyOf", [field]):
                if kind.get("type") != "null":
                    kind |= BOUNDS[name]
    schema["properties"] = properties
    schema["required"] = list(dict.fromkeys([*(n for n in schema["required"] if n in properties), *required]))
    schema["description"] = _tidy(schema.get("description", ""))
    del schema["title"]
    return schema


def _answer_of(push: Schema) -> Schema:
    """Make the answer to a request out of the push that answers the same command."""
    properties = {name: field for name, field in push["properties"].items() if name not in ("type", "ref")}
    return object_of({name: properties[name] for name in push["required"] if name != "type"}, says=push["description"])


def _tidy(text: str) -> str:
    return inspect.cleandoc(text).replace("``", "`")


def make_problems() -> dict[str, Schema]:
    """Return the answers with an error, one for each status, with the codes that go with it."""
    table: dict[int, list[str]] = {}
    for code, kind in error_classes().items():
        table.setdefault(kind.status, []).append(code)
    return {f"Problem{status}": _problem(status, codes) for status, codes in sorted(table.items())}


def _problem(status: int, codes: Sequence[str]) -> Schema:
    kinds = error_classes()
    response: Schema = {
        "description": "; ".join(f"`{code}`: {kinds[code].meaning}" for code in codes),
        "content": {"application/problem+json": {"schema": ref("Problem")}},
    }
    if status == 429:
        response["headers"] = {"Retry-After": {"description": "Seconds.", "schema": COUNT}}
    return response
