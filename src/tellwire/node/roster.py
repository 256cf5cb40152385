"""Which nodes there are, and what they answer each other.

A node is a member of a channel of presence that no client can name, with what it is called and how it does; it stays
as long as its lease (decision 15), so that the list is as right as presence is, and works wherever presence does. What
a node asks of the others is said on the control channel, and each answers on a channel of the asker's own; both are
ephemeral, for an answer that comes after its deadline is worth nothing (decision 18).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tellwire.errors import BadRequest, NotFound, TellwireError, Unavailable
from tellwire.message import Draft, Message
from tellwire.node.figures import Figures, stats_of
from tellwire.node.local import Local, LocalReading
from tellwire.node.questions import Asked, Question, Said, decode_part, in_parts
from tellwire.presence import Member
from tellwire.protocol.internal import ANSWERS
from tellwire.subscriber import Subscriber

if TYPE_CHECKING:
    from tellwire.node.steward import Node

ROSTER = "$nodes"
"""The channel of presence whose members are nodes; no client can name it."""

DEADLINE_S = 2.0
"""Seconds in which other nodes have to answer, where the request does not say."""

NODES_MAX = 1000
"""Nodes that are listed and asked, at most."""

LEAVE_S = 1.0
"""Seconds that a node which ends waits for the store to take it out."""

TELLS_PER_LEASE = 3
"""How often a node says anew how it does, while one lease lasts."""


class Title(NamedTuple):
    """What a node is called: a server by its name, and a worker of it by a number besides (0: it has none)."""

    server: str
    worker: int = 0

    @property
    def name(self) -> str:
        return f"{self.server}.{self.worker}" if self.worker else self.server


def own_title(name: str | None = None) -> Title:
    """Return the title of a server that runs in this process; by default of machine and process."""
    return Title(name or f"{socket.gethostname()}:{os.getpid()}")


class Known(NamedTuple):
    """A node as the others see it: its id, what it is called, and what it said of itself last."""

    id: str
    server: str
    name: str
    card: Figures
    said: Figures
    """Its figures when its lease was renewed last; empty where it has not said any."""

    @property
    def said_s(self) -> float:
        """Seconds since it said so, by clocks that may differ."""
        return max(0.0, time.time() - float(self.said.get("at", 0)))


class Answers(NamedTuple):
    """What came back in time, and which nodes did not answer."""

    said: list[Said]
    unanswered: list[Known]


Answering = Callable[["Node", bytes], Awaitable[tuple[Any, Iterable[Any]]]]
"""Answers a question about one node, given what is wanted as JSON: fields of its own, and a list."""

_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode


class Roster:
    """One node's place among the others.

    Args:
        node: Whose it is.
        title: What it is called.
    """

    def __init__(self, node: Node, title: Title) -> None:
        self._node = node
        self.title = title
        self._reading = LocalReading(self._take)
        self._asked: dict[str, Asked] = {}
        self._answering: dict[str, Answering] = {}
        self._known: list[Known] = []
        self._is_in = False
        self._has_left = False
        self._telling = asyncio.Lock()

    def answer_with(self, what: str, answering: Answering) -> None:
        """Have a kind of question answered."""
        self._answering[what] = answering

    def card(self) -> Figures:
        """Return who this node is; it does not change."""
        from tellwire import __version__  # the package imports this room

        return {
            "node": self._node.name,
            "name": self.title.name,
            "server": self.title.server,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "started": int(self._node.counters.started_at * 1000),
        }

    # Being one of them

    async def open(self) -> None:
        """Hear answers, and make this node known."""
        hub = self._node.hub
        placement = await hub.place({ANSWERS + self._node.name: "catch_up"}, "now")
        subscriber = self._reading.subscriber = Subscriber(hub, self._reading, self._reading.encoding, Local())
        hub.join(subscriber, placement)
        await self.tell()
        await self.known()

    async def beat(self) -> None:
        """Say how this node does, again and again, for as long as it lives."""
        node = self._node
        while True:
            await asyncio.sleep(node.limits.node_lease_s / TELLS_PER_LEASE)
            try:
                await self.tell()
                await self.known()
            except TellwireError as exc:
                node.hub.report("this node could not make itself known to the others; it is tried again", exc)

    async def tell(self) -> None:
        """Say how this node does."""
        node = self._node
        async with self._telling:  # what is entered last has to be the newest
            if self._has_left:
                return
            said = msgspec.json.encode({**stats_of(node), "at": time.time()})
            card = msgspec.json.encode(self.card())
            started_ms = int(node.counters.started_at * 1000)
            self._is_in = True
            await node.presence.enter(Member(ROSTER, node.name, None, card, said, node.name, started_ms))

    async def tell_soon(self) -> None:
        """Say how this node does now; where that cannot be said, it is said with the next beat."""
        with contextlib.suppress(TellwireError):
            await self.tell()

    async def leave(self) -> None:
        """Be none of them any more; for a node that ends by itself."""
        if self._reading.subscriber is not None:
            self._node.hub.leave(self._reading.subscriber)
        self._has_left = True
        if self._is_in:
            self._is_in = False
            with contextlib.suppress(TellwireError, TimeoutError):  # else its lease says it
                async with asyncio.timeout(LEAVE_S), self._telling:
                    await self._node.presence.leave(ROSTER, self._node.name)

    # The others

    async def known(self) -> list[Known]:
        """Return the nodes whose lease lasts, this one among them, the oldest first.

        While the store cannot be reached, those that were known before.
        """
        try:
            members = await self._node.presence.members(ROSTER, NODES_MAX)
        except TellwireError:
            if not self._known:
                raise
            return self._known
        self._known = [_known(member) for member in members]
        return self._known

    async def find(self, name: str, *, servers: bool = False) -> list[Known]:
        """Return the node of an id or a name; with `servers` all nodes of a server, too.

        Raises NotFound, and BadRequest where several nodes have the name.
        """
        known = await self.known()
        if own := [each for each in known if each.id == name]:
            return own
        if servers and (all_of := [each for each in known if each.server == name]):
            alone = [each for each in all_of if each.name == name]
            if len(alone) <= 1:
                return all_of
        found = [each for each in known if each.name == name]
        if len(found) > 1:
            ids = ", ".join(each.id for each in found)
            raise BadRequest(f"node: {len(found)} nodes are called {name!a}; name one by its id: {ids}")
        if not found:
            names = ", ".join(each.name for each in known[:20])
            raise NotFound(f"no node is called {name[:80]!a}; there are {names or 'none'}")
        return found

    async def own_server(self) -> list[Known]:
        """Return this node and the other workers of its server."""
        known = await self.known()
        me = self._node.name
        # A server of another machine may have been given the same name.
        host = socket.gethostname()
        is_worker = self.title.worker > 0
        return [
            each
            for each in known
            if each.id == me or (is_worker and (each.server, each.card.get("host")) == (self.title.server, host))
        ]

    async def ask(self, what: str, wanted: Any, deadline_s: float, only: list[Known] | None = None) -> Answers:
        """Ask all nodes, or `only` some, and return what they have answered in time."""
        raw = msgspec.json.encode(wanted)
        known = await self.known() if only is None else only
        me = self._node.name
        asked = Asked(each.id for each in known if each.id != me)
        said: list[Said] = []
        if only is None or any(each.id == me for each in only):
            head, items = await self._answering[what](self._node, raw)
            said.append(Said(me, head, list(items)))
        if asked.missing:
            to = None if only is None else tuple(asked.missing)
            question = Question(secrets.token_hex(8), me, what, to, msgspec.Raw(raw))
            self._asked[question.id] = asked
            try:
                async with asyncio.timeout(deadline_s):
                    await self._node.control.ask(question)
                    await asked.done.wait()
            except TimeoutError:
                pass
            except TellwireError:
                if not said:
                    raise
            finally:
                del self._asked[question.id]
            said += asked.said()
        answered = {each.node for each in said}
        return Answers(said, [each for each in known if each.id not in answered])

    async def ask_one(self, id_: str, what: str, wanted: Any, deadline_s: float = DEADLINE_S) -> Any:
        """Ask another node; return the fields of its answer, None where there is no such node (any more).

        Raises Unavailable where nothing came in time: it may be there nevertheless.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                member = await self._node.presence.find(ROSTER, id_)
                if member is None:
                    return None
                answers = await self.ask(what, wanted, deadline_s, [_known(member)])
                if answers.said:
                    return answers.said[0].head
        raise Unavailable(f"the node that knows did not answer within {deadline_s:g} seconds; ask again")

    # Answering

    async def hear(self, question: Question) -> None:
        """Answer a question that was asked of this node; nobody waits for the answer to one that it does not know."""
        me = self._node.name
        answering = self._answering.get(question.what)
        if answering is None or question.asker == me or (question.to is not None and me not in question.to):
            return
        head, items = await answering(self._node, bytes(question.wanted))
        for part in in_parts(question.id, me, head, items):
            data = msgspec.json.encode(part)
            await self._node.broker.append(Draft(ANSWERS + question.asker, data, event="answer", ephemeral=True))

    def _take(self) -> None:
        while (item := self._reading.take()) is not None:
            if isinstance(item, Message):
                part = decode_part(item.data)
                if (asked := self._asked.get(part.id)) is not None:
                    asked.take(part)


def _known(member: Member) -> Known:
    card = _decode(member.info or b"{}")
    name = str(card.get("name", member.client))
    return Known(member.client, str(card.get("server", name)), name, card, _decode(member.state or b"{}"))
