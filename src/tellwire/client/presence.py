"""Who is in a channel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Literal, Protocol

from msgspec import UNSET, Raw, UnsetType

from tellwire.client.failures import Closed, Failure
from tellwire.client.feed import Feed
from tellwire.client.messages import Member, PresenceEvent
from tellwire.client.place import Place
from tellwire.client.wire import Incoming, Language, pack
from tellwire.errors import TellwireError


class Asker(Protocol):
    """What a presence asks of its client."""

    def ask(self, room: Presence) -> None:
        """Have the server asked, now or with the next connection."""

    def ended(self, room: Presence) -> None:
        """Tell that it is watched no more."""

    async def part_from(self, room: Presence) -> None:
        """Tell the server that it is left and watched no more, if there is a connection."""


class Presence(Feed[PresenceEvent]):
    """Who is in a channel, kept up to date while connections come and go; an async iterator of what changes.

    After each new connection the members are asked for again, and what is different is told as join, update and leave.
    ``members`` is always the newest list, by client id; empty where there are so many that the server only counts.
    """

    def __init__(self, channel: str, asker: Asker) -> None:
        super().__init__()
        self.channel = channel
        self.members: dict[str, Member] = {}
        self.clients = 0
        self.users = 0
        self.is_in = False
        """Whether this client is to be a member."""
        self.place = Place()
        """Up to where it is known who is there."""
        self.asking = asyncio.Lock()
        """Held while the server is asked: one question after the other, so that the last answer is the newest."""
        self._asker = asker
        self._state: bytes | None = None
        # Whether the server may take this client for a member.
        self._was_in = False
        # What it is told of that at present.
        self._told: bool | None = None
        # What came while the members were asked for.
        self._early: list[tuple[Incoming, str, Language]] | None = None
        self._asked = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._is_closed = False

    async def ready(self) -> None:
        """Wait until it is known who is there; raises why it cannot be."""
        if self.place.cursor is None:
            await self._ask()

    async def enter(self, state: Any = UNSET) -> None:
        """Become a member, or say something new of oneself; returns when the others have been told.

        Without a connection it waits for the next one. The client goes on being a member over every later connection.
        """
        was_in, was_state = self.is_in, self._state
        if state is not UNSET:
            self._state = pack(state)
        self.is_in = True
        try:
            await self._ask()
        except TellwireError:
            self.is_in, self._state = was_in, was_state
            raise

    async def leave(self) -> None:
        """Be a member no more; go on watching."""
        self.is_in = False
        self._state = None
        await self._ask()

    async def aclose(self) -> None:
        """Leave, and watch no more; without a connection the server finds out by itself."""
        if self._is_closed:
            return
        self._is_closed = True
        self.is_in = False
        self._asker.ended(self)
        self.end()
        await self._asker.part_from(self)

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _ask(self) -> None:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # An answer counts if it was asked for from now on.
        self._waiting.append((self._asked + 1, answered))
        self._asker.ask(self)
        await answered

    # What follows is for the client and its transports.

    @property
    def wish(self) -> dict[str, Any]:
        """What the server is asked for; the state is MessagePack."""
        enter = self._told = True if self.is_in else False if self._was_in else None
        self._was_in = self._was_in or self.is_in
        state: Raw | UnsetType = Raw(self._state) if self.is_in and self._state is not None else UNSET
        return {"channel": self.channel, "enter": enter, "state": state}

    def expect(self) -> int:
        """Take note that the members are being asked for; return which question that is."""
        self._early = self._early if self._early is not None else []
        self._asked += 1
        return self._asked

    def know(self, question: int, reply: Incoming | None, language: Language) -> None:
        """Take the answer; None where nothing was to be known."""
        if self._told is False:
            self._was_in = False
        early, self._early = self._early or [], None
        if reply is not None and not self._is_closed:
            before = self.members
            self.place = Place()
            self.place.at(reply.cursor)
            self.members = {each.client: language.member(each) for each in reply.members or ()}
            self._compare(before)
            self._count(reply.clients, reply.users)
            for push, epoch, spoken in early:
                self.take_push(push, epoch, spoken)
        self._answer(question, None)

    def _compare(self, before: dict[str, Member]) -> None:
        for member in before.values():
            if member.client not in self.members:
                self._tell("leave", member)
        for member in self.members.values():
            known = before.get(member.client)
            if known != member:
                self._tell("join" if known is None else "update", member)

    def fail(self, failure: Failure, question: int | None = None) -> None:
        """Take note that it cannot be known, or not be entered."""
        self._early = None
        if failure.code in ("disconnected", "timeout") or failure.is_busy:
            return  # asked again with the next connection
        self.place = Place()
        self._answer(self._asked if question is None else question, failure.error)

    def stop(self, error: TellwireError | None) -> None:
        """End with the client."""
        self._is_closed = True
        self._answer(self._asked + 1, error or Closed("the client was closed"))
        self.end(error)

    def _answer(self, question: int, error: TellwireError | None) -> None:
        waiting, self._waiting = self._waiting, []
        for least, answered in waiting:
            if least > question:
                self._waiting.append((least, answered))
            elif not answered.done():
                if error is None:
                    answered.set_result(None)
                else:
                    answered.set_exception(error)
                    answered.exception()

    def take_push(self, push: Incoming, epoch: str, language: Language) -> None:
        """Take a join, update, leave or count."""
        if self._early is not None:
            self._early.append((push, epoch, language))
            return
        if push.seq and not self.place.take(epoch, push.seq):
            return
        if push.type == "count":
            # Too many to name from now on.
            self.members = {}
            self._count(push.clients, push.users)
            return
        if push.member is None:
            return
        member = language.member(push.member)
        known = self.members.get(member.client)
        if push.type == "leave":
            if known is None:
                return
            del self.members[member.client]
            self._set_counts()
            self._tell("leave", known)
        else:
            self.members[member.client] = member
            self._set_counts()
            self._tell("join" if known is None else "update", member)

    def _set_counts(self) -> None:
        self.clients, self.users = len(self.members), count_users(self.members.values())

    def _count(self, clients: int, users: int) -> None:
        if (clients, users) != (self.clients, self.users):
            self.clients, self.users = clients, users
            self._tell("count", None)

    def _tell(self, kind: Literal["join", "update", "leave", "count"], member: Member | None) -> None:
        self.put(PresenceEvent(kind, member, self.clients, self.users))


def count_users(members: Iterable[Member]) -> int:
    """Count users; one without a name counts as one of its own."""
    return len({(member.client,) if member.user is None else member.user for member in members})
