"""The log as one node sees it: what it is fed, what it publishes, what the stream need not hold any more."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from tellwire.brokers.base import Feed
from tellwire.brokers.nats_link import Refused
from tellwire.brokers.nats_messages import Body, body_of, channel_of, decode, encode, token_of
from tellwire.brokers.nats_operations import Operation
from tellwire.brokers.nats_replica import Replica
from tellwire.brokers.nats_settings import LogSettings
from tellwire.brokers.nats_stream import Fed, NatsStream
from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import Conflict, Unavailable
from tellwire.message import SEQ_MAX, Appended, Draft, Message, Position
from tellwire.names import Namespaces

_log = logging.getLogger("tellwire")

_NS = 1_000_000_000
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_LEAST_WINDOW_S = 120.0
"""Seconds for which JetStream remembers what it stored, at least: an append may be sent again for so long."""
_GRACE_MS = 500
"""How much later than its publisher gave up JetStream may store a message: clocks are not compared more exactly."""
_EARLY_MAX_BYTES = 1024 * 1024
"""Bytes of ephemeral messages that may wait for what was published before them."""


class Append(Operation[Appended]):
    """A message on its way into the log.

    JetStream drops a message whose ``Nats-Msg-Id`` it has, for about as long as ids are remembered. The exact time is
    told by the message that it has; where that is too old by now, or was never let into the log, the name goes on with
    its place, which is the same for all who try.
    """

    def __init__(self, log: NatsLog, draft: Draft) -> None:
        self.log = log
        self.draft = draft
        self.own = log.next_token()
        self.name = self.own if draft.id is None or not log.window_ms else f"{token_of(draft.id)}@{draft.channel}"
        now = log.now_ms()
        until = now + int(log.place.timeout_s * 1000) + _GRACE_MS if log.knows_clock else 0
        if log.clock_given is not None:
            now = log.clock_given()
        self.body = body_of(draft, self.own, log.replica.last(draft.channel), until, now)
        payload = encode(self.body)
        headers = {"Nats-Msg-Id": self.name}
        if draft.expect is not None:
            # Another epoch's message is never the newest.
            expected = draft.expect.seq if draft.expect.epoch == log.head.epoch else SEQ_MAX
            headers[_EXPECTED] = str(expected)
        super().__init__(log.subject(draft.channel), payload, headers)

    def comes_next(self, seq: int) -> bool:
        # It is known what lies there, so nobody has to wait until it was fed.
        return self.log.take_own(self, seq)

    def stored(self, seq: int, is_duplicate: bool) -> None:
        log = self.log
        known = None if self.draft.id is None else log.known(self.draft)
        if known is not None and known.seq >= seq:
            log.finish(self, Appended(known, duplicate=True))
        elif not is_duplicate:
            log.finish(self, Appended(Position(log.head.epoch, seq)))
        elif self.draft.id is None:
            log.fail(self, Unavailable("nobody knows whether this was published; try again with an id"))
        else:
            self.headers["Nats-Msg-Id"] = f"{self.name}#{seq}"
            log.send(self)

    def gives_up(self) -> bool:
        expect, newest = self.draft.expect, self.log.replica.newest(self.draft.channel)
        if expect is None or (expect.epoch == newest.epoch and expect.seq >= newest.seq):
            return False
        self.conflicts(newest.seq)
        return True

    def conflicts(self, newest: int) -> None:
        log, draft = self.log, self.draft
        head = log.replica.newest(draft.channel)
        if draft.expect == head and newest > head.seq:
            # What lies there never got into the log.
            self.headers[_EXPECTED] = str(newest)
            log.send(self)
            return
        log.fail(self, Conflict(f"{draft.channel} is at {head}, not at {draft.expect} as expected", head))


class Ephemeral(Operation[Appended]):
    """A message that only who is connected now is handed."""

    needs_answer = False

    def __init__(self, log: NatsLog, draft: Draft) -> None:
        time = log.now_ms() if log.clock_given is None else log.clock_given()
        body = body_of(draft, log.next_token(), log.head.seq, 0, time)
        super().__init__(log.passing(draft.channel), encode(body), {})
        self.message = body.placed(draft.channel, "", 0)

    def stored(self, seq: int, is_duplicate: bool) -> None:
        """It never is."""

    def conflicts(self, newest: int) -> None:
        """It cannot."""


class NatsLog(NatsStream):
    """The one log.

    Args:
        place: Where NATS is, and what the log is called.
        namespaces: Bounds of every namespace.
        dedupe_window_s: Seconds for which a publisher's id is remembered.
        queue_max_bytes: Bytes of operations that may wait.
        clock: Milliseconds since 1970; None means JetStream's own clock.
        trim_every_s: Seconds between looks at what the stream need not hold any more.
        keep_s: Seconds for which the stream holds what was dropped; None means as long as JetStream knows ids.
    """

    settings: LogSettings

    def __init__(
        self,
        place: NatsPlace,
        namespaces: Namespaces,
        dedupe_window_s: float,
        queue_max_bytes: int,
        clock: Callable[[], int] | None,
        trim_every_s: float,
        keep_s: float | None,
    ) -> None:
        window_s = max(dedupe_window_s, _LEAST_WINDOW_S, 4 * place.timeout_s)
        super().__init__(place, LogSettings(place, namespaces, window_s), queue_max_bytes)
        self.namespaces = namespaces
        self.window_ms = int(dedupe_window_s * 1000)
        self.clock_given = clock
        self.feed: Feed | None = None
        self.replica = self._replica_of("")
        self._next = self.replica
        self._origin = secrets.token_hex(6)
        self._tokens = 0
        self._own: dict[str, Append] = {}
        self._newest = (0, 0)  # place and JetStream's time of what was taken last; 0: it is not known yet
        self._ahead: dict[int, tuple[Append, int]] = {}
        self._early: deque[tuple[int, Message]] = deque()
        self._early_bytes = 0
        self._trim_every_s = trim_every_s
        self._keep_ms = int((window_s if keep_s is None else keep_s) * 1000)
        self._trimmed_at = 0.0
        self._responsible: dict[str, int] = {}
        self._doomed: dict[str, tuple[int, int]] = {}
        self._trimming: asyncio.Task[None] | None = None

    @property
    def head(self) -> Position:
        return self.replica.head

    def subject(self, channel: str) -> str:
        """Return where a channel's messages are published."""
        return f"{self.place.prefix}.log.{token_of(channel)}"

    def passing(self, channel: str) -> str:
        """Return where a channel's ephemeral messages are published."""
        return f"{self.place.prefix}.now.{token_of(channel)}"

    def next_token(self) -> str:
        """Name an append."""
        self._tokens += 1
        return f"{self._origin}.{self._tokens:x}"

    def known(self, draft: Draft) -> Position | None:
        """Return the place of the message that has a draft's id, where that is remembered."""
        if draft.id is None or not self.window_ms:
            return None
        seq = self.replica.known(draft.channel, draft.id, self._clock())
        return None if seq is None else Position(self.head.epoch, seq)

    def _clock(self) -> int:
        return self.now_ms() if self.clock_given is None else self.clock_given()

    def _replica_of(self, epoch: str) -> Replica:
        return Replica(self.namespaces, self.window_ms / 1000, self._clock, epoch)

    # Appending

    def begin(self, operation: Operation[Appended]) -> asyncio.Future[Appended]:  # type: ignore[override]
        answer = super().begin(operation)
        if isinstance(operation, Append):
            self._own[operation.own] = operation
        return answer

    def settled(self, operation: Operation[Appended]) -> None:
        if isinstance(operation, Append):
            self._own.pop(operation.own, None)
        # An ephemeral message is handed on once all that was begun before it is.
        while isinstance(oldest := self.oldest, Ephemeral) and oldest.sent_at is not None:
            self._hand_over(oldest.message)
            self.finish(oldest, Appended(None))

    # The feed

    def begin_loading(self) -> None:
        self._ahead.clear()
        self._next = self._replica_of(self.epoch)
        self._newest = (0, 0)

    def end_loading(self, is_first: bool, is_other: bool) -> None:
        self._next.loaded(self.applied)
        self.replica = self._next
        if is_other:
            assert self.feed is not None
            _log.warning("%s: %s; readers are told of a gap", self.place, self._why)
            self.feed.reset(self.head)

    def resumes_at(self) -> int | None:
        # What this node took of its own before it was fed is looked at: another server may have given its place away.
        seq = next(iter(self._ahead), self._newest[0])
        return max(seq, 1) if self._newest[0] == self.applied else None

    def fed(self, message: Fed) -> None:
        if message.seq <= self._newest[0]:
            self._had(message)
            return
        if self.is_loading:
            self._next.skip_to(message.seq)
            self._take(self._next, message)
        elif message.seq != self.applied + 1:
            self.reload("messages were deleted before this node could read them")
            return
        else:
            self._take(self.replica, message)
        self._newest = message.seq, message.time_ms

    def take_own(self, append: Append, seq: int) -> bool:
        """Take a message of this node's own that lies at `seq` before it is fed, if it comes next."""
        until = append.body.until
        if append.is_over or self.is_loading or seq != self.applied + 1 or self.ready is None:
            return False
        if (
            not until
            or self.now_ms() > until - _GRACE_MS
            or self._is_outrun(self.replica, append.draft.channel, append)
        ):
            return False  # whether it is in the log is told by what is fed
        self.applied = seq
        self._newest = seq, 0
        self._ahead[seq] = append, until
        self._place(self.replica, append.draft.channel, append.body, seq)
        self._fed_up_to()
        return True

    def _had(self, message: Fed) -> None:
        """Take what was there already: of this node's own, or the last one again, after a lost connection."""
        seq, time = self._newest
        append, until = self._ahead.pop(message.seq, (None, 0))
        if append is not None:
            if message.data != append.payload:
                self.reload("what NATS had acknowledged is not there", is_replaced=True)
                return
            if append.sent_at is not None:
                self.clock(append.sent_at, message.time_ms)
            if message.time_ms > until:
                self.reload("a clock was set", is_replaced=True)  # the other nodes did not take it
                return
        if message.seq == seq and not time:
            self._newest = seq, message.time_ms
        elif message.seq == seq and message.time_ms != time:
            self.reload("the log was replaced by another one", is_replaced=True)

    def _take(self, replica: Replica, message: Fed) -> None:
        try:
            body = decode(message.data)
        except msgspec.MsgspecError:
            _log.warning("%s: what lies at %d was not published by Tellwire", self.place, message.seq)
            self._pass(replica, message.seq)
            return
        append = self._own.get(body.token)
        if append is not None and append.sent_at is not None:
            self.clock(append.sent_at, message.time_ms)
        channel = channel_of(message.subject.rpartition(".")[2])
        if body.until and message.time_ms > body.until:
            self._pass(replica, message.seq)
            if append is not None:
                self.fail(append, Unavailable(f"{self.place} was too slow, so this was not published; try again"))
        elif self._is_outrun(replica, channel, message):
            self._pass(replica, message.seq)
            if append is not None and not self.is_loading:
                append.conflicts(replica.newest(channel).seq)
        else:
            self._place(replica, channel, body, message.seq)

    def _is_outrun(self, replica: Replica, channel: str, message: Fed | Append) -> bool:
        """Tell whether another message came between one and what was expected to be before it.

        A cluster of nats-server 2.9 looks at the condition before it gives the message its place, and lets two in that
        come at once. Of those the first stands, for every node.
        """
        expected = int(message.headers.get(_EXPECTED, "0"))
        return expected > 0 and replica.newest(channel).seq > expected

    def _place(self, replica: Replica, channel: str, body: Body, seq: int) -> None:
        placed = body.placed(channel, self.epoch, seq)
        replica.keep(placed, body.before, body.id is not None)
        if body.token.startswith(self._origin):
            self._responsible[channel] = seq
        else:
            self._responsible.pop(channel, None)
        append = self._own.get(body.token)
        if not self.is_loading:
            self._hand_over(placed)
            if append is not None:
                self.finish(append, Appended(Position(self.epoch, seq)))
            self._let_early()
        elif append is not None:
            mine, position = append, Position(self.epoch, seq)
            self.when_fed(seq, lambda: self.finish(mine, Appended(position)))

    def _pass(self, replica: Replica, seq: int) -> None:
        """Go past a place at which there is no message for anybody."""
        replica.reach(seq)
        if not self.is_loading:
            # The feed has to know how far it is all the same, and is told by a message in a channel that there
            # cannot be.
            self._hand_over(Message("", seq, "", 0, b""))

    def _hand_over(self, message: Message) -> None:
        """Hand a message to the feed, whose failures are its own."""
        assert self.feed is not None
        try:
            self.feed.deliver((message,))
        except Exception:
            _log.exception("the feed of %s failed; its messages are in the log", self.place)

    # Ephemeral messages

    async def subscribe(self, client: Client) -> None:
        async def passed(message: Msg) -> None:
            self._passed(message)

        await client.subscribe(f"{self.place.prefix}.now.*", cb=passed, pending_bytes_limit=16 * 1024 * 1024)

    def _passed(self, message: Msg) -> None:
        body = decode(message.data)
        if body.token.startswith(self._origin):
            return
        placed = body.placed(channel_of(message.subject.rpartition(".")[2]), "", 0)
        if body.before <= self.head.seq:
            self._hand_over(placed)
            return
        # It overtook what was published before it, and waits for that.
        self._early.append((body.before, placed))
        self._early_bytes += placed.size
        while self._early_bytes > _EARLY_MAX_BYTES:
            self._early_bytes -= self._early.popleft()[1].size

    def _let_early(self) -> None:
        while self._early and self._early[0][0] <= self.head.seq and not self.is_loading:
            message = self._early.popleft()[1]
            self._early_bytes -= message.size
            self._hand_over(message)

    async def _note_floor(self) -> None:
        """Write down up to where channels were dropped, for nodes that have other namespaces."""
        client = self.ready
        if client is None:
            return
        try:
            await self.settings.note_floor(client, self.place, self.epoch, self.replica.dropped)
        except (Unavailable, Refused) as exc:
            _log.warning("%s: it could not be written down what was dropped: %s", self.place, exc)

    async def parting(self) -> None:
        if self._trimming is not None:
            await self._trimming
        await self._note_floor()

    # Trimming the stream

    def tick(self, now: float) -> None:
        if self.ready is not None and now >= self._trimmed_at + self._trim_every_s:
            self._trimmed_at = now
            self._trimming = asyncio.get_running_loop().create_task(self._trim())

    async def _trim(self) -> None:
        """Delete from the stream what no node keeps any more, and what is so old that its id is not needed either.

        Of a channel that has messages its newest one that was dropped stays: it tells a node that loads the stream
        how far back the channel goes. Each channel is the business of who published to it last.
        """
        await self._note_floor()
        now = self.now_ms()
        for channel, (before, since) in list(self._doomed.items()):
            if since + self._keep_ms <= now:
                del self._doomed[channel]
                await self.call("STREAM.PURGE", filter=self.subject(channel), seq=before)
        for channel, last in list(self._responsible.items()):
            floor = self.replica.floor(channel)
            if floor is None:
                del self._responsible[channel]
                self._doomed[channel] = last + 1, now
            elif floor and channel not in self._doomed:
                self._doomed[channel] = floor, now
