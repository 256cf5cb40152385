"""Channel names, and the namespaces that give channels their settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from tellwire.errors import InvalidChannel

CHANNEL_MAX_CHARS = 255
NAMESPACE_MAX_CHARS = 64

_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@=+~#$!-]*", re.ASCII)
_NAMESPACE = re.compile(r"\$?[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)

Policy = Literal["catch_up", "latest", "disconnect"]
"""What becomes of a reader that lags: it reads on from the log, gets the newest per key, or is cut off."""


def check_channel(name: str) -> str:
    """Return `name` if it may name a channel; raise InvalidChannel with what is wrong."""
    if not name:
        raise InvalidChannel("a channel name is empty; it needs 1 to 255 characters")
    if len(name) > CHANNEL_MAX_CHARS:
        raise InvalidChannel(f"a channel name has at most {CHANNEL_MAX_CHARS} characters; this one has {len(name)}")
    if _CHANNEL.fullmatch(name) is None:
        raise InvalidChannel(
            f"{name[:60]!a} is not a channel name: it must begin with a letter or digit and may hold "
            "A-Z a-z 0-9 _ - . : / @ = + ~ # $ !"
        )
    if ".." in name:
        raise InvalidChannel(f"{name[:60]!a} is not a channel name: it may not hold '..'")
    return name


@dataclass(frozen=True)
class Namespace:
    """Settings of the channels whose name begins with ``NAME:``.

    The namespace called ``default`` holds the channels without a colon in their name and those whose namespace has
    no settings of its own.
    """

    name: str = "default"
    history_messages: int = 1000
    """Messages kept per channel; the oldest go first."""
    history_age_s: float = 86_400.0
    """Seconds for which a message is kept."""
    history_bytes: int = 64 * 1024 * 1024
    """Bytes kept in all of the namespace's channels; the channels used least recently are emptied first."""
    ephemeral: bool = False
    """True: messages are never kept, only handed to who is connected now."""
    policy: Policy = "catch_up"
    """What becomes of a reader that lags, unless it asked for something else: catch_up, latest or disconnect."""
    message_max_bytes: int = 65_536
    """Largest data of one message, in bytes."""
    presence_max_members: int = 1000
    """Members of a channel up to which they are listed, and told of one by one; larger channels are only counted."""

    def __post_init__(self) -> None:
        if len(self.name) > NAMESPACE_MAX_CHARS or _NAMESPACE.fullmatch(self.name) is None:
            raise ValueError(
                f"{self.name[:60]!a} is not a namespace: 1 to {NAMESPACE_MAX_CHARS} characters out of "
                "A-Z a-z 0-9 _ . -, beginning with a letter or digit"
            )


_INTERNAL = (
    # Long enough for whoever comes back to hear who came and went; then the members are asked for anew.
    Namespace("$presence", history_messages=1000, history_age_s=600.0),
    Namespace("$client", history_messages=1000, history_age_s=120.0),
    # A revocation is forgotten when no token can be as old any more (see AuthSettings.revocation_s).
    Namespace("$control", history_messages=100_000, history_age_s=31 * 86_400.0),
)
"""Settings of the channels that are the server's own."""


class Namespaces:
    """The settings of every namespace, found by a channel's name."""

    def __init__(self, namespaces: Iterable[Namespace] = ()) -> None:
        self._by_name = {namespace.name: namespace for namespace in (*_INTERNAL, *namespaces)}
        self.default = self._by_name.setdefault("default", Namespace())

    def of(self, channel: str) -> Namespace:
        """Return the namespace of `channel`: what stands before its first colon, or the default."""
        name, colon, _ = channel.partition(":")
        return self._by_name.get(name, self.default) if colon else self.default

    def __iter__(self) -> Iterator[Namespace]:
        return iter(self._by_name.values())
