"""What every broker promises: one log per channel, and one sequence over all of them.

The contract is executable: ``tellwire.testing.contract`` holds the suite that every broker passes, ours and others'.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from tellwire.message import Appended, Draft, Gap, Message, Position

EPOCH_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def new_epoch() -> str:
    """Make the name of a new log: 8 letters or digits, 41 random bits."""
    return "".join(secrets.choice(EPOCH_ALPHABET) for _ in range(8))


class Feed(Protocol):
    """Who is handed everything that gets into the log; plain functions, called on the event loop."""

    def deliver(self, messages: Sequence[Message]) -> None:
        """Take messages that are in the log by now, in ``seq`` order over all calls.

        Ephemeral messages (``seq`` 0) come this way too, in the order in which they were appended.
        """

    def reset(self, head: Position) -> None:
        """Take note that the log was lost and begins anew: another epoch, whose newest position is `head`."""


class Slice(NamedTuple):
    """What a read brings.

    ``messages`` are in ``seq`` order. A reader that was given them, and told of ``gap``, has everything up to
    ``position``; where that is short of the broker's ``head``, there is more to read.
    """

    messages: list[Message]
    position: Position
    gap: Gap | None


class Broker(ABC):
    """Where logs live.

    Ordered: appends take their places in the order in which they were begun on this node; the feed is in ``seq`` order.
    Atomic: an append either is in the log, announced and acknowledged, or is not there.
    May be lost: nothing that was acknowledged, within what the broker's page in the docs says of its durability.
    Reads show what the feed has delivered and nothing newer, so that a reader who reads up to ``head`` and is then
    handed the feed has no hole and no double.
    """

    head: Position
    """The newest position that the feed has delivered; ``epoch.0`` in an empty log."""

    @abstractmethod
    async def open(self, feed: Feed) -> None:
        """Open the log and begin to feed; raises Unavailable where it cannot be opened."""

    @abstractmethod
    async def append(self, draft: Draft) -> Appended:
        """Give a message its place; done once it is in the log and was handed to the feed.

        Deduplicates by ``(channel, id)`` within the window, *then* looks at ``expect``, so that the retry of a
        conditional publish finds itself. Takes its place before it first waits. Raises Conflict, Unavailable.
        Cancelling the caller does not take the message back.
        """

    @abstractmethod
    async def read(
        self, channels: Collection[str], after: Position | None, limit_bytes: int, limit: int | None = None
    ) -> Slice:
        """Read what comes after a position, oldest first, up to about `limit_bytes` and `limit` messages.

        At least one message is read where there is one. `after` None means from the oldest message kept, and never
        brings a gap. A position of another epoch or ahead of the head brings a gap with reason ``epoch`` and reads from
        the oldest; one older than what was trimmed brings a gap with reason ``trimmed``.
        """

    @abstractmethod
    async def read_back(self, channels: Collection[str], before: Position | None, limit: int) -> Slice:
        """Read the newest `limit` messages before a position (None: of all), in ascending order.

        ``position`` is the broker's head at that moment, so that reading can go on from there. A position of another
        epoch brings a gap with reason ``epoch`` and reads from the newest.
        """

    @abstractmethod
    async def follow(self, channel: str) -> None:
        """Ask for the channel's messages in the feed; they come no later than from the head at return.

        Counted: each follow is undone by one unfollow, in the order in which they were begun.
        """

    @abstractmethod
    async def unfollow(self, channel: str) -> None:
        """Say that the channel's messages are not needed in the feed; some may still come."""

    def figures(self) -> dict[str, float]:
        """Return what this broker has to tell of itself, by name; metrics show each as ``tellwire_broker_NAME``."""
        return {}

    @abstractmethod
    async def aclose(self) -> None:
        """Finish the appends begun, then let go of everything; may be called twice."""
