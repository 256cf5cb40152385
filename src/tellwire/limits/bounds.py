"""The bounds themselves, with their defaults and what happens beyond them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

from msgspec import Meta


class LimitHits(Protocol):
    """What counts how often a bound was met, by the name of its setting."""

    def limit_hit(self, name: str) -> None:
        """Note that something went over the bound that is called `name`."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what a peer can make this node do or keep."""

    request_max_bytes: int = 2 * 1024 * 1024
    """Largest body of an HTTP request; beyond it the answer is 413 too_large."""
    frame_max_bytes: int = 1024 * 1024
    """Largest WebSocket message from a client, in bytes; beyond it the connection is closed with 1009."""
    connections_max: int = 16_000
    """Open connections in all, idle ones too; beyond it the answer is 503 too_many_connections."""
    connections_per_address: int = 12_000
    """Open connections of one address (of one /64 in IPv6); beyond it the answer is 503 too_many_connections. Lower it
    where clients do not come through a proxy."""
    connections_per_user: int = 1000
    """Connections of one user; beyond it the answer is 503 too_many_connections, or a close with 1013."""
    unauthenticated_max: int = 5_000
    """Connections that have not sent a whole request, or still have to say who they are; the oldest of them makes way
    for the next one, with 503 too_many_connections or a close with 1013."""
    grpc_streams_max: int = 100
    """Streams that one gRPC connection may have, each of which counts as a connection besides; beyond it the answer is
    RESOURCE_EXHAUSTED, too_many_connections."""
    channels_per_connection: int = 1000
    """Channels that one connection may read; beyond it the answer is too_many_channels."""
    commands_per_s: float = 10_000.0
    """Commands other than publishes per second of one connection, over HTTP requests of one user or address, with as
    many at once; beyond it the answer is rate_limited."""
    publishes_per_s: float = 100_000.0
    """Messages published per second by one connection, over HTTP by one user or address, with as many at once; beyond
    it the answer is rate_limited."""
    connect_s: float = 10.0
    """Seconds in which a WebSocket that came without a token has to say who it is; then it is closed with 4500."""
    head_s: float = 10.0
    """Seconds in which the head of a request has to arrive; then the answer is 408 request_timeout."""
    body_s: float = 30.0
    """Seconds in which the body of a request has to arrive; then the answer is 408 request_timeout."""
    idle_s: float = 75.0
    """Seconds that a connection may be kept without a request; then it is closed."""
    heartbeat_s: float = 25.0
    """Seconds between signs of life; a peer silent for 2.5 of them is cut with 4000."""
    sse_retry_ms: int = 1000
    """Milliseconds after which an EventSource reconnects, as its stream tells it."""
    poll_wait_max_s: float = 60.0
    """Longest that a long poll is held, in seconds; a longer wait is cut to it."""
    read_bite_bytes: int = 65_536
    """About how many bytes a reader that catches up is given at a time."""
    drain_delay_s: Annotated[float, Meta(ge=0)] = 0.0
    """Seconds for which a server that stops still takes connections, and /readyz is 503 already, before it closes any:
    for load balancers that send clients to it until they have looked there."""
    drain_s: float = 5.0
    """Seconds over which connections are closed, each in its own slot, when the server stops."""
    deflate: bool = True
    """Whether WebSocket messages are compressed for clients that offer it (RFC 7692)."""
    tail_max_bytes: int = 64 * 1024 * 1024
    """Bytes of newest messages and their frames kept in memory, over all channels that are read."""
    dedupe_window_s: float = 300.0
    """Seconds for which a publisher's id is remembered."""
    in_flight_max: int = 1024
    """Commands of one connection that may wait for the broker; beyond it no more are read until some are done."""
    pending_max_bytes: int = 256 * 1024
    """Bytes of replies that may wait for one connection; beyond it no more commands are read until they are sent."""
    call_timeout_s: float = 10.0
    """Longest that a call waits for the application's answer, in seconds; then the answer is timeout."""
    presence_grace_s: float = 3.0
    """Seconds that a client which is gone stays a member, so that coming back is neither a leave nor a join."""
    presence_lease_s: float = 60.0
    """Seconds that a polling client stays a member without asking again."""
    node_lease_s: float = 15.0
    """Seconds after which a node that is not heard of is dead, and its members have left."""

    @property
    def stop_s(self) -> float:
        """Seconds that a server which is told to stop may need until it has closed all connections."""
        return self.drain_delay_s + self.drain_s
