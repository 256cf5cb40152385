"""Where the application is asked: its procedures, and what it makes of a message on its way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, UnsetType

from tellwire.errors import BadRequest
from tellwire.hooks import Client, Publishing, encode_value
from tellwire.message import Draft
from tellwire.node.callers import Caller
from tellwire.node.drafts import check_event, check_size, check_text
from tellwire.protocol.commands import EVENT_MAX_CHARS, KEY_MAX_CHARS, Call
from tellwire.protocol.data import check_data, to_packed, to_value
from tellwire.protocol.pushes import Result

if TYPE_CHECKING:
    from tellwire.node.steward import Node

METHOD_MAX_CHARS = 128


async def call(node: Node, caller: Caller, command: Call, *, packed: bool) -> Result:
    """Call a procedure of the application; raises NotFound, Timeout, HookFailed and what the procedure raises."""
    check_text("call", "method", command.method, METHOD_MAX_CHARS)
    await node.allow(caller, "call", [command.method])
    data = None if isinstance(command.data, UnsetType) else checked_value(bytes(command.data), packed=packed)
    longest_s = node.limits.call_timeout_s
    timeout_ms = command.timeout_ms
    if timeout_ms is not None and timeout_ms <= 0:
        raise BadRequest(f"call: timeout_ms={timeout_ms} is no time to wait")
    timeout_s = longest_s if timeout_ms is None else min(timeout_ms / 1000, longest_s)
    value = await node.hooks.ask_call(caller.view(), command.method, data, timeout_s)
    text = encode_value("call", value)
    return Result(Raw(to_packed(text) if packed else text), command.ref)


async def publish_as_asked(node: Node, client: Client | None, draft: Draft) -> Draft:
    """Let the application alter a message, or refuse it by what it raises."""
    before = Publishing(
        draft.channel, to_value(draft.data, packed=draft.packed), draft.event, draft.id, draft.key, draft.ephemeral
    )
    after = await node.hooks.ask_publish(client, before)
    if after is None:
        return draft
    data = encode_value("publish", after.data)
    check_size(data, node.namespaces.of(draft.channel))
    check_event("publish", after.event)
    if after.event != "message":
        check_text("publish", "event", after.event, EVENT_MAX_CHARS)
    if after.key is not None:
        check_text("publish", "key", after.key, KEY_MAX_CHARS)
    return msgspec.structs.replace(
        draft, data=data, packed=False, event=after.event, key=after.key, ephemeral=after.ephemeral
    )


def checked_value(data: bytes, *, packed: bool) -> Any:
    """Return what a client gave as a Python value; raises InvalidData."""
    return to_value(check_data(data, packed=packed), packed=packed)
