"""What becomes of readers when the server around the application is told to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest
from websockets.exceptions import ConnectionClosed

from tellwire import Tellwire
from tellwire.testing.harness import on_loop
from tests.application.hosting import Client, Host

APP = Path(__file__).parent / "asked_app.py"


@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn"])
def test_readers_are_sent_away_before_the_server_would_cut_them(kind: str) -> None:
    """A stream that a server cuts would not end as it should, and have no last event."""
    with Host(APP, kind) as host, Client(host.url, "/a/b/c") as client, ThreadPoolExecutor(1) as pool:
        client.post("/v1/messages", {"channel": "news", "data": 1})
        cursor = client.get("/v1/messages", channel="news", since="earliest").json()["cursor"]
        with client.events("news", since=0) as events, client.socket() as socket, Client(host.url, "/a/b/c") as other:
            assert next(events).data == "1"
            socket.ask("subscribe", channel="news")
            poll = pool.submit(other.get, "/v1/messages", channel="news", since=cursor, wait=50)
            while client.http.get("/a/connections").json() != {"sse": 1, "websocket": 1, "longpoll": 1}:
                pass
            host.terminate()
            assert poll.result().json() == {"messages": [], "cursor": cursor, "gap": None}
            (closing,) = events  # and then the stream ends as it should
            assert (closing.event, closing.id) == ("closing", cursor)
            with pytest.raises(ConnectionClosed) as closed:  # by us, or by uvicorn in the same moment
                socket.read()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        assert host.stop() in (0, -15)
        assert "Exception in ASGI" not in host.log
        assert "graceful" not in host.log


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """Handle SIGTERM as a server does."""
    numbers: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        numbers.append(number)

    before = signal.signal(signal.SIGTERM, handle)
    yield numbers
    assert signal.signal(signal.SIGTERM, before) is handle, "the handler is what it was"


@on_loop
async def test_whoever_handled_the_signal_still_does(heard: list[int]) -> None:
    tellwire = Tellwire(open=True)
    async with tellwire.lifespan(), tellwire.subscribe("news") as messages:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 2
        assert [message async for message in messages] == []
        await tellwire.publish("news", 1)  # what the application still does is done


@on_loop
async def test_two_of_them_hear_the_same_signal(heard: list[int]) -> None:
    one, other = Tellwire(open=True), Tellwire(open=True)
    async with one.lifespan(), other.lifespan(), one.subscribe("news") as here, other.subscribe("news") as there:
        signal.raise_signal(signal.SIGTERM)
        assert [item async for item in here] + [item async for item in there] == []
    assert heard == [signal.SIGTERM]


def test_signals_are_left_alone_where_nobody_handles_them() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert before is signal.SIG_DFL

    async def look() -> None:
        tellwire = Tellwire(open=True)
        async with tellwire.lifespan():
            assert signal.getsignal(signal.SIGTERM) is before

    asyncio.run(look())


def test_signals_are_left_alone_in_other_threads(heard: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    looked = []

    async def look() -> None:
        tellwire = Tellwire(open=True)
        async with tellwire.lifespan():
            looked.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=lambda: asyncio.run(look()))
    thread.start()
    thread.join()
    assert looked == [True]


def test_handler_that_outlives_its_loop_does_no_harm() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        asyncio.run(Tellwire(open=True).start())
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
