"""How far a node has come in a log in Redis: what it follows, what it was told, what it missed meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import hiredis

from tellwire.brokers.base import Feed, Slice, new_epoch
from tellwire.brokers.redis_link import Link
from tellwire.brokers.redis_messages import announced, decode
from tellwire.brokers.redis_scripts import ADVANCE, APPEND, JOIN, READ
from tellwire.brokers.redis_session import Again, Command, RedisSession
from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import Unavailable
from tellwire.message import Gap, Message, Position
from tellwire.names import Namespaces

_log = logging.getLogger("tellwire")

_MISSED_BYTES = 1024 * 1024
"""How much is read at a time of what was missed."""

_SUBSCRIBED_AT_ONCE = 500


class RedisLog(RedisSession):
    """The one log, as one node sees it.

    ``head`` is the place that Redis was at when it last said something; all that was announced here up to there was
    delivered, because both come on one connection in order.

    Args:
        place: Where Redis is, and what the log is called.
        namespaces: Bounds of every namespace.
        origin: This node's own name, in what it publishes.
        queue_max_bytes: Bytes of operations that may wait.
        clock: Milliseconds since 1970; None means Redis' own clock.
        moved: Told of every new head, before the feed is.
    """

    scripts = (APPEND, JOIN, READ, ADVANCE)

    def __init__(
        self,
        place: RedisPlace,
        namespaces: Namespaces,
        origin: str,
        queue_max_bytes: int,
        clock: Callable[[], int] | None,
        moved: Callable[[Position], None],
    ) -> None:
        super().__init__(place, queue_max_bytes)
        self.prefix = f"{{{place.tag}}}:"
        self.namespaces = namespaces
        self.head = Position("", 0)
        self.feed: Feed | None = None
        self.followed: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        """Of each channel that is announced here by now, the newest place that is known."""
        self._origin = origin
        self._clock = clock
        self._moved = moved
        self._announcements = f"{self.prefix}{place.db}:"
        self._live = False  # what is announced is delivered; else it is read afterwards
        self._subscribed: set[str] = set()

    # Names

    def key(self, name: str) -> str:
        """Return the name of a key of this log."""
        return self.prefix + name

    def announcements(self, channel: str) -> str:
        """Return the name under which a channel's messages are published."""
        return self._announcements + channel

    # The head

    def deliver(self, message: Message) -> None:
        """Hand a message to the feed, unless it was there already."""
        if message.seq > self.head.seq:
            self._move(message.seq)
            if message.channel in self.seen:
                self.seen[message.channel] = message.seq
            self.hand_over(message)

    def reach(self, seq: int) -> None:
        """Take note that Redis was at a place when it answered; everything up to it was delivered before."""
        if seq > self.head.seq:
            self._move(seq)
            # What lies there is in channels that nobody follows here. The feed has to know how far it is all the same,
            # and is told by a message in a channel that there cannot be.
            self.hand_over(Message("", seq, "", 0, b""))

    def hand_over(self, *messages: Message) -> None:
        """Hand messages to the feed, whose failures are its own."""
        assert self.feed is not None
        try:
            self.feed.deliver(messages)
        except Exception:
            _log.exception("the feed of %s failed; its messages are in the log", self.place)

    def _move(self, seq: int) -> None:
        self.head = Position(self.head.epoch, seq)
        self._moved(self.head)

    def _begin_at(self, epoch: str, seq: int) -> None:
        self.head = Position(epoch, seq)
        self._moved(self.head)

    # Following

    def subscribe(self, channel: str) -> None:
        """Have a channel announced here, from some moment before the next answer on."""
        if self._live and self._link is not None:
            self._subscribed.add(channel)
            self._link.tell("SUBSCRIBE", self.announcements(channel))

    def unsubscribe(self, channel: str) -> None:
        """Have a channel no longer announced here."""
        self.seen.pop(channel, None)
        if channel in self._subscribed and self._link is not None:
            self._subscribed.discard(channel)
            self._link.tell("UNSUBSCRIBE", self.announcements(channel))

    @property
    def looking(self) -> Command:
        """The command that asks where the log is."""
        return "HMGET", self.key("log"), "epoch", "seq"

    def advancing(self, to: int) -> Command:
        """Make the command that lets no message take a place up to `to` any more."""
        return "EVALSHA", ADVANCE.sha, 1, self.key("log"), self.head.epoch, to

    def looked(self, channel: str | None, reply: list[bytes | None]) -> None:
        """Take the answer to `looking` or `advancing`, which fences a channel's announcements."""
        epoch, seq = reply
        if epoch is None or seq is None or epoch.decode() != self.head.epoch:
            raise Again("the log was lost or replaced")
        self.reach(int(seq))
        if channel in self._subscribed:
            self.seen[channel] = max(int(seq), self.seen.get(channel, 0))

    def pushed(self, channel: bytes, payload: bytes) -> None:
        name = channel.decode()[len(self._announcements) :]
        news = announced(name, payload)
        message = news.message
        if not message.seq:
            if news.origin != self._origin:
                self.hand_over(message)
        elif self._live and message.seq > self.head.seq:
            if news.epoch != self.head.epoch:
                self.abandon("the log was lost or replaced")
            elif news.previous > self.seen.get(name, news.previous):
                self.abandon(f"an announcement of {name} was lost")
            else:
                self.deliver(message)

    # Reading

    def reading(
        self,
        names: Sequence[str],
        at: Position | None,
        limit_bytes: int,
        limit: int | None,
        *,
        back: bool,
        touch: bool = True,
    ) -> Command:
        """Make the command of a read; `touch` counts the channels as used."""
        channels: list[str | int] = []
        for name in names:
            settings = self.namespaces.of(name)
            channels += (name, settings.name, int(settings.history_age_s * 1000))
        return (
            "EVALSHA", READ.sha, 1, self.key("log"), self.prefix, int(back), "" if at is None else at.epoch,
            0 if at is None else at.seq, limit_bytes, -1 if limit is None else limit,
            "" if self._clock is None else self._clock(), int(touch), *channels,
        )  # fmt: skip

    def had(self, names: Sequence[str], at: Position | None, reply: list[Any], *, back: bool) -> Slice:
        """Make what a read brings of the answer."""
        epoch, seq, foreign, more, floor, behind, entries = reply
        if epoch.decode() != self.head.epoch:
            raise Again("the log was lost or replaced")
        head = Position(self.head.epoch, int(seq))
        messages = [
            decode(names[entries[place]], head.epoch, entries[place + 1], entries[place + 2])
            for place in range(0, len(entries), 3)
        ]
        gap = None
        if back:
            messages.reverse()
            if foreign == b"1":
                gap = Gap(str(at), str(head), "epoch", tuple(names))
            return Slice(messages, head, gap)
        if foreign == b"1":
            gap = Gap(str(at), str(Position(head.epoch, int(floor))), "epoch", tuple(names))
        elif at is not None and behind:
            lacking = tuple(names[place] for place in behind)
            gap = Gap(str(at), str(Position(head.epoch, int(floor))), "trimmed", lacking)
        return Slice(messages, Position(head.epoch, messages[-1].seq) if more == b"1" else head, gap)

    # Coming back

    def parted(self) -> None:
        self._live = False
        self._subscribed = set()

    async def greet(self, link: Link) -> None:
        names = list(self.followed)
        for first in range(0, len(names), _SUBSCRIBED_AT_ONCE):
            some = names[first : first + _SUBSCRIBED_AT_ONCE]
            link.tell("SUBSCRIBE", *map(self.announcements, some))
        self._subscribed = set(names)
        lossless = await self.is_lossless(link)
        run = await link.ask("HGET", self.key("log"), "run")
        if lossless and run is not None and run.decode() != self.run:
            await self._clean_file(link)
        namespaces = "\n".join(sorted(settings.name for settings in self.namespaces))
        await _handled(
            link, partial(self._joined, names), "EVALSHA", JOIN.sha, 1, self.key("log"), self.prefix, new_epoch(),
            self.run, int(lossless), self.head.epoch, self.head.seq, namespaces, self.place.shards,
        )  # fmt: skip
        while not self._live:
            command = self.reading(names, self.head, _MISSED_BYTES, None, back=False, touch=False)
            await _handled(link, partial(self._missed, names, self.head), *command)

    async def _clean_file(self, link: Link) -> None:
        """Have the append-only file of a server that was started again written anew.

        Where a crash cut it off within a transaction, Redis 7.0 starts without that, but leaves its first commands in
        the file, and carries them out at the start after: behind an append that had long taken their place.
        """
        try:
            await link.ask("BGREWRITEAOF")
        except hiredis.ReplyError as exc:
            _log.warning("%s does not write its append-only file anew: %s", self.place, exc)

    def _joined(self, names: list[str], reply: list[bytes]) -> None:
        epoch, seq = reply[0].decode(), int(reply[1])
        if not epoch:
            raise Unavailable(
                f"the log {self.place.prefix!r} has {seq} shards, but the URL says shards={self.place.shards}; say "
                f"shards={seq}, or give the log another name (prefix=), since messages cannot move to other shards"
            )
        first = not self.head.epoch
        if not first and epoch == self.head.epoch and seq > self.head.seq:
            return  # something was missed
        is_other = not first and epoch != self.head.epoch
        self._begin_at(epoch, seq)
        self._come_live(names)
        if is_other:
            self._reset("the log was lost, or may have lost messages")

    def _missed(self, names: list[str], after: Position, reply: list[Any]) -> None:
        slice_ = self.had(names, after, reply, back=False)
        if slice_.gap is not None:
            # Readers who were up to date miss something that is not there any more. Nobody else can tell them.
            self._begin_at(self.head.epoch, int(reply[1]))
            self._come_live(names)
            self._reset("messages were trimmed before this node could read them")
            return
        for message in slice_.messages:
            self.deliver(message)
        self.reach(slice_.position.seq)
        if slice_.position.seq == int(reply[1]):
            self._come_live(names)

    def _reset(self, why: str) -> None:
        assert self.feed is not None
        _log.warning("%s: %s; readers are told of a gap", self.place, why)
        self.feed.reset(self.head)

    def _come_live(self, names: list[str]) -> None:
        """Deliver what is announced from here on: the answer that is being handled is right behind the head."""
        self._live = True
        self.seen = {name: self.head.seq for name in names if name in self.followed}
        for name in self.followed.keys() - self._subscribed:
            self.subscribe(name)  # its follow looks where the log is before it returns


async def _handled(link: Link, handle: Callable[[Any], None], *command: str | bytes | int) -> None:
    """Send a command and handle its reply before anything that comes after it."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(reply: Any) -> None:
        if done.done():
            return
        try:
            if isinstance(reply, Exception):
                raise reply
            handle(reply)
        except Exception as exc:
            done.set_exception(exc)
        else:
            done.set_result(None)

    link.call(answered, *command)
    await done
