"""One connection to a Redis, on which answers and announcements come in the order in which they happened.

redis-py has a connection for commands and another one for what is published; which of two things came first cannot be
told there. Over RESP3 (Redis 6) both come on one connection, in order, and that order is what the broker's feed stands
on. So this is an asyncio protocol around hiredis. It asks a Cluster, too, where a key is; the Sentinels are asked by
redis-py.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis
from redis.asyncio.sentinel import Sentinel
from redis.crc import key_slot
from redis.exceptions import RedisError

from tellwire.brokers.redis_url import RedisPlace
from tellwire.errors import Unavailable

Answer = Callable[[Any], None]
"""Called with a reply; an error that Redis replied is a `hiredis.ReplyError`."""

_NOTHING = object()


class Lost(Exception):
    """The connection is not there any more; the text says why."""


class Link(asyncio.Protocol):
    """A connection; made by `dial`.

    Args:
        on_push: Called with what was published: (channel, payload).
        on_lost: Called once, when the connection is lost or was aborted, with the reason.
        timeout_s: Seconds without an answer to the oldest command after which the connection is given up.
    """

    def __init__(
        self,
        on_push: Callable[[bytes, bytes], None],
        on_lost: Callable[[Link, str], None],
        timeout_s: float,
    ) -> None:
        self.id = 0
        """Redis' name of this connection."""
        self._on_push = on_push
        self._on_lost = on_lost
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._answers: deque[Answer] = deque()
        self._out: list[bytes] = []
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._reason: str | None = None

    # Commands

    def call(self, answer: Answer, *command: str | bytes | int) -> None:
        """Send a command; all of one turn of the event loop go out together."""
        packed = hiredis.pack_command(cast(Any, command))
        if self._reason is not None:
            return  # whoever waits is told by on_lost
        if not self._answers:
            self._heard = self._loop.time()
        self._answers.append(answer)
        self._send(packed)

    def tell(self, *command: str | bytes | int) -> None:
        """Send a command whose only answers are announcements: SUBSCRIBE, UNSUBSCRIBE."""
        if self._reason is None:
            self._send(hiredis.pack_command(cast(Any, command)))

    def _send(self, packed: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    async def ask(self, *command: str | bytes | int) -> Any:
        """Send a command and wait for its reply; raises Lost, `hiredis.ReplyError`."""
        if self._reason is not None:
            raise Lost(self._reason)
        reply: asyncio.Future[Any] = self._loop.create_future()

        def answered(value: Any) -> None:
            if not reply.done():
                if isinstance(value, Exception):
                    reply.set_exception(value)
                else:
                    reply.set_result(value)

        self.call(answered, *command)
        return await reply

    def abort(self, reason: str) -> None:
        """Give the connection up."""
        if self._reason is None:
            self._reason = reason
            if self._watch is not None:
                self._watch.cancel()
            if self._transport is not None:
                self._transport.abort()
            for answer in self._answers:
                answer(Lost(reason))
            self._answers.clear()
            self._on_lost(self, reason)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._heard = self._loop.time()
        self._look()

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        reader = self._reader
        try:
            reader.feed(data)
            while self._reason is None:
                value = reader.gets()
                if value is _NOTHING:
                    return
                if type(value) is hiredis.PushNotification:
                    if value[0] == b"message":
                        self._on_push(value[1], value[2])
                elif self._answers:
                    self._answers.popleft()(value)
                else:
                    self.abort("it answered what was not asked")
        except hiredis.ProtocolError as exc:
            self.abort(f"it does not speak RESP3 ({exc})")

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort(f"the connection was lost ({exc})" if exc is not None else "the connection was closed")

    def _look(self) -> None:
        now = self._loop.time()
        if self._answers and now - self._heard > self._timeout_s:
            self.abort(f"nothing was heard for {self._timeout_s:g} seconds")
        else:
            self._watch = self._loop.call_later(self._timeout_s / 4, self._look)


async def dial(
    place: RedisPlace,
    on_push: Callable[[bytes, bytes], None],
    on_lost: Callable[[Link, str], None],
) -> Link:
    """Connect and say hello, within the place's timeout; raises Unavailable that says what is wrong."""
    try:
        async with asyncio.timeout(place.timeout_s):
            return await _open(place, await _find(place), on_push, on_lost)
    except (TimeoutError, OSError, Lost, hiredis.HiredisError, RedisError) as exc:
        raise Unavailable(f"{place} cannot be reached: {_reason(exc)}") from exc


async def _open(
    place: RedisPlace,
    address: tuple[str, int],
    on_push: Callable[[bytes, bytes], None],
    on_lost: Callable[[Link, str], None],
) -> Link:
    """Connect to one server and say hello."""
    tls = place.tls_context()
    _, link = await asyncio.get_running_loop().create_connection(
        lambda: Link(on_push, on_lost, place.timeout_s),
        *address,
        ssl=tls,
        server_hostname=address[0] if tls is not None else None,
    )
    login: list[str] = []
    if place.password is not None:
        login = ["AUTH", place.username or "default", place.password]
    try:
        hello = await link.ask("HELLO", "3", *login, "SETNAME", "tellwire")
        link.id = hello[b"id"]
        if place.db:
            await link.ask("SELECT", place.db)
    except BaseException:
        link.abort("it could not be used")
        raise
    return link


def _reason(exc: BaseException) -> str:
    return "it did not answer in time" if isinstance(exc, TimeoutError) and not str(exc) else str(exc)


async def _find(place: RedisPlace) -> tuple[str, int]:
    if place.is_cluster:
        return await _ask_cluster(place)
    return place.hosts[0] if place.master is None else await _ask_sentinels(place)


async def _ask_cluster(place: RedisPlace) -> tuple[str, int]:
    """Return the address of the master that has a place's keys, by the first of its hosts that knows one.

    Each time another one is asked first: one that is cut off from the others names masters that are none any more.
    """
    slot = key_slot(f"{{{place.tag}}}".encode())
    whys = []
    for host, port in random.sample(place.hosts, len(place.hosts)):
        try:
            async with asyncio.timeout(place.timeout_s / 2):
                ranges = await _slots(place, (host, port))
        except (TimeoutError, OSError, Lost, hiredis.HiredisError) as exc:
            whys.append(f"{host}:{port}: {_reason(exc)}")
            continue
        for first, last, (at, on, *_), *_ in ranges:
            if first <= slot <= last:
                return (at.decode() if at else host), on  # one that does not know its name was reached by this
        whys.append(f"{host}:{port}: no master has the slot of {place.tag!r}")
    raise Lost("; ".join(whys))


async def _slots(place: RedisPlace, address: tuple[str, int]) -> list[Any]:
    """Return what one server of a Cluster says of who has which slots: (first, last, (host, port, …), …) each."""
    link = await _open(place, address, lambda _channel, _payload: None, lambda _link, _why: None)
    try:
        return cast(list[Any], await link.ask("CLUSTER", "SLOTS"))
    finally:
        link.abort("what it was made for is done")


async def _ask_sentinels(place: RedisPlace) -> tuple[str, int]:
    assert place.master is not None
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        list(place.hosts),
        sentinel_kwargs={
            "socket_timeout": place.timeout_s / 2,
            "socket_connect_timeout": place.timeout_s / 2,
            "ssl": place.tls,
            **({"ssl_ca_certs": place.ca} if place.ca else {}),
        },
    )
    try:
        host, port = await sentinel.discover_master(place.master)
        return str(host), int(port)
    finally:
        for client in sentinel.sentinels:
            await client.aclose()
