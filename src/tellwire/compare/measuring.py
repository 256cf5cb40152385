"""What is measured of one transport, step by step."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from tellwire.compare.clients import Datagrams
from tellwire.compare.clock import Clock
from tellwire.compare.failures import Unmeasured
from tellwire.compare.figures import Meter, distribution_ms, spread_ms
from tellwire.compare.options import Options
from tellwire.compare.proxy import Proxy
from tellwire.compare.publishers import Publisher
from tellwire.compare.reader import Reader
from tellwire.compare.server_process import Gauge
from tellwire.compare.site import Site
from tellwire.compare.texts import Inbox, Texts, publish_paced
from tellwire.compare.wires import Wire

T = TypeVar("T")

Counter = Proxy | Datagrams
"""Counts what passes both ways."""

BYTE_PUBLISHES = 10
"""Publishes of each size whose bytes are counted, one after the other."""
QUIET_S = 0.05
"""For how long nothing may pass before the bytes count as all there, beside what the path adds."""
WARM = 20
"""Connections that are there already when memory is measured: what only the first ones cost is not counted."""


class Measuring:
    """Everything about one transport; the figures are in `found` as soon as they are there.

    Args:
        wire: The transport.
        direct: The server, as near as it can be reached: from there messages are published.
        site: The server, over the way that is measured.
        options: What to do.
        gauge: The server's process.
        found: Where the figures go (docs/compare.md).
        clock: By which all of it is timed.
    """

    def __init__(
        self,
        wire: Wire,
        direct: Site,
        site: Site,
        options: Options,
        gauge: Gauge,
        found: dict[str, Any],
        clock: Clock,
    ) -> None:
        self.wire = wire
        self.found = found
        self._direct = direct
        self._site = site
        self._options = options
        self._gauge = gauge
        self._clock = clock
        self._texts = Texts(clock)
        # A retransmission or two, and every exchange over a long way, are no reason to give up.
        path = options.path
        self._patience_s = options.patience_s + 10 * path.round_trip_s + (10 if path.loss else 0)
        if wire.is_paced:
            self._patience_s += 2 * options.poll_s

    def steps(self) -> list[tuple[str, Callable[[Publisher], Awaitable[None]]]]:
        """Return what there is to do, in order, each with a name for people."""
        steps: list[tuple[str, Callable[[Publisher], Awaitable[None]]]] = [("connecting", self._connect)]
        if self._options.idle and self._gauge.memory_bytes() is not None:
            steps.append(("memory", self._memory))
        steps.append(("bytes", self._bytes))
        for count in self._options.readers:
            name = "1 reader" if count == 1 else f"{count} readers"
            steps.append((name, lambda publisher, count=count: self._deliver(publisher, count)))  # type: ignore[misc]
        steps.append(("resuming", self._resume))
        return steps

    def _reader(self, inbox: Inbox, *, site: Site | None = None, channel: str | None = None) -> Reader:
        name = self._options.channel if channel is None else channel
        return self.wire.reader(site or self._site, name, inbox.take, poll_s=self._options.poll_s)

    async def _within(self, doing: Awaitable[T], *readers: Reader, extra_s: float = 0.0, what: str = "") -> T:
        """Wait for something; raises Unmeasured where it takes too long, or a reader cannot go on meanwhile."""
        task: asyncio.Future[T] = asyncio.ensure_future(doing)
        patience_s = self._patience_s + extra_s
        try:
            watched: list[asyncio.Future[Any]] = [task, *(reader.lost for reader in readers)]
            done, _ = await asyncio.wait(watched, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
            if task.done():
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Unmeasured):
                    await task
            elif not task.cancelled():
                task.exception()  # where a reader was lost in the same turn, that is what is told
        raise Unmeasured("broken", f"{what or 'nothing'} came within {patience_s:g} s")

    async def _open(self, reader: Reader, since: str = "") -> None:
        try:
            await self._within(reader.open(since))
        except Unmeasured as why:
            reader.abort()
            if why.status == "broken" and "came within" in why.says:
                says = f"it was asked for, and nothing came within {self._patience_s:g} s"
                if self.wire.is_stream:
                    raise Unmeasured("buffered", f"{says}: something on the way keeps the stream to itself") from why
                raise Unmeasured("blocked", f"{says}: something on the way swallows it") from why
            raise

    @contextlib.asynccontextmanager
    async def _readers(self, inboxes: Sequence[Inbox], site: Site | None = None) -> AsyncIterator[list[Reader]]:
        readers: list[Reader] = []
        try:
            for number, inbox in enumerate(inboxes):
                if self.wire.is_paced and number:
                    # Strangers do not poll in step.
                    await asyncio.sleep(min(self._options.poll_s / len(inboxes), 0.05))
                readers.append(self._reader(inbox, site=site))
                await self._open(readers[-1])
            yield readers
        finally:
            for reader in readers:
                reader.abort()

    async def _publish(self, publisher: Publisher, count: int) -> None:
        for _ in range(count):
            publisher.send(self._options.channel, self._texts.make(self._options.size, self._clock.now()))
        await self._within(publisher.settle(), what="no answer to a publish")

    async def _connect(self, publisher: Publisher) -> None:
        """Until everything published from then on comes; until a message that is there already has come."""
        connects: list[float] = []
        firsts: list[float] = []
        # What only the first connection of a process costs, here and there, such as loading a library.
        warm = self._reader(Inbox(self._texts))
        await self._open(warm)
        warm.abort()
        with Meter() as meter:
            for _ in range(self._options.tries):
                reader = self._reader(Inbox(self._texts))
                begin = self._clock.now()
                await self._open(reader)
                connects.append(self._clock.now() - begin)
                reader.abort()
                since = reader.cursor
                inbox = Inbox(self._texts)
                await self._publish(publisher, 1)
                second = self._reader(inbox)
                try:
                    begin = self._clock.now()
                    await self._open(second, since)
                    await self._within(inbox.have(1), second, what="no message")
                    firsts.append(self._texts.due[inbox.numbers[0]] + inbox.latencies_s[0] - begin)
                finally:
                    second.abort()
        self.found["connect_ms"] = spread_ms(connects, meter)
        self.found["first_message_ms"] = spread_ms(firsts, meter)

    async def _memory(self, publisher: Publisher) -> None:
        """What idle connections add to the server's resident memory."""
        idle = min(self._options.idle, self.wire.idle_max)
        warm = min(WARM, idle)
        with Meter() as meter:
            async with self._readers([Inbox(self._texts) for _ in range(warm)], self._direct):
                before = self._gauge.memory_bytes()
                readers: list[Reader] = []
                try:
                    for _ in range(idle):
                        # The way makes no difference to memory, but to how long hundreds of handshakes take.
                        readers.append(self._reader(Inbox(self._texts), site=self._direct))
                        await self._open(readers[-1])
                    after = self._gauge.memory_bytes()
                finally:
                    for reader in readers:
                        reader.abort()
        if before is None or after is None:
            return
        self.found["memory_kib_per_connection"] = {
            # A server that was used before has room that it had freed.
            "median": (after - before) / 1024 / idle if after > before else None,
            "connections": idle,
            "load": meter.load(idle),
        }

    async def _bytes(self, publisher: Publisher) -> None:
        """What passes for each message of each size, one reader each, counted by a proxy of its own."""
        options = self._options
        sizes = options.payload_bytes
        secs = options.seconds
        if self.wire.is_paced:
            # Whole intervals: half a poll is none.
            secs = options.poll_s * max(2, round(secs / options.poll_s))
        count = max(2, round(options.rate * secs))
        async with AsyncExitStack() as stack:
            proxies: list[Counter] = []
            inboxes = [Inbox(self._texts) for _ in sizes]
            channels = [f"{options.channel}-{size}" for size in sizes]
            readers: list[Reader] = []
            stack.callback(lambda: [reader.abort() for reader in readers])
            for inbox, channel in zip(inboxes, channels, strict=True):
                counter, site = await self._counted(stack)
                proxies.append(counter)
                readers.append(self._reader(inbox, site=site, channel=channel))
                await self._open(readers[-1])
            await self._quiet(proxies, readers)
            before = [_counts(proxy, reader.heads) for proxy, reader in zip(proxies, readers, strict=True)]
            with Meter() as meter:
                spots = list(zip(channels, sizes, strict=True))
                late = await self._paced(publisher, spots, count, readers)
                for inbox in inboxes:
                    await self._within(inbox.have(count), *readers, extra_s=secs, what="not every message")
            await self._quiet(proxies, readers)
            after = [_counts(proxy, reader.heads) for proxy, reader in zip(proxies, readers, strict=True)]
            arrivals = readers[sizes.index(options.size)].arrivals
        self.found["bytes"] = [
            _split(size, count, first, last, ("down",)) | {"load": meter.load(count * len(sizes), late)}
            for size, first, last in zip(sizes, before, after, strict=True)
        ]
        self._judge_path(count / max(1, arrivals))

    async def _counted(self, stack: AsyncExitStack) -> tuple[Counter, Site]:
        """Return what counts a connection that is opened next, and where to open it."""
        if self.wire.door == "udp":
            return stack.enter_context(Datagrams()), self._direct
        proxy = Proxy((self._direct.host, self._direct.port), self._options.path)
        await stack.enter_async_context(proxy)
        return proxy, self._direct.through(proxy.port)

    async def publish_bytes(self) -> dict[str, Any]:
        """Return what passes for each publish of each size, each answered before the next."""
        found = []
        options = self._options
        for size in options.payload_bytes:
            async with AsyncExitStack() as stack:
                proxy, site = await self._counted(stack)
                publisher = self.wire.publisher(site)
                try:
                    await self._within(publisher.open())
                    await self._quiet([proxy], [publisher])
                    before = _counts(proxy, publisher.heads)
                    with Meter() as meter:
                        for _ in range(BYTE_PUBLISHES):
                            publisher.send(options.channel, self._texts.make(size, self._clock.now()))
                            await self._within(publisher.settle(), what="no answer to a publish")
                    await self._quiet([proxy], [publisher])
                    after = _counts(proxy, publisher.heads)
                finally:
                    publisher.abort()
            counted = _split(size, BYTE_PUBLISHES, before, after, ("up",))
            found.append(counted | {"load": meter.load(BYTE_PUBLISHES)})
        return {"by": publisher.by, "bytes": found}

    async def _deliver(self, publisher: Publisher, readers: int) -> None:
        """Deliver to so many readers at the rate: how late each message came, and what it cost the server."""
        options = self._options
        count = max(2, round(options.rate * options.seconds))
        inboxes = [Inbox(self._texts) for _ in range(readers)]
        missing = 0
        async with self._readers(inboxes) as opened:
            cpu = self._gauge.cpu_s()
            with Meter() as meter:
                late = await self._paced(publisher, [(options.channel, options.size)], count, opened)
                try:
                    for inbox in inboxes:
                        await self._within(inbox.have(count), *opened, what="not every message")
                except Unmeasured as why:
                    if "came within" not in why.says:
                        raise
                    missing = sum(max(0, count - len(inbox.numbers)) for inbox in inboxes)
            spent = self._gauge.cpu_s()
        if not all(inbox.is_in_order for inbox in inboxes):
            raise Unmeasured("broken", "a message came twice, or before an earlier one")
        deliveries = sum(len(inbox.numbers) for inbox in inboxes)
        load = meter.load(deliveries, late)
        latencies = distribution_ms([value for inbox in inboxes for value in inbox.latencies_s])
        # What was published late by half of that or more says nothing of the server.
        load["bottleneck"] |= deliveries > 0 and load["late_ms"] > latencies["p99"] / 2
        entry: dict[str, Any] = {"readers": readers, "missing": missing, "latency_ms": latencies, "load": load}
        entry["cpu_us_per_message"] = entry["cpu_us_per_delivery"] = None
        if cpu is not None and spent is not None and deliveries:
            entry["cpu_us_per_message"] = 1e6 * (spent - cpu) / count
            entry["cpu_us_per_delivery"] = 1e6 * (spent - cpu) / deliveries
        self.found.setdefault("readers", []).append(entry)
        if readers == options.shown_readers:
            self.found["latency_ms"] = latencies | {"missing": missing, "readers": readers, "load": load}

    async def _resume(self, publisher: Publisher) -> None:
        """Cut, miss some, come back with the cursor: until the last of what was missed is there."""
        times: list[float] = []
        missed = self._options.missed
        with Meter() as meter:
            for _ in range(self._options.tries):
                async with self._readers([Inbox(self._texts)]) as (reader,):
                    pass  # leaving cuts it
                inbox = Inbox(self._texts)
                await self._publish(publisher, missed)
                back = self._reader(inbox)
                try:
                    begin = self._clock.now()
                    await self._open(back, reader.cursor)
                    await self._within(inbox.have(missed), back, what="not everything that was missed")
                    times.append(self._clock.now() - begin)
                finally:
                    back.abort()
                if len(inbox.numbers) != missed or not inbox.is_in_order:
                    raise Unmeasured("broken", "what was missed did not come once each, in order, after the cut")
        self.found["resume_ms"] = spread_ms(times, meter) | {"missed": missed}

    async def _paced(
        self, publisher: Publisher, channels: Sequence[tuple[str, int]], count: int, readers: Sequence[Reader]
    ) -> list[float]:
        rate = self._options.rate

        async def publish() -> list[float]:
            late = await publish_paced(publisher, self._texts, channels, rate, count)
            await publisher.settle()
            return late

        return await self._within(publish(), *readers, extra_s=count / rate, what="no answer to a publish")

    async def _quiet(self, counters: Sequence[Counter], parties: Sequence[Reader | Publisher]) -> None:
        """Wait until nothing passes any more, and everything that was written has been counted."""
        seen: list[tuple[int, int]] = []
        for _ in range(100):
            now = [(counter.up_bytes, counter.down_bytes) for counter in counters]
            # On a busy machine what was written may take longer to the counter than it is quiet otherwise.
            is_all = all(up >= party.heads[0] for (up, _), party in zip(now, parties, strict=True))
            if now == seen and is_all:
                return
            seen = now
            await asyncio.sleep(QUIET_S + self._options.path.round_trip_s)

    def _judge_path(self, per_arrival: float) -> None:
        """Say whether what was published one by one comes one by one."""
        verdict, says = "open", "messages come as they are published"
        if self.wire.is_paced:
            says = f"messages come when they are asked for, every {self._options.poll_s:g} s"
        elif per_arrival > 2 and self.wire.key == "longpoll":
            says = (
                f"messages come {per_arrival:.1f} at a time: those that were published while a question was on its way"
            )
        elif per_arrival > 2:
            verdict = "clumped"
            says = f"messages come in clumps of {per_arrival:.1f}: something on the way, or a slow machine, holds them"
        self.found["path"] = {"verdict": verdict, "messages_per_arrival": per_arrival, "says": says}


def _counts(proxy: Counter, heads: tuple[int, int]) -> tuple[int, int, int, int]:
    return proxy.up_bytes, proxy.down_bytes, *heads


def _split(
    size: int, count: int, before: Sequence[int], after: Sequence[int], with_payload: Sequence[str]
) -> dict[str, Any]:
    """Return the bytes of each message both ways: what was published, HTTP heads, and all the rest."""
    up, down, heads_up, heads_down = (b - a for a, b in zip(before, after, strict=True))
    found: dict[str, Any] = {"payload_bytes": size, "messages": count}
    for way, total, heads in (("down", down, heads_down), ("up", up, heads_up)):
        payload = size if way in with_payload else 0
        found[way] = {
            "payload": float(payload),
            "headers": heads / count,
            "framing": (total - heads) / count - payload,
            "total": total / count,
        }
    return found
