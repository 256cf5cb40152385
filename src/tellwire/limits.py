"""How much: every bound that is not a namespace's, with its default and what happens beyond it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what a peer can make this node do or keep."""

    request_max_bytes: int = 2 * 1024 * 1024
    """Largest body of an HTTP request; beyond it the answer is 413 too_large."""
    frame_max_bytes: int = 1024 * 1024
    """Largest WebSocket message from a client, in bytes; beyond it the connection is closed with 1009."""
    channels_per_connection: int = 1000
    """Channels that one connection may read; beyond it the answer is too_many_channels."""
    idle_s: float = 75.0
    """Seconds that an HTTP request may take to arrive, and that a connection may be without one; then it is closed."""
    heartbeat_s: float = 25.0
    """Seconds between signs of life; a peer silent for 2.5 of them is cut with 4000."""
    sse_retry_ms: int = 1000
    """Milliseconds after which an EventSource reconnects, as its stream tells it."""
    poll_wait_max_s: float = 60.0
    """Longest that a long poll is held, in seconds; a longer wait is cut to it."""
    read_bite_bytes: int = 65_536
    """About how many bytes a reader that catches up is given at a time."""
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
