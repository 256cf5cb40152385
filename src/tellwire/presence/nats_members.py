"""The bucket of members as one node sees it: a table that follows what JetStream has stored.

A bucket is a stream that keeps the newest value of each key. Keys::

    m.CHANNEL.CLIENT    a member, and its place among those of its channel
    n.NODE              when a node's lease is over (ms since 1970), 0 where it was taken

Names are in base64url behind a ``c``, because a key may not be empty, and takes few characters.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections import deque
from typing import NamedTuple

import msgspec
from nats.aio.client import Client

from tellwire.brokers.nats_operations import Operation
from tellwire.brokers.nats_settings import StreamSettings
from tellwire.brokers.nats_stream import Fed, NatsStream
from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import InvalidData
from tellwire.presence.base import Member
from tellwire.presence.table import Table

_QUEUE_MAX_BYTES = 16 * 1024 * 1024
_MARKER_KEPT_S = 60.0
"""Seconds for which the mark of a deleted key stays: a node whose feed lags so far loads the bucket anew."""
_HISTORY = 4
"""Values kept of each key: by those before it a node that was away tells what its own change found there."""
_MARKERS_AT_ONCE = 500
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WINDOW_NS = 120 * 1_000_000_000


class Held(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a member's key; ``order`` 0 stands for the value's own place in the stream."""

    member: Member
    order: int


_holds = msgspec.msgpack.Decoder(Held)


class Key(NamedTuple):
    """What is known of a key that is there."""

    rev: int
    order: int
    channel: str
    client: str


class Outcome(NamedTuple):
    """What became of a change: the place of what was there instead, or None and what was there before it."""

    newest: int | None
    before: Member | int | None = None


class Change(Operation[Outcome]):
    """A new value of a key, or its end.

    A cluster of nats-server 2.9 looks at the condition before it gives a change its place, and lets two in that come at
    once. So what was there before is told by the feed, in which they have an order. `expected` is what was there when
    the change was made.
    """

    def __init__(
        self, bucket: Bucket, key: str, payload: bytes, expected: int, token: str, before: Member | int | None
    ) -> None:
        headers = {"Nats-Msg-Id": token, _EXPECTED: str(expected)}
        self.token = token
        self.before = before
        if not payload:
            headers["KV-Operation"] = "DEL"
        self.bucket = bucket
        super().__init__(bucket.subject(key), payload, headers)

    def stored(self, seq: int, is_duplicate: bool) -> None:
        self.bucket.finish(self, Outcome(None, self.before))
        if not self.payload:
            self.bucket.mark(self.subject, seq)

    def conflicts(self, newest: int) -> None:
        self.bucket.finish(self, Outcome(newest))


