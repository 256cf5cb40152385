"""What the way to the server does to what passes, and how it is written on a command line."""

from __future__ import annotations

import re
from dataclasses import dataclass

_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_RATES = {"": 1, "bit": 1, "bps": 1, "kbit": 1e3, "kbps": 1e3, "mbit": 1e6, "mbps": 1e6, "gbit": 1e9, "gbps": 1e9}


@dataclass(frozen=True, kw_only=True)
class Path:
    """A way to the server; as it stands, one that changes nothing."""

    delay_s: float = 0.0
    """Added each way."""
    loss: float = 0.0
    """The share of segments that is lost each way, and so comes later."""
    bandwidth_bits_per_s: float | None = None
    """Of each connection, each way."""
    no_websocket: bool = False
    """Answer upgrades with 403."""
    buffering_proxy: bool = False
    """Pass no answer on before it is whole."""

    @property
    def is_plain(self) -> bool:
        """Whether it changes nothing."""
        return self == Path()

    @property
    def looks_inside(self) -> bool:
        """Whether it reads what passes, which TLS does not let it."""
        return self.no_websocket or self.buffering_proxy

    @property
    def round_trip_s(self) -> float:
        """What it adds to a question and its answer."""
        return 2 * self.delay_s

    def as_json(self) -> dict[str, object]:
        """Return it as the settings of a run have it."""
        return {
            "delay_ms": self.delay_s * 1000,
            "loss": self.loss,
            "bandwidth_bits_per_s": self.bandwidth_bits_per_s,
            "no_websocket": self.no_websocket,
            "buffering_proxy": self.buffering_proxy,
        }


def parse_duration(text: str) -> float:
    """Return the seconds of ``50ms``, ``0.2s`` or ``1``; raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)?", text.strip().lower())
    if found is None:
        raise ValueError(f"{text!a} is not a time; one looks like 50ms or 0.2s")
    return float(found[1]) * _DURATIONS[found[2] or "s"]


def parse_share(text: str) -> float:
    """Return the share of ``1%`` or ``0.01``, from 0 to 0.5; raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%)?", text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else 1.0
    if not 0 <= share <= 0.5:
        raise ValueError(f"{text!a} is not a share from 0 to 50 %; one looks like 1% or 0.01")
    return share


def parse_bandwidth(text: str) -> float:
    """Return the bits per second of ``2mbit``, ``512kbit`` or ``64000``; raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?bit|[kmg]?bps)?(?:/s)?", text.strip().lower())
    rate = float(found[1]) * _RATES[found[2] or ""] if found else 0.0
    if rate < 1000:
        raise ValueError(f"{text!a} is not a bandwidth of at least 1 kbit/s; one looks like 2mbit or 512kbit")
    return rate
