"""One whole comparison: every transport in turn, and a sentence for whatever ends it early."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import importlib.util
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from tellwire import __version__
from tellwire.client import Settings, State, connect
from tellwire.client.connection import forget
from tellwire.compare.clock import Clock
from tellwire.compare.failures import Unmeasured
from tellwire.compare.http_connection import HttpConnection
from tellwire.compare.machine import describe_machine
from tellwire.compare.measuring import Measuring
from tellwire.compare.options import Options
from tellwire.compare.proxy import Proxy
from tellwire.compare.publishers import HttpPublisher, Publisher, WebSocketPublisher
from tellwire.compare.server_process import Gauge, OwnServer, ServerFailed
from tellwire.compare.site import Site, site_of
from tellwire.compare.wires import BY_KEY, Wire

Progress = Callable[[str, str, int, int], None]
"""Called with a transport's key, what is being done, and how many of how many steps of that transport are done."""

SHAPE = 1
"""Version of the answer's shape (docs/compare.md)."""


class _Ended(Exception):
    """Nothing more can be measured."""

    def __init__(self, ended: str, says: str) -> None:
        super().__init__(says)
        self.ended = ended
        self.says = says


class Comparison:
    """Measures; `found` holds what there is at any time (docs/compare.md says how it looks).

    Args:
        options: What to measure.
        url: The server; None starts one for each transport, so that none finds what another has left behind.
        token: Shown to it.
        tls: Which certificates are accepted.
        pid: The server's process, where it is on this machine.
        grpc: Where the server has gRPC, such as ``grpc://127.0.0.1:50051``.
        progress: Told of each step.
        clock: By which everything is timed.

    Raises ValueError for a URL that is none, and for a path that cannot be played over TLS.
    """

    def __init__(
        self,
        options: Options,
        *,
        url: str | None = None,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        pid: int | None = None,
        grpc: str | None = None,
        progress: Progress = lambda *_: None,
        clock: Clock | None = None,
    ) -> None:
        self._options = dataclasses.replace(options, channel=options.channel or f"compare-{secrets.token_hex(4)}")
        if grpc is not None and (urlsplit(grpc).scheme not in ("grpc", "grpcs") or not urlsplit(grpc).port):
            raise ValueError(f"{grpc!a} is not where gRPC is served; that looks like grpc://127.0.0.1:50051")
        self._given = None if url is None else site_of(url, token=token, tls=tls)
        if self._given is not None and self._given.tls is not None and options.path.looks_inside:
            raise ValueError("--no-websocket and --buffering-proxy read what passes, which TLS does not let them")
        self._pid = pid
        self._grpc = grpc
        self._tls = tls
        self._progress = progress
        self._clock = clock or Clock()
        self._posting: dict[Any, dict[str, Any]] = {}
        self.found: dict[str, Any] = {
            "compare": SHAPE,
            "version": __version__,
            "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "took_s": 0.0,
            "ended": "interrupted",
            "says": "it was stopped before the end",
            "machine": describe_machine(),
            "server": {"url": self._given.url if self._given else None, "is_own": self._given is None, "pid": pid},
            "settings": self._options.as_json(),
            "transports": {
                key: {"title": BY_KEY[key].title, "status": "unmeasured", "says": "it was not reached"}
                for key in self._options.transports
            },
            "fallback": None,
            "unknown": [],
        }

    async def run(self) -> None:
        """Measure everything; whatever goes wrong is in `found`."""
        begin = self._clock.now()
        try:
            for key in self._options.transports:
                await self._one(BY_KEY[key])
            await self._fall_back()
        except _Ended as exc:
            self.found |= {"ended": exc.ended, "says": exc.says}
        else:
            self.found |= {"ended": "complete", "says": ""}
        finally:
            self.found["took_s"] = round(self._clock.now() - begin, 1)

    @contextlib.asynccontextmanager
    async def _server(self) -> AsyncIterator[tuple[Site, int | None, str | None]]:
        if self._given is not None:
            yield self._given, self._pid, self._grpc
            return
        try:
            async with OwnServer() as own:
                self.found["server"] |= {"url": own.url, "pid": own.pid}
                yield site_of(own.url), own.pid, own.grpc
        except ServerFailed as exc:
            raise _Ended("lost", str(exc)) from exc

    async def _one(self, wire: Wire) -> None:
        entry = self.found["transports"][wire.key]
        entry["says"] = "it was stopped before the end"
        async with AsyncExitStack() as stack:
            if self._given is None:
                self._progress(wire.key, "starting", 0, 1)
            direct, pid, grpc = await stack.enter_async_context(self._server())
            gauge = Gauge(pid)
            if gauge.unknown is not None and gauge.unknown not in self.found["unknown"]:
                self.found["unknown"].append(gauge.unknown)
            try:
                near = site = self._door(wire, direct, grpc)
            except Unmeasured as why:
                entry["says"] = why.says
                return
            if not self._options.path.is_plain:
                proxy = Proxy((near.host, near.port), self._options.path)
                site = near.through((await stack.enter_async_context(proxy)).port)
            publisher = await self._publisher(direct)
            stack.callback(publisher.abort)
            measuring = Measuring(wire, near, site, self._options, gauge, entry, self._clock)
            steps = measuring.steps()
            try:
                for number, (name, step) in enumerate(steps):
                    self._progress(wire.key, name, number, len(steps) + 1)
                    await step(publisher)
                self._progress(wire.key, "publishing", len(steps), len(steps) + 1)
                if wire.publisher not in self._posting:
                    self._posting[wire.publisher] = await measuring.publish_bytes()
                entry["publish"] = self._posting[wire.publisher]
                entry |= {"status": "measured", "says": ""}
            except Unmeasured as why:
                entry |= {"status": why.status, "says": why.says}
                if why.status in ("blocked", "buffered"):
                    entry["path"] = {"verdict": why.status, "messages_per_arrival": None, "says": why.says}
                # One transport's trouble is no reason to leave out the others, as long as there is a server.
                await self._check(direct, f"while {wire.title} was measured: {why.says}")
            self._progress(wire.key, entry["status"], len(steps) + 1, len(steps) + 1)

    def _door(self, wire: Wire, direct: Site, grpc: str | None) -> Site:
        """Return where a transport goes in; raises Unmeasured where that cannot be."""
        path = self._options.path
        if wire.door == "udp" and not path.is_plain:
            raise Unmeasured("unmeasured", "it goes over UDP, which the proxy that shapes the way does not carry")
        if wire.door == "grpc" and path.looks_inside:
            raise Unmeasured("unmeasured", "it is HTTP/2, which the proxy that plays a restrictive one does not read")
        for door, module in (("grpc", "grpc"), ("udp", "aiortc")):
            if wire.door == door and importlib.util.find_spec(module) is None:
                raise Unmeasured("unmeasured", f"it needs tellwire[{wire.key}], which is not installed here")
        if wire.door != "grpc":
            return direct
        if grpc is None:
            raise Unmeasured("unmeasured", "where the server has gRPC is not known here; --grpc says it")
        parts = urlsplit(grpc)
        scheme = "https" if parts.scheme == "grpcs" else "http"
        return site_of(f"{scheme}://{parts.netloc}", token=direct.token, tls=direct.tls or self._tls)

    async def _publisher(self, direct: Site) -> Publisher:
        await self._check(direct, "")
        try:
            async with asyncio.timeout(self._options.patience_s):
                publisher: Publisher = WebSocketPublisher(direct)
                await publisher.open()
        except (Unmeasured, TimeoutError):
            publisher.abort()
            publisher = HttpPublisher(direct)
            try:
                await publisher.open()
            except Unmeasured as why:
                raise _Ended("lost", why.says) from why
        try:
            async with asyncio.timeout(self._options.patience_s):
                publisher.send(self._options.channel, "a first one")
                await publisher.settle()
        except (Unmeasured, TimeoutError) as exc:
            publisher.abort()
            says = exc.says if isinstance(exc, Unmeasured) else "there came no answer"
            if isinstance(exc, Unmeasured) and exc.status == "absent":
                raise _Ended("lost", f"there is no Tellwire at {direct.url}: {says}") from exc
            ended = exc.status if isinstance(exc, Unmeasured) and exc.status == "refused" else "lost"
            raise _Ended(ended, f"nothing can be published to {self._options.channel}: {says}") from exc
        return publisher

    async def _check(self, direct: Site, doing: str) -> None:
        """Raise _Ended unless the server answers, and lets the channel be read."""
        connection = HttpConnection(direct)
        try:
            async with asyncio.timeout(self._options.patience_s):
                await connection.open()
                await connection.ask("/v1/messages", {"channel": self._options.channel})
        except TimeoutError as exc:
            raise _Ended(
                "lost",
                _sentence(
                    f"{direct.url} does not answer any more" if doing else f"{direct.url} does not answer", doing
                ),
            ) from exc
        except Unmeasured as why:
            if why.status == "refused":
                says = why.says if direct.token else f"{why.says}; here with --token, or as TELLWIRE_TOKEN"
                raise _Ended("refused", _sentence(says, doing)) from why
            if why.status == "absent" and "poll" in self._options.transports and not doing:
                return
            if why.status != "absent":
                is_mute = connection.heads_up and not connection.heads_down
                says = f"{why.says} without an answer: it may want https://" if is_mute and not doing else why.says
                raise _Ended("lost", _sentence(says, doing)) from why
        finally:
            connection.abort()

    async def _fall_back(self) -> None:
        """Find out what a client does by itself on this way: which transport it comes to, and how soon."""
        async with AsyncExitStack() as stack:
            direct, _, _ = await stack.enter_async_context(self._server())
            url = direct.url
            if not self._options.path.is_plain:
                if direct.tls is not None:
                    self.found["unknown"].append("what a client falls back to: its TLS does not go through this proxy")
                    return
                proxy = await stack.enter_async_context(Proxy((direct.host, direct.port), self._options.path))
                url = f"http://127.0.0.1:{proxy.port}{direct.path}"
            self._progress("", "connecting", 0, 1)
            forget()  # this process may have had to do with the address before
            states: asyncio.Queue[State] = asyncio.Queue()
            settings = Settings(try_timeout_s=self._options.patience_s, long_poll_s=1)
            begin = self._clock.now()
            client = connect(url, token=direct.token, on_state=states.put_nowait, settings=settings, tls=direct.tls)
            async with client, client.subscribe(self._options.channel):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5 * self._options.patience_s):
                        while (state := await states.get()).name != "connected":
                            pass
                        took_ms = 1000 * (self._clock.now() - begin)
                        name = BY_KEY[state.transport or ""].title.partition(",")[0]
                        took = f"{took_ms / 1000:.1f} s" if took_ms >= 1000 else f"{took_ms:.0f} ms"
                        says = f"a client that is left alone comes to {name} after {took}"
                        self.found["fallback"] = {"transport": state.transport, "live_ms": took_ms, "says": says}
            if self.found["fallback"] is None:
                says = "a client that is left alone comes to no transport at all"
                self.found["fallback"] = {"transport": None, "live_ms": None, "says": says}
            self._progress("", "measured", 1, 1)


def _sentence(says: str, doing: str) -> str:
    return f"{says} ({doing})" if doing and says not in doing else doing or says