class Bucket(NatsStream):
    """The bucket; ``table`` has what it holds.

    Args:
        place: Where NATS is, and what the log is called that the members are beside.
    """

    def __init__(self, place: NatsPlace) -> None:
        name = f"{place.prefix}-presence"
        self._prefix = f"$KV.{name}."
        super().__init__(
            place,
            StreamSettings(
                {
                    "name": f"KV_{name}",
                    "subjects": [f"{self._prefix}>"],
                    "max_msgs_per_subject": _HISTORY,
                    "allow_rollup_hdrs": True,
                    "deny_delete": True,
                    "discard": "new",
                    "max_age": 0,
                    "duplicate_window": max(_WINDOW_NS, int(4e9 * place.timeout_s)),
                }
            ),
            _QUEUE_MAX_BYTES,
        )
        self.table = Table()
        self.keys: dict[str, Key] = {}
        self.leases: dict[str, tuple[int, int]] = {}
        """Node -> place and value of its lease."""
        self.is_doubtful = False
        """Whether the bucket was lost since the last beat."""
        self._nodes: dict[str, str] = {}
        self._next = Table()
        self._next_keys: dict[str, Key] = {}
        self._loaded_epoch = ""
        self._markers: deque[tuple[float, str, int]] = deque()
        self._sweeper: asyncio.Task[None] | None = None
        self._own: dict[str, Change] = {}
        self.broken: list[Member] = []
        """Members that are there, though their key was ended by a leave of what was there before them."""

    def subject(self, key: str) -> str:
        """Return the subject of a key."""
        return self._prefix + key

    def member_key(self, channel: str, client: str) -> str:
        """Return the key of a member; raises InvalidData."""
        return f"m.{_token(channel)}.{_token(client)}"

    def node_key(self, node: str) -> str:
        """Return the key of a node's lease; raises InvalidData."""
        key = f"n.{_token(node)}"
        self._nodes[key] = node
        return key

    def mark(self, subject: str, seq: int) -> None:
        """Take note that the end of a key lies at a place; it is deleted too, once every node was fed it."""
        self._markers.append((asyncio.get_running_loop().time(), subject, seq))

    # The feed

    def begin_loading(self) -> None:
        self._next, self._next_keys = Table(), {}
        self.leases = {}
        self._nodes = {}

    def end_loading(self, is_first: bool, is_other: bool) -> None:
        loaded, self._next = self._next, Table()
        self.table, self.keys = Table(), self._next_keys
        for known in sorted(self.keys.values(), key=lambda known: known.order):
            member = loaded.find(known.channel, known.client)
            assert member is not None
            self.table.enter(member)
        for node, (_, until) in self.leases.items():
            self._renew(node, until)
        if self._loaded_epoch not in ("", self.epoch):
            self.is_doubtful = True
        self._loaded_epoch = self.epoch

    def begin(self, operation: Operation[Outcome]) -> asyncio.Future[Outcome]:  # type: ignore[override]
        answer = super().begin(operation)
        if isinstance(operation, Change):
            self._own[operation.token] = operation
        return answer

    def fed(self, message: Fed) -> None:
        key = message.subject[len(self._prefix) :]
        before: Member | int | None
        if key.startswith("n."):
            before = self._fed_lease(key, message)
        elif self.is_loading:
            before = self._fed_member(self._next, self._next_keys, key, message)
            self._fed_mark(message)
        else:
            before = self._fed_member(self.table, self.keys, key, message)
        own = self._own.get(message.headers.get("Nats-Msg-Id", ""))
        if own is not None:
            own.before = before

    def _fed_lease(self, key: str, message: Fed) -> int:
        known = self._nodes.get(key, "")
        before = self.leases.get(known, (0, 0))[1]
        if message.data:
            node, until = msgspec.msgpack.decode(message.data, type=tuple[str, int])
            self._nodes[key] = node
            self.leases[node] = message.seq, until
            if not self.is_loading:
                self._renew(node, until)
        elif self.is_loading:
            self._fed_mark(message)
        else:
            self.leases.pop(known, None)
            self._nodes.pop(key, None)
            self.table.give_up([known])
            self.table.forget([known])
        return before

    def _fed_member(self, table: Table, keys: dict[str, Key], key: str, message: Fed) -> Member | None:
        known = keys.get(key)
        before = None if known is None else table.find(known.channel, known.client)
        if message.data:
            held = _holds.decode(message.data)
            table.enter(held.member)
            keys[key] = Key(message.seq, held.order or message.seq, held.member.channel, held.member.client)
        elif known is not None and known.rev > int(message.headers.get(_EXPECTED, "0")) > 0:
            # It was to end what was there before, and somebody had entered meanwhile: that stands.
            if before is not None and not self.is_loading:
                self.broken.append(before)
            return None
        elif known is not None:
            del keys[key]
            table.leave(known.channel, known.client)
        return before

    def _fed_mark(self, message: Fed) -> None:
        if not message.data and self.now_ms() - message.time_ms > 1000 * _MARKER_KEPT_S:
            self.mark(message.subject, message.seq)  # whoever left it there is gone

    def _renew(self, node: str, until: int) -> None:
        if until:
            self.table.renew(node, until)
        else:
            self.table.give_up([node])

    # What else a stream has

    async def subscribe(self, client: Client) -> None:
        """Nothing to do."""

    def settled(self, operation: Operation[Outcome]) -> None:
        if isinstance(operation, Change):
            self._own.pop(operation.token, None)

    def tick(self, now: float) -> None:
        is_due = bool(self._markers) and self._markers[0][0] + _MARKER_KEPT_S < now
        if is_due and (self._sweeper is None or self._sweeper.done()):
            self._sweeper = asyncio.get_running_loop().create_task(self._clear(now))

    async def _clear(self, now: float) -> None:
        for _ in range(_MARKERS_AT_ONCE):
            if self.ready is None or not self._markers or self._markers[0][0] + _MARKER_KEPT_S >= now:
                return
            _, subject, seq = self._markers.popleft()
            await self.call("STREAM.PURGE", filter=subject, seq=seq + 1)

    async def parting(self) -> None:
        if self._sweeper is not None:
            await asyncio.gather(self._sweeper, return_exceptions=True)


def _token(name: str) -> str:
    try:
        return "c" + urlsafe_b64encode(name.encode()).decode().rstrip("=")
    except UnicodeEncodeError as exc:
        raise InvalidData(f"a name holds half a surrogate pair and cannot be kept: {exc}") from exc
