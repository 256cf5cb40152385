"""The short way of a handshake takes nothing that the long way refuses, and gives the same answer."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tellwire.transports.handshake import Opening, read_opening
from tests.hardening.bounded import BoundedServer
from tests.wires import Closed, Http, WebSocket, handshake_fields

Fields = list[tuple[bytes, bytes]]

PLAIN: Fields = [
    (b"host", b"localhost"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-version", b"13"),
]

PARAMETERS = st.sampled_from(
    ["", "client_max_window_bits", "client_max_window_bits=10", "client_max_window_bits=99", "server_max_window_bits=8",
     "server_max_window_bits=9", "server_no_context_takeover", "client_no_context_takeover", "unknown", "a=b=c", '"']
)  # fmt: skip
OFFERS = st.lists(
    st.tuples(
        st.sampled_from(["permessage-deflate", "x-other", "", ",", "permessage-deflate "]),
        st.lists(PARAMETERS, max_size=3),
    ),
    max_size=3,
).map(lambda offers: ", ".join("; ".join([name, *parameters]) for name, parameters in offers).encode())
KEYS = st.one_of(
    st.binary(min_size=16, max_size=16).map(b64encode),
    st.binary(max_size=20).map(b64encode),
    st.text("abcXYZ019+/=-_ \t", max_size=26).map(str.encode),
)
CHANGES: dict[bytes, st.SearchStrategy[bytes]] = {
    b"upgrade": st.sampled_from([b"websocket", b"WebSocket", b"h2c", b"websocket, h2c", b"h2c, websocket", b""]),
    b"connection": st.sampled_from(
        [
            b"Upgrade",
            b"keep-alive, Upgrade",
            b"keep-alive,upgrade",
            b"close",
            b"",
            b"upgrade ,",
            b"up grade",
            b",upgrade",
        ]
    ),
    b"sec-websocket-key": KEYS,
    b"sec-websocket-version": st.sampled_from([b"13", b"8", b"013", b"13, 8", b" 13", b""]),
    b"sec-websocket-extensions": OFFERS,
    b"sec-websocket-protocol": st.sampled_from([b"a", b"a, b", b"a,b ", b"", b"a,,b", b"\xff"]),
    b"content-length": st.sampled_from([b"0", b"5"]),
    b"transfer-encoding": st.just(b"chunked"),
    b"host": st.just(b"example.org"),
    b"x-other": st.sampled_from([b"", b"y", b"\xe4"]),
}


def answer_of_websockets(fields: Fields) -> tuple[bytes, bytes | None] | None:
    """Let websockets answer a handshake: its ``Sec-WebSocket-Accept`` and ``-Extensions``; None where it refuses."""
    headers = Headers()
    for name, value in fields:
        headers[name.decode()] = value.decode("latin-1")
    factory = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
    response = ServerProtocol(extensions=[factory]).accept(Request("/v1/ws", headers))
    if response.status_code != 101:
        return None
    extensions = response.headers.get("Sec-WebSocket-Extensions")
    return response.headers["Sec-WebSocket-Accept"].encode(), extensions.encode() if extensions else None


@st.composite
def handshakes(draw: st.DrawFn) -> Fields:
    """Write a handshake in which something may be missing, changed, or there twice."""
    fields = dict(PLAIN)
    for name in draw(st.sets(st.sampled_from(sorted(CHANGES)), max_size=3)):
        fields[name] = draw(CHANGES[name])
    for name in draw(st.sets(st.sampled_from(sorted(fields)), max_size=1)):
        if draw(st.booleans()):
            del fields[name]
    twice = draw(st.lists(st.sampled_from(sorted(fields)), max_size=1)) if fields else []
    return [*fields.items(), *((name, fields[name]) for name in twice)]


@given(handshakes())
@example(PLAIN)
@example([*PLAIN, (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits")])
def test_what_is_taken_is_answered_as_websockets_would(fields: Fields) -> None:
    opening = read_opening(fields)
    if opening is None:
        return
    answer = answer_of_websockets(fields)
    assert answer is not None, "websockets refuses this"
    assert answer == (opening.accept, opening.compression[0] if opening.compression else None)


@pytest.mark.parametrize(
    ("change", "subprotocols"),
    [
        ({}, []),
        ({b"connection": b"keep-alive, Upgrade"}, []),
        ({b"upgrade": b"WebSocket"}, []),
        ({b"sec-websocket-protocol": b"tellwire.v1.json, x"}, ["tellwire.v1.json", "x"]),
        ({b"cookie": b"a=b", b"origin": b"http://localhost"}, []),
    ],
)
def test_what_clients_send_goes_the_short_way(change: dict[bytes, bytes], subprotocols: list[str]) -> None:
    opening = read_opening(list({**dict(PLAIN), **change}.items()))
    # RFC 6455, section 1.3, has this key and its answer.
    assert opening == Opening(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", subprotocols, None)


def test_each_connection_decompresses_by_itself() -> None:
    offer = (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits")
    opening = read_opening([*PLAIN, offer])
    assert opening is not None
    assert opening.compression is not None
    assert isinstance(opening.compression[1], PerMessageDeflate)
    assert read_opening([*PLAIN, offer], has_deflate=False) == opening._replace(compression=None)


# An application that thinks before it answers


class SlowServer(BoundedServer):
    """Answers a handshake when it is told to."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.ending = ending
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await super()._app(scope, receive, send)
            return
        self.loop = asyncio.get_running_loop()
        await self.may_answer.wait()
        if self.ending == "take":
            await super()._app(scope, receive, send)
        elif self.ending == "refuse":
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-why", b"tea")]})
            await send({"type": "websocket.http.response.body", "body": b"teapot"})
        elif self.ending == "close":
            await send({"type": "websocket.close", "code": 1008})
        elif self.ending == "accept":
            await send({"type": "websocket.accept"})
        elif self.ending == "fail":
            raise ValueError("on purpose")

    def answer(self) -> None:
        """Let it answer, if it still waits: a server that stops does so for a second."""
        assert self.loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.may_answer.set)


