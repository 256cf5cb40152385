"""Who is here, direct messages and calls over HTTP: for clients whose wire goes one way only."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tellwire.errors import BadRequest
from tellwire.names import check_channel
from tellwire.node import Caller, Node, check_session
from tellwire.protocol.codecs import JSON
from tellwire.protocol.commands import Call, Presence, Send
from tellwire.protocol.data import check_data, to_json
from tellwire.protocol.pushes import Push
from tellwire.transports.requests import (
    Answer,
    Decoders,
    Endpoint,
    Query,
    RawHeaders,
    Receive,
    Scope,
    read_command,
)
from tellwire.transports.requests import Send as AsgiSend


class PresenceEndpoint(Endpoint):
    """``GET /v1/presence``: who is in a channel; ``POST``: enter, go on being a member, or leave."""

    transport = "presence"

    async def respond(
        self, scope: Scope, receive: Receive, send: AsgiSend, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        node = self.node
        if scope["method"] == "POST":
            return await _carry_out(node, scope, receive, caller, _PRESENCE)
        query = Query(scope)
        if len(query.channels) != 1:
            raise BadRequest("one channel is asked for: give ?channel=NAME once")
        channel = check_channel(query.channels[0])
        await node.allow(caller, "presence", [channel])
        caller.session = query.session
        return _answer(await node.members.look(channel, caller.client if caller.session else ""))


class _PresenceBody(Presence, kw_only=True):
    session: str | None = None


class _SendBody(Send, kw_only=True):
    session: str | None = None


class _CallBody(Call, kw_only=True):
    session: str | None = None


_PRESENCE = Decoders(_PresenceBody, "presence")
_SEND = Decoders(_SendBody, "send")
_CALL = Decoders(_CallBody, "call")


class CommandEndpoint(Endpoint):
    """A path that carries out one command, as a connection would."""

    kinds: Decoders

    async def respond(
        self, scope: Scope, receive: Receive, send: AsgiSend, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        return await _carry_out(self.node, scope, receive, caller, self.kinds)


class SendEndpoint(CommandEndpoint):
    """``POST /v1/send``: a direct message to one client."""

    transport = "send"
    kinds = _SEND


class CallEndpoint(CommandEndpoint):
    """``POST /v1/call``: a procedure of the application."""

    transport = "call"
    kinds = _CALL


async def _carry_out(node: Node, scope: Scope, receive: Receive, caller: Caller, kinds: Decoders) -> Answer:
    command, packed = await read_command(scope, receive, node.limits.request_max_bytes, kinds)
    command.ref = None
    caller.session = check_session(command.session)
    if caller.session is None and not isinstance(command, Call):
        raise BadRequest("session is missing: the secret text by which the client is known again on every wire")
    if packed:  # the answer is in JSON, so from here on all is
        for field in ("data", "state"):
            raw = getattr(command, field, UNSET)
            if not isinstance(raw, UnsetType):
                setattr(command, field, msgspec.Raw(to_json(check_data(bytes(raw), packed=True))))
    answers: list[Push] = []
    await node.carry_out(caller, command, answers.append, packed=False)
    return _answer(answers[0])


def _answer(push: Push) -> Answer:
    fields: dict[str, Any] = msgspec.json.decode(JSON.encode(push), type=dict[str, msgspec.Raw])
    del fields["type"]
    return Answer(200, msgspec.json.encode(fields))
