"""What stays of connections that are over: nothing, and not until the garbage collector has found it."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import msgspec
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tellwire.config import Settings
from tellwire.protocol.session import Session
from tellwire.server.running import make_server
from tellwire.subscriber import Subscriber
from tellwire.transports.conversation import Conversation
from tellwire.transports.direct import DirectHttpProtocol, DirectResponse, PipelineFlow
from tellwire.transports.frames import FrameParser, FrameProtocol
from tests.serving import WATCHDOG_S
from tests.wires import At, Http, WebSocket

PARTS = (
    Conversation, DirectHttpProtocol, DirectResponse, FrameParser, FrameProtocol, PipelineFlow, RequestResponseCycle,
    Session, Subscriber,
)  # fmt: skip
"""What connections are made of."""


def websocket(address: At) -> None:
    with WebSocket(address) as socket:
        socket.ask(type="subscribe", channel="a")
        socket.ask(type="publish", channel="a", data=1)


def refused_websocket(address: At) -> None:
    with WebSocket(address) as socket:
        socket.send(b"\xff" * 20)
        socket.read_close()


def stream(target: str) -> Callable[[At], None]:
    def visit(address: At) -> None:
        with Http(address) as http:
            http.send_request("GET", target)
            http.read_granted_head()

    return visit


def poll(address: At) -> None:
    with Http(address) as http:
        http.get("/v1/messages?channel=a")
        http.send_request("GET", "/v1/messages?channel=a&wait=60")


def page(address: At) -> None:
    with Http(address) as http:
        http.get("/healthz")
        http.post("/v1/messages", {"channel": "a", "data": 1})


@contextmanager
def served() -> Iterator[At]:
    """Serve a node from a thread of this process, whose objects can be counted."""
    ports: list[int] = []
    started = threading.Event()

    def on_ready(url: str) -> None:
        ports.append(urlsplit(url).port or 0)
        started.set()

    server = make_server(msgspec.convert({"server": {"port": 0}}, Settings), on_ready)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(WATCHDOG_S)
        yield At(ports[0])
    finally:
        server.should_exit = True
        thread.join(WATCHDOG_S)


def count() -> int:
    return sum(isinstance(each, PARTS) for each in gc.get_objects())


@pytest.mark.parametrize(
    "visit",
    [websocket, refused_websocket, stream("/v1/events?channel=a"), stream("/v1/stream?channel=a"), poll, page],
    ids=["websocket", "broken websocket", "events", "lines", "poll", "page"],
)
def test_connection_goes_without_the_garbage_collector(visit: Callable[[At], None]) -> None:
    with served() as address:
        visit(address)  # what is made once
        gc.collect()
        gc.disable()
        try:
            before = count()
            for _ in range(5):
                visit(address)
            deadline = time.monotonic() + WATCHDOG_S
            while (left := count() - before) > 0:
                assert time.monotonic() < deadline, f"{left} parts of connections that are over are in a circle"
        finally:
            gc.enable()
