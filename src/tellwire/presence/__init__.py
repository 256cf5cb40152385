"""Who is here; a store of presence goes with a broker's URL and is imported only when it is named."""

from __future__ import annotations

from importlib import import_module
from urllib.parse import urlsplit

from tellwire.presence.base import Counts, Member, Presence

__all__ = ["STORES", "Counts", "Member", "Presence", "make_presence"]

STORES = {
    "memory": "tellwire.presence.memory:MemoryPresence",
    "sqlite": "tellwire.presence.sqlite:SqlitePresence",
    "redis": "tellwire.presence.redis:RedisPresence",
    "rediss": "tellwire.presence.redis:RedisPresence",
    "redis+sentinel": "tellwire.presence.redis:RedisPresence",
    "rediss+sentinel": "tellwire.presence.redis:RedisPresence",
    "redis+cluster": "tellwire.presence.redis:RedisPresence",
    "rediss+cluster": "tellwire.presence.redis:RedisPresence",
    "nats": "tellwire.presence.nats:NatsPresence",
    "tls": "tellwire.presence.nats:NatsPresence",
}
"""The broker's URL scheme -> "module:class" of the store that goes with it."""


def make_presence(broker_url: str) -> Presence:
    """Make the store that lies beside a broker's log, not yet opened; raise ValueError where there is none.

    Every store's class has ``from_url(broker_url)``.
    """
    scheme = urlsplit(broker_url).scheme
    target = STORES.get(scheme)
    if target is None:
        known = ", ".join(f"{name}://" for name in STORES)
        raise ValueError(f"no store of presence goes with {broker_url!r}; a broker's URL begins with one of {known}")
    module, _, name = target.partition(":")
    store: Presence = getattr(import_module(module), name).from_url(broker_url)
    return store
