"""What comes with TLS: HTTP/2, and HTTP/1.1 by the same protocol as without it."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, cast

from uvicorn.config import Config
from uvicorn.protocols.http.zttp_h2_impl import RequestResponseCycle, ZttpH2Protocol
from uvicorn.server import ServerState
from zttp import H2Settings

from tellwire.transports.direct import DirectHttpProtocol
from tellwire.transports.requests import Receive, Scope, Send


class PacedHttp2Protocol(ZttpH2Protocol):
    """uvicorn's HTTP/2 protocol, whose ``send()`` waits for a peer that takes nothing.

    A peer gives credit for each stream (RFC 9113, section 5.2). zttp parks what goes beyond it without a bound, and
    uvicorn waits for the socket only: a reader that stands still would cost all that is published meanwhile.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._credit = asyncio.Event()
        self._stops = False
        self.app = cast(Any, self._run_paced)

    async def _run_paced(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = cast(RequestResponseCycle, cast(Any, send).__self__)

        async def paced(message: Any) -> None:
            await send(message)
            while cycle.stream.pending_bytes and not cycle.disconnected and not self._stops:
                self._credit.clear()
                await self._credit.wait()

        await cast(Any, self.config.loaded_app)(scope, receive, paced)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # zttp writes its settings once, so that what uvicorn writes next is nothing.
        self.conn.initiate_connection()
        transport.write(drop_setting(self.conn.data_to_send(), H2Settings.ENABLE_CONNECT_PROTOCOL))
        super().connection_made(transport)
        # uvicorn's own timer begins with the first bytes; a peer that sends none would stay for ever.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._credit.set()

    def shutdown(self) -> None:
        self._stops = True
        self._credit.set()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._credit.set()


def drop_setting(frame: bytes, identifier: int) -> bytes:
    """Take a setting out of a SETTINGS frame (RFC 9113, section 6.5.1).

    zttp announces extended CONNECT (RFC 8441), which uvicorn has no WebSocket for: a browser that has an HTTP/2
    connection would open its WebSockets over that and be answered 404, where it now makes a connection for them.
    """
    head, body = frame[:9], frame[9:]
    assert head[3] == 4, "a server's first frame is SETTINGS (section 3.4)"
    assert len(body) == int.from_bytes(head[:3]), "and nothing comes behind it"
    settings = [body[at : at + 6] for at in range(0, len(body), 6)]
    kept = b"".join(setting for setting in settings if int.from_bytes(setting[:2]) != identifier)
    return len(kept).to_bytes(3) + head[3:] + kept


class SecureProtocol(asyncio.Protocol):
    """Gives each connection the protocol that its TLS handshake chose (ALPN, RFC 7301)."""

    alpn_protocols: ClassVar[list[str]] = ["h2", "http/1.1"]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._arguments: Any = (config, server_state, app_state, _loop)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        make: type[PacedHttp2Protocol | DirectHttpProtocol] = (
            PacedHttp2Protocol if chosen == "h2" else DirectHttpProtocol
        )
        protocol = make(*self._arguments)
        cast(asyncio.Transport, transport).set_protocol(protocol)
        protocol.connection_made(cast(asyncio.Transport, transport))
