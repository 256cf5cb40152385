"""The reading requests: a stream of events, polls that wait, and polls that do not."""

from __future__ import annotations

import asyncio

from tellwire.client.backoff import Backoff
from tellwire.client.failures import Failure, closed_with, lost
from tellwire.client.host import DEAD_AFTER, Host
from tellwire.client.lane import PAGE_MESSAGES, Lane, Turn
from tellwire.client.place import split
from tellwire.client.requests import HttpTransport
from tellwire.client.wire import JSON
from tellwire.protocol.sse import Event, EventParser

HASTY_S = 1.0
"""An empty answer to a long poll that comes sooner than this is no answer to be asked for again at once."""


def sse(host: Host) -> HttpTransport:
    """Make a transport over Server-Sent Events (spec, section 8.4)."""
    return HttpTransport(host, "sse", _read_events)


def longpoll(host: Host) -> HttpTransport:
    """Make a transport over long polls: be answered when there is something, and ask again (spec, section 8.3)."""
    hasty = Backoff(host.settings.chance)

    async def read(lane: Lane, turn: Turn) -> None:
        now = asyncio.get_running_loop().time
        # The first is answered at once, and so tells that this works.
        wait_s = host.settings.long_poll_s if lane.live.is_set() else 0
        asked = now()
        page = await lane.page(turn.channels, wait_s=wait_s, since=turn.since, limit=PAGE_MESSAGES, **lane.wishes())
        lane.take_page(page)
        if wait_s == 0:
            lane.is_live()
        elif not page.messages and page.gap is None and now() - asked < HASTY_S:
            # Nothing, and at once: a server that is going away answers so. It is not asked in circles.
            await asyncio.sleep(hasty.next_ms() / 1000)
        else:
            hasty.reset()

    return HttpTransport(host, "longpoll", read)


def poll(host: Host) -> HttpTransport:
    """Make a transport over short polls: ask, take what there is, wait, ask again."""

    async def read(lane: Lane, turn: Turn) -> None:
        page = await lane.page(turn.channels, wait_s=0, since=turn.since, limit=PAGE_MESSAGES, **lane.wishes())
        lane.take_page(page)
        lane.is_live()
        # As long as there is something there may be more.
        if not page.messages:
            await asyncio.sleep(host.settings.poll_s)

    return HttpTransport(host, "poll", read)


async def _read_events(lane: Lane, turn: Turn) -> None:
    host = lane.host
    parser = EventParser()
    patience_s = host.heartbeat_s * DEAD_AFTER
    query = lane.query(turn.channels, since=turn.since, envelope=1, **lane.wishes())
    timeout_s = host.settings.try_timeout_s
    try:
        async with host.http.ask("v1/events", query=query, timeout_s=timeout_s, accept="text/event-stream") as (
            response,
            deadline,
        ):
            async for chunk in response.aiter_bytes():
                # A proxy that keeps the stream to itself passes on its head at once: only what comes in it counts.
                deadline.reschedule(asyncio.get_running_loop().time() + patience_s)
                try:
                    events = parser.feed(chunk)
                except ValueError as exc:
                    raise lost(str(exc)) from exc
                for event in events:
                    _take(lane, event)
                if parser.last_event_id:
                    lane.reached(parser.last_event_id)
                lane.is_live()
    except Failure as failure:
        if failure.code == "timeout":
            raise lost("the stream fell silent") from failure
        if failure.code == "disconnected" and failure.close_code is None and failure.retry_ms is None:
            raise lost(failure.error.detail, retry_ms=parser.retry_ms) from failure
        raise
    raise lost("the stream ended", retry_ms=parser.retry_ms)


def _take(lane: Lane, event: Event) -> None:
    push = JSON.decode(event.data)
    if push.type == "gap":
        lane.tell(push.as_gap)
    elif push.type == "closing":
        raise closed_with(push.code if isinstance(push.code, int) else 1011, push.reason, push.reconnect_in_ms)
    else:
        place = split(event.id)
        lane.push(push, place.epoch if place else "")
