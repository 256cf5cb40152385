"""Where logs live; a broker is named by its URL and imported only when it is named."""

from __future__ import annotations

from importlib import import_module
from urllib.parse import urlsplit

from tellwire.brokers.base import Broker, Feed, Slice
from tellwire.names import Namespaces

__all__ = ["BROKERS", "OF_ONE_PROCESS", "Broker", "Feed", "Slice", "make_broker"]

BROKERS = {
    "memory": "tellwire.brokers.memory:MemoryBroker",
    "sqlite": "tellwire.brokers.sqlite:SqliteBroker",
    "redis": "tellwire.brokers.redis:RedisBroker",
    "rediss": "tellwire.brokers.redis:RedisBroker",
    "redis+sentinel": "tellwire.brokers.redis:RedisBroker",
    "rediss+sentinel": "tellwire.brokers.redis:RedisBroker",
    "redis+cluster": "tellwire.brokers.redis:RedisBroker",
    "rediss+cluster": "tellwire.brokers.redis:RedisBroker",
    "nats": "tellwire.brokers.nats:NatsBroker",
    "tls": "tellwire.brokers.nats:NatsBroker",
}
"""URL scheme -> "module:class" of the brokers that come along."""

OF_ONE_PROCESS = frozenset({"memory", "sqlite"})
"""Schemes of brokers whose log is one process's: in its memory, or in a file that it locks."""


def make_broker(url: str, namespaces: Namespaces, *, dedupe_window_s: float = 300.0) -> Broker:
    """Make the broker that `url` names, not yet opened; raise ValueError where there is none, or a library is missing.

    Every broker class has ``from_url(url, namespaces, dedupe_window_s)``.
    """
    scheme = urlsplit(url).scheme
    target = BROKERS.get(scheme)
    if target is None:
        known = ", ".join(f"{name}://" for name in BROKERS)
        raise ValueError(f"no broker is called {url!r}; a broker's URL begins with one of {known}")
    module, _, name = target.partition(":")
    try:
        cls = getattr(import_module(module), name)
    except ModuleNotFoundError as exc:
        extra = "nats" if scheme in ("nats", "tls") else "redis"
        raise ValueError(
            f"the broker {scheme}:// needs the library {exc.name!r}; install it with: pip install 'tellwire[{extra}]'"
        ) from exc
    broker: Broker = cls.from_url(url, namespaces, dedupe_window_s)
    return broker
