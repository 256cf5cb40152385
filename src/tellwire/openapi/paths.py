"""What can be asked, with which parameters, and what the answers are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tellwire.limits import Limits
from tellwire.node import LAST_MAX
from tellwire.openapi.schemas import BOUNDS, CHANNEL, COUNT, CURSOR, SESSION, TEXT, Schema, list_of, object_of, ref
from tellwire.transports.polling import CALLBACK_MAX_CHARS, CALLBACK_PATTERN
from tellwire.transports.publishing import LIST_MAX

_EVERYWHERE = (400, 401, 403, 408, 413, 429, 500, 503)
"""Statuses of errors that every endpoint may answer with, but for those of health; 413 also of what has no body."""


def _responses(ok: Schema, errors: Iterable[int] = ()) -> dict[str, Schema]:
    statuses = sorted({*_EVERYWHERE, *errors})
    return {"200": ok, **{str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in statuses}}


def _query(name: str, says: str, schema: Schema, **more: Any) -> Schema:
    return {"name": name, "in": "query", "description": says, "schema": schema, **more}


def _header(name: str, says: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "description": says, "schema": schema}


def _json(says: str, schema: Schema) -> Schema:
    return {"description": says, "content": {"application/json": {"schema": schema}}}


def _operation(tag: str, id_: str, summary: str, responses: Schema, **more: Any) -> Schema:
    return {"tags": [tag], "operationId": id_, "summary": summary, **more, "responses": responses}


def _posting(schema: Schema) -> Schema:
    packed = {"schema": {"description": "The same in MessagePack."}}
    return {"required": True, "content": {"application/json": {"schema": schema}, "application/msgpack": packed}}


def _beginning(limits: Limits) -> list[Schema]:
    """Return the parameters that all reading requests have."""
    most = limits.channels_per_connection
    return [
        _query(
            "channel",
            f"Channels to read, at most {most}; without any those that the token subscribes by itself.",
            list_of(CHANNEL, maxItems=most),
            style="form",
            explode=True,
        ),
        _query("since", "Where to begin: a cursor, a seq, `now` (the default) or `earliest`.", CURSOR),
        _query(
            "last", "Begin before the newest so many; not with `since`.", {**COUNT, "maximum": LAST_MAX}
        ),
        _query("on_gap", "Where to go on after a gap.", {"enum": ["oldest", "newest"], "type": "string"}),
        _query(
            "policy",
            "What becomes of a reader that lags.",
            {"enum": ["catch_up", "latest", "disconnect"], "type": "string"},
        ),
        _query("session", "Secret text by which the client is known again on every wire.", SESSION),
        _query(
            "presence",
            "Enter the channels (needs `session`), or watch who comes and goes.",
            {"enum": ["enter", "watch"], "type": "string"},
        ),
        _header("Last-Event-ID", "A cursor; comes before `since` and `last`.", CURSOR),
    ]  # fmt: skip


def _polling(limits: Limits, *, jsonp: bool) -> list[Schema]:
    held = f"Seconds to wait for something new; more than {limits.poll_wait_max_s:g} are cut to that."
    listed = {"type": "integer", "minimum": 1, "maximum": LAST_MAX, "default": 1000}
    parameters = [
        *_beginning(limits),
        _query("wait", held, {"type": "number", "minimum": 0, "exclusiveMaximum": 1_000_000_000, "default": 0}),
        _query("limit", "Messages in the answer.", listed),
        _query("before", "Read backwards from this cursor or seq; not with `since` or `last`.", CURSOR),
    ]
    if jsonp:
        name: Schema = {"type": "string", "maxLength": CALLBACK_MAX_CHARS, "pattern": CALLBACK_PATTERN}
        parameters.append(_query("callback", "Answer a script with a call of this function.", name))
    return parameters


def make_paths(limits: Limits, *, jsonp: bool, rtc: bool) -> dict[str, Any]:
    publish = _posting({"oneOf": [ref("PublishBody"), list_of(ref("PublishBody"), maxItems=LIST_MAX)]})
    placed = _json(
        "Where it is; of a list, one answer for each.",
        {"oneOf": [ref("Placed"), list_of({"oneOf": [ref("Placed"), ref("NotPlaced")]})]},
    )
    publishing = [
        _header("Idempotency-Key", "The `id` of a single message.", {"type": "string", **BOUNDS["id"]}),
        _header("traceparent", "The publisher's trace context (W3C).", TEXT),
    ]
    posting = (404, 415)
    page = _json("What there is.", ref("Page"))
    return {
        "/v1/messages": {
            "get": _operation(
                "reading", "readMessages", "Poll, wait for messages, or page through history",
                _responses(page), parameters=_polling(limits, jsonp=jsonp),
            ),
            "post": _operation(
                "publishing", "publishMessages", "Publish a message, or a list of them",
                _responses(placed, (409, 502, 504, *posting)), parameters=publishing, requestBody=publish,
            ),
        },
        "/v1/events": _stream(
            "readEvents", "Read on as Server-Sent Events", "text/event-stream", limits,
            "`id:` is the cursor, `event:` the message's event, `data:` what was published.",
            _query("envelope", "Put the whole message into `data`.", {"type": "boolean", "default": False}),
        ),
        "/v1/stream": _stream(
            "readLines", "Read on as NDJSON", "application/x-ndjson", limits,
            "One push a line, beginning with `connected`; an empty line is a sign of life.",
        ),
        "/v1/ws": {"get": _operation(
            "reading", "openWebSocket", "Open a WebSocket: commands and pushes, both ways",
            {
                "101": {"description": "Subprotocols `tellwire.v1.json` (also without any) and `tellwire.v1.msgpack`."},
                **{str(s): {"$ref": f"#/components/responses/Problem{s}"} for s in (400, 403, 408, 413, 426, 503)},
            },
        )},
        "/v1/presence": {
            "get": _operation(
                "presence", "showPresence", "Who is in a channel", _responses(_json("They are.", ref("Members"))),
                parameters=[_query("channel", "The channel.", CHANNEL, required=True), _query("session", "", SESSION)],
            ),
            "post": _operation(
                "presence", "holdPresence", "Enter a channel, stay in it, or leave",
                _responses(_json("Who is there by now.", ref("Members")), posting),
                requestBody=_posting(ref("PresenceBody")),
            ),
        },
        "/v1/send": {"post": _operation(
            "presence", "sendSignal", "Send a direct message to one client",
            _responses(_json("It is in the client's log.", ref("Placed")), posting),
            requestBody=_posting(ref("SendBody")),
        )},
        "/v1/call": {"post": _operation(
            "presence", "callProcedure", "Call a procedure of the application",
            _responses(_json("What it returned.", ref("Returned")), (502, 504, *posting)),
            requestBody=_posting(ref("CallBody")),
        )},
        "/v1/ice-servers": {"get": _operation(
            "presence", "listIceServers", "STUN and TURN servers, with credentials that are soon over",
            _responses(_json("They are.", ref("IceServers"))),
        )},
        **(_rtc_paths() if rtc else {}),
        **_admin_paths(publish, placed),
        **_health_paths(),
    }  # fmt: skip


def _stream(id_: str, summary: str, kind: str, limits: Limits, says: str, *more: Schema) -> dict[str, Schema]:
    stream = {"description": says, "content": {kind: {"schema": TEXT}}}
    parameters = [*_beginning(limits), *more]
    return {
        "get": _operation("reading", id_, summary, _responses(stream), parameters=parameters),
        "head": _operation(
            "reading", f"{id_}Head", f"{summary}: the header alone",
            _responses({"description": "It could be read."}), parameters=parameters,
        ),
    }  # fmt: skip


def _rtc_paths() -> dict[str, Any]:
    sdp = {"application/sdp": {"schema": TEXT}}
    location = {"Location": {"description": "Where DELETE ends the connection.", "schema": TEXT}}
    given = [_query("session", "As in reading requests.", SESSION), _query("since", "As there.", CURSOR)]
    id_ = {"name": "id", "in": "path", "required": True, "description": "As `Location` had it.", "schema": TEXT}
    answered = {"description": "The answer (SDP).", "headers": location, "content": sdp}
    responses = _responses(answered, (415,))
    return {
        "/v1/rtc": {"post": _operation(
            "reading", "openDataChannels", "Offer WebRTC data channels: commands and pushes, both ways",
            {"201": responses.pop("200"), **responses}, parameters=given,
            requestBody={"required": True, "content": sdp},
        )},
        "/v1/rtc/{id}": {"delete": _operation(
            "reading", "closeDataChannels", "End a connection of data channels",
            _responses(_json("It has ended.", {"type": "object"}), (404,)), parameters=[id_],
        )},
    }  # fmt: skip


def _admin_paths(publish: Schema, placed: Schema) -> dict[str, Any]:
    limit = _query(
        "limit", "How many are listed.", {"type": "integer", "minimum": 1, "maximum": LAST_MAX, "default": 100}
    )
    done = _json("It is done, on all nodes.", ref("Done"))
    posting = (415,)
    number: Schema = {"type": "number", "minimum": 0, "maximum": 10, "default": 2}
    timeout = _query("timeout", "Seconds in which other nodes have to answer.", number)
    node = [_query("node", "Only this node: its id or its name.", TEXT), timeout]
    asked = [_query("user", "Of this user.", TEXT), _query("client", "This client.", TEXT),
             _query("channel", "That read this channel.", CHANNEL), limit, *node]  # fmt: skip
    sort: Schema = {"enum": ["readers", "rate", "lag"], "type": "string", "default": "readers"}
    return {
        "/v1/admin/stats": {"get": _operation(
            "admin", "adminStats", "Figures of this node", _responses(_json("They are.", ref("Stats"))),
        )},
        "/v1/admin/nodes": {"get": _operation(
            "admin", "adminNodes", "All nodes of the log, and their figures",
            _responses(_json("They are.", ref("Nodes")), (404,)), parameters=node,
        )},
        "/v1/admin/connections": {"get": _operation(
            "admin", "adminConnections", "Who is connected, to any node, those that lag most first",
            _responses(_json("They are.", ref("Connections")), (404,)), parameters=asked,
        )},
        "/v1/admin/channels": {"get": _operation(
            "admin", "adminChannels", "What is read, on any node: the most read first, the busiest, or the slowest",
            _responses(_json("They are.", ref("Channels")), (404,)),
            parameters=[
                _query("prefix", "Those whose name begins so.", TEXT), _query("sort", "By what.", sort), limit, *node,
            ],
        )},
        "/v1/admin/presence": {"get": _operation(
            "admin", "adminPresence", "Who is in a channel, and on which node",
            _responses(_json("They are.", ref("ChannelMembers"))),
            parameters=[_query("channel", "The channel.", CHANNEL, required=True), limit],
        )},
        "/v1/admin/publish": {"post": _operation(
            "admin", "adminPublish", "Publish to any channel, past the application's hooks",
            _responses(placed, (409, *posting)), requestBody=publish,
        )},
        "/v1/admin/disconnect": {"post": _operation(
            "admin", "adminDisconnect", "Close the connections of a user or a client, on all nodes",
            _responses(_json("How many they were.", ref("Disconnected")), posting), parameters=[timeout],
            requestBody=_posting({"oneOf": [ref("DisconnectUser"), ref("DisconnectClient")]}),
        )},
        "/v1/admin/unsubscribe": {"post": _operation(
            "admin", "adminUnsubscribe", "Take a user or a client out of a channel, on all nodes",
            _responses(_json("How many readings have ended.", ref("Unsubscribed")), posting), parameters=[timeout],
            requestBody=_posting({"oneOf": [ref("UnsubscribeUser"), ref("UnsubscribeClient")]}),
        )},
        "/v1/admin/drain": {"post": _operation(
            "admin", "adminDrain", "Begin to stop the server that is asked, or the node or server that is named",
            _responses(_json("These do.", ref("Draining")), (404, *posting)), parameters=[timeout],
            requestBody=_posting(ref("Drain")),
        )},
        "/v1/admin/revoke": {"post": _operation(
            "admin", "adminRevoke", "Refuse a user's tokens up to now, or one token, on all nodes",
            _responses(done, posting), requestBody=_posting({"oneOf": [ref("RevokeUser"), ref("RevokeToken")]}),
        )},
    }  # fmt: skip


def _health_paths() -> dict[str, Any]:
    ready = object_of({"ready": {"type": "boolean"}, "draining": {"type": "boolean"}})
    figures = {"description": "Metrics of this node.", "content": {"text/plain": {"schema": TEXT}}}
    described = _json("This.", {"type": "object"})
    return {
        "/healthz": {"get": _operation(
            "health", "isAlive", "Whether the process runs",
            {"200": _json("It does.", object_of({"status": TEXT, "version": TEXT}))}, security=[],
        )},
        "/readyz": {"get": _operation(
            "health", "isReady", "Whether new connections are wanted",
            {"200": _json("They are.", ready), "503": _json("They are not.", ready)}, security=[],
        )},
        "/metrics": {"get": _operation("health", "readMetrics", "Figures for Prometheus", _responses(figures))},
        "/openapi.json": {"get": _operation(
            "health", "describe", "This description", {"200": described}, security=[],
        )},
    }  # fmt: skip
