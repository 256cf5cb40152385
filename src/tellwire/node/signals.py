"""Direct messages: what one client says to another of the same channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from tellwire.errors import Forbidden, NotFound
from tellwire.message import Draft
from tellwire.names import check_channel
from tellwire.node.callers import Caller
from tellwire.node.drafts import as_json, check_event, check_size, check_text, need_data
from tellwire.protocol.commands import ID_MAX_CHARS, Send
from tellwire.protocol.internal import INBOX, InternalSignal
from tellwire.protocol.pushes import Sent

if TYPE_CHECKING:
    from tellwire.node.steward import Node

CLIENT_MAX_CHARS = 64


async def send(node: Node, caller: Caller, command: Send, *, packed: bool) -> Sent:
    """Send a signal to one client of a channel in which both are; raises Forbidden, NotFound."""
    channel = check_channel(command.channel)
    await node.allow(caller, "presence", [channel])
    check_text("send", "to", command.to, CLIENT_MAX_CHARS)
    check_event("send", command.event)
    if command.id is not None:
        check_text("send", "id", command.id, ID_MAX_CHARS)
    data = need_data("send", command.data)
    check_size(data, node.namespaces.of(channel))
    text = as_json(data, packed=packed)
    if await node.presence.find(channel, caller.client) is None:
        raise Forbidden(f"send: only members may; enter {channel} first")
    if await node.presence.find(channel, command.to) is None:
        raise NotFound(f"send: no client {command.to!a} is in {channel}")
    # An id is the sender's own: another's with the same text is not its repetition.
    draft_id = None if command.id is None else f"{caller.client}:{command.id}"
    signal = InternalSignal(channel, caller.client, command.id or "", Raw(text), caller.user)
    draft = Draft(INBOX + command.to, msgspec.json.encode(signal), id=draft_id, event=command.event)
    appended = await node.broker.append(draft)
    return Sent(str(appended.position), appended.duplicate, command.ref)
