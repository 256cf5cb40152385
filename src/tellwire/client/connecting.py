"""How a client is made."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Sequence
from typing import Any

import httpx

from tellwire.client.client import Client, OnState
from tellwire.client.messages import TransportName
from tellwire.client.settings import Settings
from tellwire.client.sockets import OpenSocket
from tellwire.client.tokens import TokenSource


@functools.cache
def _default_tls() -> ssl.SSLContext:
    # To load all certificates takes longer than everything else that makes a client.
    return httpx.create_ssl_context()


def connect(
    url: str,
    *,
    token: TokenSource = None,
    session: str | None = None,
    grpc: str | None = None,
    transports: Sequence[TransportName] | None = None,
    on_state: OnState | None = None,
    settings: Settings | None = None,
    tls: ssl.SSLContext | None = None,
    http_transport: httpx.AsyncBaseTransport | None = None,
    open_socket: OpenSocket | None = None,
    open_channels: OpenSocket | None = None,
    grpc_credentials: Any = None,
    grpc_name: str | None = None,
) -> Client:
    """Make a client of the server at `url`: ``async with connect(url) as client``.

    Entering does not wait for the connection; what is asked of the client does, and raises where the server refuses.

    Args:
        url: Where the server is, such as ``http://127.0.0.1:8000``; or ``grpc://127.0.0.1:50051``, then all goes over
            gRPC (tellwire[grpc]).
        token: A token, or a function (may be async) that gets one, asked again when it has expired.
        session: A secret text that makes this the same client as the last time; default a random one.
        grpc: Where it serves gRPC besides, such as ``grpc://127.0.0.1:50051``; that is then tried first.
        transports: Which may be tried, the best first; ``webrtc`` only where it is named (tellwire[webrtc]).
        on_state: Called with each new state.
        settings: How patient it is, and how much it keeps.
        tls: Which certificates are accepted.
        http_transport: Carries the requests, in place of the network.
        open_socket: Opens the WebSockets, in place of the network.
        open_channels: Opens the data channels, in place of the network.
        grpc_credentials: A ``grpc.ChannelCredentials`` in place of `tls`, such as one with a certificate to show.
        grpc_name: Whom gRPC's certificate has to be for, where that is not the host it is dialled at, as in a tunnel.
    """
    return Client(
        url,
        token=token,
        session=session,
        grpc=grpc,
        transports=transports,
        on_state=on_state,
        settings=settings or Settings(),
        http_transport=http_transport,
        open_socket=open_socket,
        open_channels=open_channels,
        tls=tls or _default_tls(),
        grpc_credentials=grpc_credentials,
        grpc_name=grpc_name,
    )
