"""What a comparison is told to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tellwire.compare.path import Path
from tellwire.compare.wires import BY_KEY

TEXT_MIN_BYTES = 8
"""Each message begins with its number."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The defaults finish in about a minute and a half over loopback."""

    transports: tuple[str, ...] = tuple(BY_KEY)
    rate: float = 50.0
    """Messages published in a second."""
    seconds: float = 2.0
    """For how long, each time."""
    readers: tuple[int, ...] = (1, 10, 50)
    """With how many readers, one after the other; the middle one stands for the transport in the table."""
    payload_bytes: tuple[int, ...] = (16, 128, 1024, 8192)
    """Sizes whose overhead is measured; everything else is with the second one, or the only one."""
    idle: int = 200
    """Connections whose memory is measured."""
    tries: int = 5
    """How often what takes one connection is done."""
    missed: int = 10
    """Messages that a reader has to be given when it comes back."""
    poll_s: float = 1.0
    """The interval of short polling."""
    patience_s: float = 5.0
    """How long anything may take that should come at once, beside what the path adds."""
    channel: str = ""
    """By default one with a random name."""
    path: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        for key in self.transports:
            if key not in BY_KEY:
                raise ValueError(f"there is no transport {key!a}; there are {', '.join(BY_KEY)}")
        for name in ("rate", "seconds", "poll_s", "patience_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be a number above 0")
        for name in ("readers", "payload_bytes", "transports"):
            if not getattr(self, name):
                raise ValueError(f"{name} names nothing to measure")
        if min(self.readers) < 1 or self.tries < 1:
            raise ValueError("there has to be at least one reader, and one try")
        if self.idle < 0:
            raise ValueError(f"idle is {self.idle}; 0 leaves the memory of idle connections out")
        if min(self.payload_bytes) < TEXT_MIN_BYTES:
            raise ValueError(f"a payload has at least {TEXT_MIN_BYTES} bytes, since it carries its number")

    @property
    def size(self) -> int:
        """Bytes of the messages where nothing is said of their size."""
        return self.payload_bytes[min(1, len(self.payload_bytes) - 1)]

    @property
    def shown_readers(self) -> int:
        """With how many readers the table's latencies are."""
        return self.readers[len(self.readers) // 2]

    def as_json(self) -> dict[str, object]:
        """Return it as the settings of a run."""
        return {
            "rate": self.rate,
            "seconds": self.seconds,
            "readers": list(self.readers),
            "payload_bytes": list(self.payload_bytes),
            "idle": self.idle,
            "tries": self.tries,
            "poll_s": self.poll_s,
            "path": self.path.as_json(),
        }
