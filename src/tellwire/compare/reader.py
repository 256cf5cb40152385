"""What every transport is to the harness: a reader of one channel."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from tellwire.compare.failures import Unmeasured
from tellwire.compare.site import Site

Take = Callable[[str], None]
"""Gets the text of each message, in the instant in which its bytes were read."""


class Reader(ABC):
    """One reader of one channel over one transport.

    Args:
        site: The server, and the way to it.
        channel: Read alone.
        take: Gets what was published, which are texts.
        poll_s: The interval of a reader that polls.
    """

    def __init__(self, site: Site, channel: str, take: Take, *, poll_s: float = 1.0) -> None:
        self.site = site
        self.channel = channel
        self.take = take
        self.poll_s = poll_s
        self.cursor = ""
        """Everything up to here was had."""
        self.arrivals = 0
        """How many reads brought messages: fewer than messages where they come in clumps."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Raises Unmeasured as soon as the reader cannot go on."""

    @abstractmethod
    async def open(self, since: str = "") -> None:
        """Connect and read from `since`, else from now; return when everything published from then on comes.

        Raises Unmeasured.
        """

    @abstractmethod
    def abort(self) -> None:
        """Cut the connection at once, without a word to the server."""

    @property
    def heads(self) -> tuple[int, int]:
        """Bytes of HTTP heads so far, up and down."""
        return 0, 0

    def fail(self, why: Unmeasured) -> None:
        """Say that it cannot go on."""
        if not self.lost.done():
            self.lost.set_exception(why)
            self.lost.exception()  # whoever asks sees it; nobody has to
