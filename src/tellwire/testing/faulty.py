"""A broker that fails on request: what the rooms below a broker are tested against."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection

from tellwire.brokers.base import Slice
from tellwire.brokers.memory import MemoryBroker
from tellwire.errors import Unavailable
from tellwire.message import Appended, Draft, Position
from tellwire.names import Namespaces
from tellwire.tasks import Tasks


class FaultyBroker(MemoryBroker):
    """A log in memory with knobs for what goes wrong elsewhere; with none of them turned, a plain one.

    Attributes:
        latency_s: Seconds that an append takes; 0 lets it wait for one turn of the loop, None for nothing.
        fail_appends: So many appends from now on are refused, and are not in the log.
        lose_answers: So many appends from now on get into the log, but whoever waits is told that they failed.
        fail_reads: So many reads from now on fail.
        followed: How often each channel is followed.
    """

    def __init__(
        self,
        namespaces: Namespaces | None = None,
        *,
        dedupe_window_s: float = 300.0,
        clock: Callable[[], int] | None = None,
        latency_s: float | None = None,
    ) -> None:
        if clock is None:
            super().__init__(namespaces, dedupe_window_s=dedupe_window_s)
        else:
            super().__init__(namespaces, dedupe_window_s=dedupe_window_s, clock=clock)
        self.latency_s = latency_s
        self.fail_appends = 0
        self.lose_answers = 0
        self.fail_reads = 0
        self.followed: Counter[str] = Counter()
        self._held = False
        self._waiting: deque[tuple[Draft, asyncio.Future[Appended]]] = deque()
        self._tasks = Tasks()
        self._closed = False
        self._reads: deque[asyncio.Future[None]] | None = None
        self._reads_late = False

    def hold(self) -> None:
        """Let appends wait, in order, until `release`."""
        self._held = True

    def release(self) -> None:
        """Let the appends that were held into the log."""
        self._held = False
        while self._waiting:
            self._let_one()

    def hold_reads(self, *, late: bool = False) -> None:
        """Let reads wait, and follows, until they are released; `late`: they look at the log only then."""
        self._reads = deque()
        self._reads_late = late

    @property
    def held_reads(self) -> int:
        """How many reads and follows wait."""
        return len(self._reads or ())

    def release_read(self) -> None:
        """Let the read or follow go on that waits for longest, if one does."""
        if self._reads:
            _let_go(self._reads.popleft())

    def release_reads(self) -> None:
        """Let all reads and follows go on, and hold no more of them."""
        waiting, self._reads = self._reads, None
        for each in waiting or ():
            _let_go(each)

    async def _wait_for_release(self) -> None:
        if self._reads is not None:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._reads.append(turn)
            await turn

    def lose_log(self) -> None:
        """Lose all messages, as a server does that was wiped: the log goes on empty, under another epoch."""
        self._wipe()
        if self._feed is not None:
            self._feed.reset(self.head)

    async def append(self, draft: Draft) -> Appended:
        if self._closed:
            raise Unavailable("the broker is closed; nothing can be published")
        if self.fail_appends:
            self.fail_appends -= 1
            raise Unavailable("the broker was told to refuse this append")
        if not self._held and self.latency_s is None:
            return self._answer(await super().append(draft))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Appended] = loop.create_future()
        self._waiting.append((draft, answer))
        if not self._held:
            loop.call_later(self.latency_s or 0.0, self._let_one)
        return self._answer(await answer)

    async def read(
        self, channels: Collection[str], after: Position | None, limit_bytes: int, limit: int | None = None
    ) -> Slice:
        self._check_read()
        if self._reads_late:
            await self._wait_for_release()
            return await super().read(channels, after, limit_bytes, limit)
        slice_ = await super().read(channels, after, limit_bytes, limit)
        await self._wait_for_release()
        return slice_

    async def read_back(self, channels: Collection[str], before: Position | None, limit: int) -> Slice:
        self._check_read()
        if self._reads_late:
            await self._wait_for_release()
            return await super().read_back(channels, before, limit)
        slice_ = await super().read_back(channels, before, limit)
        await self._wait_for_release()
        return slice_

    async def follow(self, channel: str) -> None:
        self.followed[channel] += 1
        await self._wait_for_release()

    async def unfollow(self, channel: str) -> None:
        self.followed[channel] -= 1
        assert self.followed[channel] >= 0, "every unfollow undoes a follow"

    async def aclose(self) -> None:
        self._closed = True
        self.release()
        self.release_reads()
        await self._tasks.aclose()
        await super().aclose()

    def _answer(self, appended: Appended) -> Appended:
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable("the broker was told to lose this answer")
        return appended

    def _check_read(self) -> None:
        if self.fail_reads:
            self.fail_reads -= 1
            raise Unavailable("the broker was told to fail this read")

    def _let_one(self) -> None:
        """Append what waits for longest, if it has not been let in by `release` already."""
        if self._held or not self._waiting:
            return
        draft, answer = self._waiting.popleft()

        def done(appended: Appended | None, failure: BaseException | None) -> None:
            if answer.done():
                return
            if failure is not None:
                answer.set_exception(failure)
            else:
                assert appended is not None
                answer.set_result(appended)

        # A log in memory never waits, so this is over at once.
        self._tasks.start(super().append(draft), done)


def _let_go(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