@pytest.fixture(params=["take", "refuse", "close", "accept", "fail", "return"])
def slow(request: pytest.FixtureRequest) -> Iterator[SlowServer]:
    with SlowServer(request.param) as server:
        yield server


EXPECTED = {"take": 101, "refuse": 418, "close": 403, "accept": 500, "fail": 500, "return": 500}


def begin(server: SlowServer) -> Http:
    """Send a handshake, and know that the application thinks about it."""
    http = Http(server)
    http.send_request("GET", "/v1/ws", headers=handshake_fields())
    while server.loop is None:
        assert http.is_silent()
    return http


def test_application_may_take_its_time(slow: SlowServer) -> None:
    with begin(slow) as http:
        assert http.is_silent()
        slow.answer()
        status, fields = http.read_head()
        assert status == EXPECTED[slow.ending]
        if slow.ending == "refuse":
            assert fields["x-why"] == "tea"
            assert http.read_to_end() == b"teapot"
        elif slow.ending != "take":
            assert http.read_to_end() == b""


def test_client_that_goes_meanwhile_is_counted_no_more(slow: SlowServer) -> None:
    begin(slow).close()
    slow.answer()
    while slow.turnstile.total:
        with Http(slow) as http:
            assert http.get("/").status == 200
            if slow.turnstile.total == 1:
                break


def test_frames_that_come_before_the_answer_are_kept() -> None:
    with SlowServer("take") as server, begin(server) as http:
        http.send(b"\x81\x85\0\0\0\0hello")
        assert http.is_silent()
        server.answer()
        assert http.read_head()[0] == 101
        assert http.read_exactly(7) == b"\x81\x05hello"


def flood(http: Http) -> None:
    """Send ten megabytes, and read."""
    for _ in range(1000):
        http.send(b"x" * 10_000)
    http.read_exactly(1)


def test_flood_before_the_answer_is_cut() -> None:
    with SlowServer("take") as server, begin(server) as http, pytest.raises((Closed, OSError)):
        flood(http)


def test_server_that_stops_refuses_those_that_wait() -> None:
    with SlowServer("take") as server:
        http = begin(server)
        server._server.should_exit = True
        assert http.read_head()[0] == 503
        assert http.read_to_end() == b""
        http.close()
        server.answer()


def test_connections_are_open_at_once() -> None:
    with BoundedServer() as server, WebSocket(server) as wire:
        wire.send(b"\x81\x85\0\0\0\0hello")
        assert wire.read_data() == b"hello"
