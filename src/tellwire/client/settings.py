"""What may be set of a client, each with its default."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How patient a client is, and how much it keeps."""

    try_timeout_s: float = 5.0
    """A transport has to be live within this, else the next one is tried."""
    request_timeout_s: float = 10.0
    """A request has to be answered within this."""
    upgrade_after_s: float = 30.0
    """When a better transport is first tried again; then after twice as long each time, up to ten minutes."""
    heartbeat_s: float = 25.0
    """The server's interval, where the transport does not tell it. After 2.5 of them without a word it is dead."""
    long_poll_s: int = 25
    """How long a long poll waits."""
    poll_s: float = 2.0
    """Between two short polls that brought nothing."""
    outbox_max_messages: int = 1000
    """Publishes that may wait to be acknowledged."""
    outbox_max_bytes: int = 4_000_000
    """Their data and names together."""
    queue_max_messages: int = 1000
    """Messages that wait for a subscription's iterator before its reading pauses."""
    queue_max_bytes: int = 16_000_000
    """Their data together; one message may exceed it."""
    idempotency_window_s: float = 300.0
    """How long the server remembers the ids of publishes; after that nothing is sent again."""
    binary: bool = True
    """Whether WebSockets carry MessagePack, else JSON."""
    chance: Callable[[], float] = random.random
    """Where the random part of waits comes from."""

    def __post_init__(self) -> None:
        for name in ("try_timeout_s", "request_timeout_s", "upgrade_after_s", "heartbeat_s", "long_poll_s", "poll_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a time in seconds, above 0")
