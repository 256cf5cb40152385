"""A server in a thread of the test, so that what it counts can be seen; its application says who asks."""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Collection
from typing import Any, Self

import uvicorn

from tellwire.limits import Limits, Turnstile
from tellwire.testing.echo import EchoEndpoint
from tellwire.transports.direct import Bounds, direct_protocols
from tellwire.transports.requests import Answer, Receive, Scope, Send, read_body
from tests.serving import WATCHDOG_S


class Hits:
    """Counts which bounds were met."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def limit_hit(self, name: str) -> None:
        self.seen[name] += 1


class BoundedServer:
    """uvicorn with Tellwire's protocols, held to `limits`; echoes WebSockets, and answers requests with who asks."""

    def __init__(self, *, trusted: Collection[str] = (), **limits: Any) -> None:
        self.hits = Hits()
        bounds = Limits(**limits)
        self.turnstile = Turnstile(bounds, self.hits)
        networks = [ipaddress.ip_network(text) for text in trusted]
        http, ws = direct_protocols(Bounds(bounds, self.turnstile, self.hits, networks))
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=0, http=http, ws=ws, interface="asgi3", proxy_headers=False,
            lifespan="off", log_config=None, access_log=False, backlog=4096, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = _Started(config)
        self._thread = threading.Thread(target=self._server.run)

    @property
    def port(self) -> int:
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await EchoEndpoint()(scope, receive, send)
            return
        await read_body(receive, 1_000_000)
        await Answer(200, scope["client"][0].encode(), b"text/plain").send(send)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._server.has_started.wait(WATCHDOG_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(WATCHDOG_S)


class _Started(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.has_started.set()
