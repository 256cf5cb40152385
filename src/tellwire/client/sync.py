"""The client for programs without an event loop: the same methods, which block until they are done.

A thread with a loop of its own is behind it. Callbacks (``on_state``, ``on_gap``, a token function) are called in that
thread, and must not call the client.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, Self, TypeVar

from tellwire.client.client import Client
from tellwire.client.connecting import connect
from tellwire.client.failures import Closed
from tellwire.client.feed import Feed
from tellwire.client.messages import Member, Message, Page, PresenceEvent, Published, Signal, State
from tellwire.client.presence import Presence
from tellwire.client.subscription import OnGap, Subscription
from tellwire.message import Gap
from tellwire.names import Policy

T = TypeVar("T")


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tellwire-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run something there; return its result. Raises TimeoutError."""
        if self._loop.is_closed():
            work.close()
            raise Closed("this client is closed")
        future = asyncio.run_coroutine_threadsafe(_within(work, timeout_s), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Closed("this client was closed") from None
        except BaseException:
            # Also where Ctrl-C ends the waiting.
            future.cancel()
            raise

    def call(self, work: Callable[[], T]) -> T:
        """Call something there; return its result."""

        async def called() -> T:
            return work()

        return self.run(called())

    def stop(self) -> None:
        """End the loop, with everything that still runs in it; may be called twice."""
        if self._loop.is_closed():
            return
        self.run(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


async def _within(work: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
    # Here and not in the waiting thread: what is done at the last moment is not lost.
    async with asyncio.timeout(timeout_s):
        return await work


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class SyncFeed(Generic[T]):
    """An iterator over what comes; what waits is taken over at once, so that iterating is cheap."""

    def __init__(self, loop: _Loop, feed: Feed[T] | Subscription) -> None:
        self._loop = loop
        self._feed: Any = feed
        self._taken: deque[T] = deque()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self._taken:
            self._taken.extend(self._loop.run(self._feed.take()))
        if not self._taken:
            raise StopIteration
        return self._taken.popleft()

    def next(self, timeout_s: float | None = None) -> T | None:
        """Return the next one, None where it is over; raises TimeoutError where none comes within the time."""
        if not self._taken:
            self._taken.extend(self._loop.run(self._feed.take(), timeout_s))
        return self._taken.popleft() if self._taken else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; may be called twice."""
        self._loop.call(self._feed.end)


class SyncSubscription(SyncFeed[Message]):
    """An iterator of a channel's messages; see Subscription."""

    def __init__(self, loop: _Loop, subscription: Subscription) -> None:
        super().__init__(loop, subscription)
        self._subscription = subscription
        self._last: str | None = None

    @property
    def channel(self) -> str:
        """What is read."""
        return self._subscription.channel

    @property
    def cursor(self) -> str | None:
        """Up to where messages were handed out; see Subscription."""
        # Asked in its own thread: between two of its steps it would say too much.
        return self._last if self._taken else self._loop.call(lambda: self._subscription.cursor)

    def __next__(self) -> Message:
        return self._remember(super().__next__())

    def next(self, timeout_s: float | None = None) -> Message | None:
        message = super().next(timeout_s)
        return None if message is None else self._remember(message)

    def _remember(self, message: Message) -> Message:
        self._last = message.position or self._last
        return message

    def ready(self, timeout_s: float | None = None) -> None:
        """Wait until the channel is being read; raises why it cannot be."""
        self._loop.run(self._subscription.ready(), timeout_s)


class SyncPresence(SyncFeed[PresenceEvent]):
    """Who is in a channel, and an iterator of what changes; see Presence."""

    def __init__(self, loop: _Loop, room: Presence) -> None:
        super().__init__(loop, room)
        self._room = room

    @property
    def members(self) -> dict[str, Member]:
        """Who is there, by client id."""
        return dict(self._room.members)

    @property
    def clients(self) -> int:
        """How many are there."""
        return self._room.clients

    @property
    def users(self) -> int:
        """How many users they are."""
        return self._room.users

    def ready(self, timeout_s: float | None = None) -> None:
        """Wait until it is known who is there."""
        self._loop.run(self._room.ready(), timeout_s)

    def enter(self, *state: Any) -> None:
        """Become a member, with a state or without."""
        self._loop.run(self._room.enter(*state))

    def leave(self) -> None:
        """Be a member no more; go on watching."""
        self._loop.run(self._room.leave())

    def close(self) -> None:
        """Leave, and watch no more."""
        self._loop.run(self._room.aclose())


class SyncClient:
    """A client whose methods block; see Client. They may be called from several threads."""

    def __init__(self, loop: _Loop, client: Client) -> None:
        self._loop = loop
        self._client = client

    def __enter__(self) -> Self:
        self._loop.run(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything; may be called twice."""
        try:
            self._loop.run(self._client.aclose())
        except Closed:
            return
        finally:
            self._loop.stop()

    @property
    def state(self) -> State:
        """Where the connection is."""
        return self._client.state

    @property
    def client_id(self) -> str | None:
        """The name by which others see this client."""
        return self._client.client_id

    @property
    def session(self) -> str:
        """The secret that keeps `client_id`."""
        return self._client.session

    def connected(self, timeout_s: float | None = None) -> None:
        """Wait until there is a connection; raises what makes that impossible, or TimeoutError."""
        self._loop.run(self._client.connected(), timeout_s)

    def subscribe(
        self,
        channel: str,
        *,
        since: str | int | None = None,
        last: int | None = None,
        policy: Policy | None = None,
        on_gap: OnGap | Callable[[Gap], object] | None = None,
        unreliable: bool = False,
    ) -> SyncSubscription:
        """Read a channel; see Client.subscribe."""
        make = lambda: self._client.subscribe(  # noqa: E731
            channel, since=since, last=last, policy=policy, on_gap=on_gap, unreliable=unreliable
        )
        return SyncSubscription(self._loop, self._loop.call(make))

    def publish(self, channel: str, data: Any, **fields: Any) -> Published:
        """Publish, and wait until the message is in the log; see Client.publish."""
        return self._loop.run(self._client.publish(channel, data, **fields))

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until all publishes, of all threads, are acknowledged."""
        self._loop.run(self._client.flush(), timeout_s)

    def history(self, channel: str, *, before: str | int | None = None, limit: int = 100) -> Page:
        """Return messages of the past; see Client.history."""
        return self._loop.run(self._client.history(channel, before=before, limit=limit))

    def presence(self, channel: str) -> SyncPresence:
        """Watch who is in a channel; see Client.presence."""
        return SyncPresence(self._loop, self._loop.call(lambda: self._client.presence(channel)))

    def signals(self) -> SyncFeed[Signal]:
        """Return an iterator of what is sent to this client alone."""
        return SyncFeed(self._loop, self._loop.call(self._client.signals))

    def send(self, channel: str, to: str, data: Any, **fields: Any) -> Published:
        """Say something to one client; see Client.send."""
        return self._loop.run(self._client.send(channel, to, data, **fields))

    def call(self, method: str, data: Any = None, *, timeout_s: float | None = None) -> Any:
        """Call a procedure of the application; see Client.call."""
        return self._loop.run(self._client.call(method, data, timeout_s=timeout_s))


def connect_sync(url: str, **options: Any) -> SyncClient:
    """Make a client for a program without an event loop: ``with connect_sync(url) as client``.

    The options are those of `connect`.
    """
    loop = _Loop()

    async def made() -> Client:
        return connect(url, **options)

    try:
        return SyncClient(loop, loop.run(made()))
    except BaseException:
        loop.stop()
        raise
