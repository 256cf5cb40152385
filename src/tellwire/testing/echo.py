"""A WebSocket echo server on Tellwire's own frames: what the Autobahn test suite is run against.

``python -m tellwire.testing.echo --port 9001`` serves ``ws://127.0.0.1:9001/echo``.
"""

from __future__ import annotations

import asyncio
import logging

import click
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from tellwire.protocol.encodings import BINARY, TEXT, data_frame
from tellwire.transports.direct import WEBSOCKET, Connections, DirectHttpProtocol, DirectWebSocketProtocol
from tellwire.transports.frames import FrameParser, FrameProtocol
from tellwire.transports.requests import Receive, Scope, Send


class EchoProtocol(FrameProtocol):
    """Sends every message back as it came, compressed where that was negotiated."""

    __slots__ = ("_connections", "_window_bits")

    def __init__(self, transport: asyncio.Transport, parser: FrameParser, connections: Connections) -> None:
        super().__init__(transport, parser)
        self._connections = connections
        self._window_bits = self.window_bits

    def on_message(self, payload: bytes, *, binary: bool) -> None:
        self.write_soon(data_frame(BINARY if binary else TEXT, payload, self._window_bits))

    def on_gone(self) -> None:
        self._connections.discard(self)


class EchoEndpoint:
    """Hands every WebSocket to an EchoProtocol."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extension: DirectWebSocketProtocol = scope["extensions"][WEBSOCKET]
        extension.hand_over(None, EchoProtocol)


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=9001, help="TCP port on 127.0.0.1; 0 takes a free one.")
@click.option("--max-size", type=int, default=32 * 1024 * 1024, help="Largest message, in bytes.")
def main(port: int, max_size: int) -> None:
    """Echo WebSocket messages on 127.0.0.1."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/echo", EchoEndpoint())]),
        host="127.0.0.1",
        port=port,
        http=DirectHttpProtocol,
        ws=DirectWebSocketProtocol,
        ws_max_size=max_size,
        log_config=None,
        access_log=False,
        lifespan="off",
    )
    _Server(config).run()


class _Server(uvicorn.Server):
    def _log_started_message(self, listeners: object) -> None:
        port = self.servers[0].sockets[0].getsockname()[1]
        click.echo(f"listening on ws://127.0.0.1:{port}/echo")


if __name__ == "__main__":
    main()
