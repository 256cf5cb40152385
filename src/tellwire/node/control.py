"""What all nodes have to know at once: whom to cut off, whose tokens are no longer good, and what one asks of others.

It is said on a channel of the log, which each node reads from its beginning when it starts. So a revocation outlives
the process wherever messages do, and reaches the nodes that were not there when it was made.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from tellwire.errors import CloseCode
from tellwire.message import Draft, Message
from tellwire.node.callers import Caller
from tellwire.node.local import Local, LocalReading
from tellwire.node.questions import Question
from tellwire.protocol.internal import CONTROL
from tellwire.subscriber import Subscriber

if TYPE_CHECKING:
    from tellwire.node.steward import Node


class _Order(msgspec.Struct, omit_defaults=True):
    """What is said on the control channel; times in seconds since 1970."""

    what: str
    at: float
    user: str | None = None
    token_id: str | None = None
    client: str | None = None
    reason: str = ""
    comes_back: bool = True
    question: Question | None = None


class DisconnectWanted(msgspec.Struct, omit_defaults=True):
    """Whose connections are to be closed: those of a user, or of a client."""

    user: str | None = None
    client: str | None = None
    reason: str = ""
    comes_back: bool = True


def _disconnecting(wanted: DisconnectWanted) -> _Order:
    reason = wanted.reason or "the application said so"
    return _Order(
        "disconnect", time.time(), wanted.user, None, wanted.client, reason=reason, comes_back=wanted.comes_back
    )


_decode = msgspec.json.Decoder(_Order).decode


class Control:
    """One node's ear for what concerns all of them."""

    def __init__(self, node: Node, keep_s: float) -> None:
        self._node = node
        self._keep_s = keep_s
        self._reading = LocalReading(self._take)
        self._until = 0
        self._caught_up = asyncio.Event()

    async def open(self) -> None:
        """Read what was said already, and hear what comes."""
        node = self._node
        placement = await node.hub.place({CONTROL: "catch_up"}, "earliest")
        subscriber = self._reading.subscriber = Subscriber(node.hub, self._reading, self._reading.encoding, Local())
        self._until = node.hub.head
        node.hub.join(subscriber, placement)
        self._take()
        await self._caught_up.wait()  # nobody is let in before all of it was read

    def close(self) -> None:
        """Hear nothing more."""
        if self._reading.subscriber is not None:
            self._node.hub.leave(self._reading.subscriber)

    async def revoke(self, *, user: str | None = None, token_id: str | None = None) -> None:
        """Refuse a user's tokens up to now, or one token, on all nodes, and cut the connections that have one."""
        await self._say(_Order("revoke", time.time(), user=user, token_id=token_id, reason="revoked"))

    async def disconnect(
        self, *, user: str | None = None, client: str | None = None, reason: str = "", comes_back: bool = True
    ) -> None:
        """Close all connections of a user or a client, on all nodes; without `comes_back`, tell them to stay away."""
        wanted = DisconnectWanted(user, client, reason, comes_back)
        await self._say(_disconnecting(wanted))

    def disconnect_here(self, wanted: DisconnectWanted) -> int:
        """Close the connections of a user or a client on this node; return how many they were."""
        return self._cut(_disconnecting(wanted))

    async def ask(self, question: Question) -> None:
        """Ask something of other nodes; what they answer is the roster's."""
        await self._say(_Order("ask", time.time(), question=question))

    async def _say(self, order: _Order) -> None:
        ephemeral = order.what != "revoke"
        await self._node.broker.append(
            Draft(CONTROL, msgspec.json.encode(order), event=order.what, ephemeral=ephemeral)
        )
        self._node.hub.flush()  # this node obeys before it answers

    def _take(self) -> None:
        while (item := self._reading.take()) is not None:
            if isinstance(item, Message):
                self._obey(_decode(item.data))
        subscriber = self._reading.subscriber
        if subscriber is not None and subscriber.place >= self._until:
            self._caught_up.set()

    def _obey(self, order: _Order) -> None:
        if order.question is not None:
            self._node.tasks.start(self._node.roster.hear(order.question))
        elif order.what in ("revoke", "disconnect"):
            self._cut(order)

    def _cut(self, order: _Order) -> int:
        """Close the connections that an order is about; return how many they were."""
        revocations = self._node.entrance.revocations
        if order.what == "revoke":
            if order.user is not None:
                revocations.revoke_user(order.user, order.at)
            if order.token_id is not None:
                revocations.revoke_token(order.token_id, order.at)
            revocations.forget(time.time() - self._keep_s)
        code = CloseCode.GOING_AWAY if order.comes_back else CloseCode.FORBIDDEN
        if order.what == "revoke":
            code = CloseCode.REVOKED
        count = 0
        for subscriber in list(self._node.hub.subscribers):
            caller: object = subscriber.caller
            if isinstance(caller, Caller) and _concerns(order, caller):
                subscriber.door.close(code, order.reason)
                count += 1
        return count


def _concerns(order: _Order, caller: Caller) -> bool:
    identity = caller.identity
    if identity is None:
        return False
    if order.token_id is not None and identity.token_id == order.token_id:
        return True
    if order.client is not None and caller.client == order.client:
        return True
    if order.user is None or identity.user != order.user:
        return False
    # A revocation that is read again after a restart does not concern whoever has come with a newer token since.
    return order.what != "revoke" or identity.issued_at is None or identity.issued_at <= order.at
