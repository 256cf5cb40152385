"""The gRPC server: its port, its keys, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tellwire.errors import Unavailable
from tellwire.node import Node
from tellwire.transports.grpc.calls import SPARE_STREAMS
from tellwire.transports.grpc.service import SERVICE, Service

HEAD_MAX_BYTES = 65_536
"""Largest metadata of a call, as the head of an HTTP request: tokens are long."""

PING_LEAST_S = 5
"""Seconds that a client has to leave between its pings; it is cut where it does not (too_many_pings)."""

DRAIN_MAX_S = 86_400.0
"""Seconds for which gRPC itself leaves streams alone that are drained: the node knows when it is done."""
LINGER_S = 1.0
"""Seconds that streams have to end in, once the server stops."""


@dataclass(frozen=True)
class Keys:
    """PEM files: the certificate, its key, and the authority of clients' certificates, where those have to have one."""

    cert: str
    key: str
    client_ca: str | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Read them; raises OSError."""
        pair = (Path(self.key).read_bytes(), Path(self.cert).read_bytes())
        if self.client_ca is None:
            return grpc.ssl_server_credentials([pair])
        return grpc.ssl_server_credentials([pair], Path(self.client_ca).read_bytes(), require_client_auth=True)


class GrpcServer:
    """Serves a node over gRPC, with health checking and reflection: ``async with GrpcServer(node, "127.0.0.1", 0)``.

    The node is opened, drained and closed by its owner; `drain` comes before the node's.

    Args:
        node: What is served.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        keys: Turn TLS on.
        shares_port: Whether other processes may listen on the same port, and share what comes.
    """

    def __init__(
        self, node: Node, host: str, port: int, keys: Keys | None = None, *, shares_port: bool = False
    ) -> None:
        self._node = node
        self._host = host
        self._keys = keys
        self._shares_port = shares_port
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._stopping: asyncio.Future[None] | None = None
        self.port = port

    @property
    def url(self) -> str:
        """Where it is, as the Python client takes it."""
        shown = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'grpcs' if self._keys is not None else 'grpc'}://{shown}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Listen; raises Unavailable where that cannot be, OSError where a key cannot be read."""
        server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers((Service(self._node, has_tls=self._keys is not None),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        address = f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"
        try:
            if self._keys is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, self._keys.credentials())
        except RuntimeError as exc:
            raise Unavailable(f"gRPC cannot listen on {address}: is the port taken by another program?") from exc
        await server.start()
        self._server = server
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def _options(self) -> Sequence[tuple[str, Any]]:
        limits = self._node.limits
        beat_ms = int(limits.heartbeat_s * 1000)
        return [
            ("grpc.so_reuseport", int(self._shares_port)),
            # Idle ones are seen by nobody else: a call has to come before the turnstile counts it.
            ("grpc.max_allowed_incoming_connections", limits.connections_max),
            ("grpc.max_receive_message_length", limits.frame_max_bytes),
            ("grpc.max_metadata_size", HEAD_MAX_BYTES),
            ("grpc.absolute_max_metadata_size", HEAD_MAX_BYTES),
            ("grpc.max_concurrent_streams", limits.grpc_streams_max + SPARE_STREAMS),
            ("grpc.server_handshake_timeout_ms", int(limits.head_s * 1000)),
            ("grpc.max_connection_idle_ms", int(limits.idle_s * 1000)),
            # A peer that is gone without a word is noticed as on the other wires: after 2.5 heartbeats.
            ("grpc.keepalive_time_ms", beat_ms),
            ("grpc.keepalive_timeout_ms", int(beat_ms * 1.5)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_LEAST_S * 1000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]

    async def retire(self) -> None:
        """Say to health checks that this server is going away; it takes calls still. May be called twice."""
        await self._health.enter_graceful_shutdown()

    async def drain(self) -> None:
        """Take no new calls: say so to health checks, and send GOAWAY; streams go on until the node closes them."""
        if self._server is None or self._stopping is not None:
            return
        await self.retire()
        # The node closes each stream in its slot, however long that takes; who has not gone by then, `aclose` cuts.
        self._stopping = asyncio.ensure_future(self._server.stop(DRAIN_MAX_S))

    async def aclose(self) -> None:
        """End; streams that are left are cut. May be called twice."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(LINGER_S)
            if self._stopping is not None:
                await self._stopping
