"""A stream of JetStream as several nodes share it: each is fed all of it, in order, and writes to it.

Whatever a node has to know it takes from what it is fed; so a node that is fed the same is the same. An operation is
one message. It may be sent several times, and names itself, so that JetStream stores it once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from abc import abstractmethod
from typing import Any, NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from tellwire.brokers.nats_link import NotYet, Refused, ask, dial, end, hang_up
from tellwire.brokers.nats_operations import NatsOperations
from tellwire.brokers.nats_settings import StreamSettings
from tellwire.brokers.nats_url import NatsPlace
from tellwire.brokers.reconnecting import connect_again
from tellwire.errors import Unavailable
from tellwire.message import SEQ_MAX

_log = logging.getLogger("tellwire")

_PAUSE_S = 0.05
_HEARTBEAT_S = 0.5
_REPLICA_HEARTBEATS = 6
"""Heartbeats at the end of a replica after which what it still lacks counts as deleted."""
_SILENCE_S = 5 * _HEARTBEAT_S
"""Seconds without a message or a heartbeat after which the feed is taken for lost."""
_FEED_MAX_BYTES = 64 * 1024 * 1024
_FIRST_FEED_S, _FEED_GROWTH, _LAST_FEED_S = 0.5, 1.25, 5.0
"""Seconds after which a feed that was asked for counts as lost, and how they grow. A cluster has any server of the
stream make it, for a while also one that has just died; nobody answers then, and the next time it may be another."""

_NS = 1_000_000_000


class Fed(NamedTuple):
    """What a node is fed."""

    subject: str
    seq: int
    time_ms: int
    """When JetStream stored it, in milliseconds since 1970."""
    headers: dict[str, str]
    data: bytes


class _Delivered(msgspec.Struct):
    consumer_seq: int = 0


class _Consumer(msgspec.Struct):
    num_pending: int = 0
    delivered: _Delivered = msgspec.field(default_factory=_Delivered)


class _Message(msgspec.Struct):
    seq: int


class _Found(msgspec.Struct):
    message: _Message


_consumers = msgspec.json.Decoder(_Consumer)
_founds = msgspec.json.Decoder(_Found)


class NatsStream(NatsOperations):
    """One node's end of a stream.

    Args:
        place: Where NATS is.
        settings: What the stream is to be like.
        policy: From where on it is fed when it is loaded.
        queue_max_bytes: Bytes of operations that may wait; a further one raises Unavailable.
    """

    def __init__(
        self, place: NatsPlace, settings: StreamSettings, queue_max_bytes: int, policy: dict[str, Any] | None = None
    ) -> None:
        super().__init__(place, queue_max_bytes)
        self._policy = policy or {"deliver_policy": "all"}
        self.settings = settings
        self.name = settings.name
        self.epoch = ""
        self.reconnects = 0
        self._known = ""  # the epoch that was loaded last
        self._is_replaced = False
        self._feed_wait_s = _FIRST_FEED_S
        self._consumed = 0
        self._target = 0
        """Where the stream was when it was found: up to there everything is fed, or not there any more."""
        self._at_end = False
        self._patience = 0
        self._heard = 0.0
        self._caught = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._sender: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[int] | None = None

    # What a kind of stream adds

    @abstractmethod
    def begin_loading(self) -> None:
        """Forget everything: the whole stream is fed from its beginning."""

    @abstractmethod
    def end_loading(self, is_first: bool, is_other: bool) -> None:
        """Take note that the stream was fed so far; `is_other` if another one was known before."""

    @abstractmethod
    def fed(self, message: Fed) -> None:
        """Take what was fed."""

    def resumes_at(self) -> int | None:
        """Return from which place on the stream is to be fed after a lost connection; None: load it anew."""
        return None

    @abstractmethod
    async def subscribe(self, client: Client) -> None:
        """Subscribe on a fresh connection to what else there is."""

    @abstractmethod
    def tick(self, now: float) -> None:
        """Do what is to be done now and then; `now` is the loop's time."""

    async def parting(self) -> None:  # most have nothing to do
        """Do what is to be done before the connection is closed for good."""

    # The feed

    async def level(self) -> None:
        """Wait until all was fed that is in the stream at this moment; raises Unavailable."""
        if not self._is_open:
            raise Unavailable("the connection to NATS is closed")
        # A node begins what it asks of a broker outside of any task (`tellwire.tasks`); a timeout wants one.
        await asyncio.get_running_loop().create_task(self._level())

    async def _level(self) -> None:
        try:
            async with asyncio.timeout(self.place.timeout_s):
                while True:
                    # Whoever asks while an answer is on its way may want what came after that was made.
                    if self._looking is not None:
                        await asyncio.wait([self._looking])
                    if self._looking is None or self._looking.done():
                        self._looking = asyncio.get_running_loop().create_task(self._look())
                        self._looking.add_done_callback(_looked_at)
                    looking = self._looking
                    await asyncio.wait([looking])
                    if not looking.cancelled() and looking.exception() is None:
                        break
                    await asyncio.sleep(_PAUSE_S)
                fed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self.when_fed(looking.result(), lambda: _resolve(fed))
                await fed
        except TimeoutError:
            raise Unavailable(
                f"{self.place} did not answer in {self.place.timeout_s:g} seconds ({self._why})"
            ) from None

    async def _look(self) -> int:
        client = self.ready
        if client is None:
            raise Unavailable(self._why)
        applied = self.applied
        try:
            info = await self.settings.look(client, self.place)
        except Refused as exc:
            self.abandon(f"the stream cannot be read: {exc}")
            raise Unavailable(str(exc)) from exc
        if info.epoch != self.epoch or info.state.last_seq < applied:
            self.abandon("the log was lost or replaced")
            raise Unavailable(self._why)
        return info.state.last_seq

    async def _on_fed(self, client: Client, message: Msg) -> None:
        if client is not self._client or self._lost.is_set():
            return
        self._heard = asyncio.get_running_loop().time()
        headers = message.headers or {}
        if "Status" in headers:  # a heartbeat, or the question whether we keep up
            wanted = message.reply or headers.get("Nats-Consumer-Stalled", "")
            if wanted:
                await client.publish(wanted)
            if int(headers.get("Nats-Last-Consumer", "0")) > self._consumed:
                self.abandon("the feed lost a message")
            elif not self._caught.is_set() and self._at_end:
                self._patience -= 1
                if self._patience == 0 and self.applied < self._target and await self._has_more(client):
                    self.abandon("the server that feeds the stream lags behind the others")
                else:
                    self._catch_up()
            return
        parts = message.reply.split(".")
        seq, consumed, stamp, pending = (int(part) for part in parts[-4 if len(parts) == 9 else 7 :][:4])
        if consumed != self._consumed + 1:
            self.abandon("the feed lost a message")
            return
        self._consumed = consumed
        try:
            self.fed(Fed(message.subject, seq, stamp // 1_000_000, headers, message.data))
        except Exception:
            _log.exception("%s: what lies at %d in the stream %s cannot be read", self.place, seq, self.name)
        if self._lost.is_set():
            return
        self.applied = max(seq, self.applied)
        if self.is_loading or not self._caught.is_set():
            self._at_end = pending == 0
            if self._at_end or self.applied >= self._target:
                self._catch_up()
        else:
            self._fed_up_to()

    async def _has_more(self, client: Client) -> bool:
        """Tell whether the stream's leader has what is not fed; nothing is known where it does not answer."""
        wanted: dict[str, Any] = {"seq": self.applied + 1, "next_by_subj": ">"}
        try:
            found = _founds.decode(await ask(client, self.place, f"STREAM.MSG.GET.{self.name}", **wanted))
        except Refused:
            return False
        except Unavailable:
            return True
        return found.message.seq <= self._target

    def _catch_up(self) -> None:
        if self.applied < self._target and self._patience > 0:
            return  # it is fed by a replica that may not have the newest messages yet
        if not self.is_loading and self.applied < self._target:
            self.reload("messages were deleted before this node could read them")
            return
        self.applied = max(self.applied, self._target)
        if self.is_loading:
            self.is_loading = False
            known, self._known = self._known, self.epoch
            self.end_loading(not known, bool(known))
        self._caught.set()
        self._fed_up_to()

    # The connection

    async def start(self) -> None:
        """Connect for the first time; raises Unavailable where that fails."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.place.timeout_s
        for turn in itertools.count():
            try:
                await self._connect()
                break
            except NotYet:  # a cluster that has just started may also lose an answer
                if turn and loop.time() > until:
                    raise
                await asyncio.sleep(_PAUSE_S)
        self._is_open = True
        self._tasks = [loop.create_task(self._keep()), loop.create_task(self._watch())]

    async def stop(self) -> None:
        """Wait until what was begun is done or has failed, then disconnect."""
        if not self._is_open:
            return
        self._is_open = False
        if self._operations:
            # Not their answers are waited for: a caller that was cancelled does not take back what it began.
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        await self.parting()
        await end(*self._tasks)
        await self._disconnect()

    async def _disconnect(self) -> None:
        self._ready = False
        client, self._client = self._client, None
        if self._sender is not None:
            await end(self._sender)
            self._sender = None
        if client is not None:
            await hang_up(client)

    async def _connect(self) -> None:
        await self._disconnect()
        self._lost.clear()
        self._caught.clear()
        client = self._client = await dial(self.place, self._on_lost)
        try:
            await self._attach(client)
        except (NatsError, Refused, OSError, msgspec.MsgspecError) as exc:
            await self._disconnect()
            raise Unavailable(f"{self.place} cannot be used: {exc}") from exc
        except BaseException:
            await self._disconnect()
            raise

    async def _attach(self, client: Client) -> None:
        self._inbox = client.new_inbox()

        async def answered(message: Msg) -> None:
            await self._on_answer(client, message)

        async def fed(message: Msg) -> None:
            await self._on_fed(client, message)

        await client.subscribe(f"{self._inbox}.a.*", cb=answered)
        await client.subscribe(f"{self._inbox}.f", cb=fed, pending_bytes_limit=_FEED_MAX_BYTES)
        await self.subscribe(client)
        known = None if not self.epoch else (self.epoch, SEQ_MAX if self._is_replaced else self.applied)
        info = await self.settings.find(client, self.place, known)
        start = None if info.epoch != self.epoch or self.is_loading else self.resumes_at()
        if start is None:
            if info.epoch != self.epoch:
                self._waiting.clear()  # their operations are sent again
            self.epoch = info.epoch
            self._is_replaced = False
            self.applied = 0
            self.is_loading = True
            self.begin_loading()
        self._consumed, self._target, self._at_end = 0, info.state.last_seq, False
        self._patience = _REPLICA_HEARTBEATS if int(info.config.get("num_replicas", 1)) > 1 else 0
        self._heard = asyncio.get_running_loop().time()
        config = {
            "deliver_subject": f"{self._inbox}.f",
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": int(_HEARTBEAT_S * _NS),
            "num_replicas": 1,
            "mem_storage": True,
            **self._policy,
        }
        if start is not None:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
        wanted: dict[str, Any] = {"stream_name": self.name, "config": config}
        wait_s, self._feed_wait_s = self._feed_wait_s, min(self._feed_wait_s * _FEED_GROWTH, _LAST_FEED_S)
        made = await ask(client, self.place, f"CONSUMER.CREATE.{self.name}", wait_s=wait_s, **wanted)
        self._feed_wait_s = _FIRST_FEED_S
        consumer = _consumers.decode(made)
        if not consumer.num_pending and not consumer.delivered.consumer_seq and not self._consumed:
            self._at_end = True
            self._catch_up()
        await self._until_caught()
        self._ready = True
        self._send_all()
        self._sender = asyncio.get_running_loop().create_task(self._send(client))

    def reload(self, why: str, *, is_replaced: bool = False) -> None:
        """Give the connection up, and load the whole stream over the next one.

        `is_replaced`: what is there is not what was there, and gets an epoch of its own.
        """
        self.is_loading = True
        self._is_replaced = self._is_replaced or is_replaced
        self.abandon(why)

    async def _until_caught(self) -> None:
        loop = asyncio.get_running_loop()
        caught = loop.create_task(self._caught.wait())
        lost = loop.create_task(self._lost.wait())
        try:
            while not caught.done() and not lost.done():
                await asyncio.wait([caught, lost], timeout=_SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
                if not caught.done() and loop.time() - self._heard > max(_SILENCE_S, self.place.timeout_s):
                    raise Unavailable(f"{self.place} does not feed the stream {self.name}")
        finally:
            caught.cancel()
            lost.cancel()
        if self._lost.is_set():
            raise NotYet(f"{self.place} cannot be used: {self._why}")

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = self.place.timeout_s / 20
        looked_at = loop.time()
        while True:
            await asyncio.sleep(pause_s)
            now = loop.time()
            if now - looked_at > pause_s + _HEARTBEAT_S:
                self._heard = now  # this process stood still itself, and has what it was sent yet to read
            looked_at = now
            self._look_after(now)
            if self._ready and self._heard + _SILENCE_S < now:
                self.abandon(f"nothing was heard of the feed for {_SILENCE_S:g} seconds")
            self.tick(now)

    def _on_lost(self, client: Client, why: str) -> None:
        if client is self._client:
            self.abandon(why)

    def _failed(self, why: str) -> None:
        self._why = why

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            _log.warning("%s: %s; connecting again", self.place, self._why)
            await connect_again(self._connect, self.place, self._failed)
            self.reconnects += 1

    # What is done to the stream besides

    async def call(self, what: str, **request: Any) -> None:
        """Have JetStream do something to the stream, whatever comes of it."""
        client = self.ready
        if client is not None:
            await client.publish(f"$JS.API.{what}.{self.name}", msgspec.json.encode(request), f"{self._inbox}.a.0")


def _looked_at(look: asyncio.Future[int]) -> None:
    """Take note of what a look has failed with: by then nobody may wait for it any more."""
    if not look.cancelled():
        look.exception()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
