"""Pages that reach each other through a real coturn only, and what becomes of them when that way is gone."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from tellwire.ice import IceServers
from tests.clients.room.conftest import HOLD, Person
from tests.serving import SHARED, Server
from tests.turn import SECRET, Turn, turn_server

Pair = Callable[..., tuple[Person, Person]]


class Hole:
    """Passes datagrams on to a server, until it is told to swallow them all."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self.is_black = False
        self._near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._near.bind(("127.0.0.1", 0))
        self.port = int(self._near.getsockname()[1])
        self._far: dict[tuple[str, int], socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._near, selectors.EVENT_READ, None)
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        for each in (self._near, *self._far.values()):
            each.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                with contextlib.suppress(OSError):
                    data, address = source.recvfrom(65_536)
                    if not self.is_black and data:
                        self._pass_on(data, address, key.data)

    def _pass_on(self, data: bytes, address: tuple[str, int], client: tuple[str, int] | None) -> None:
        if client is not None:
            self._near.sendto(data, client)
            return
        if address not in self._far:
            self._far[address] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._selector.register(self._far[address], selectors.EVENT_READ, address)
        self._far[address].sendto(data, self._server)


@pytest.fixture(scope="module")
def turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turn]:
    with turn_server(tmp_path_factory.mktemp("turn")) as turn:
        yield turn


def serve(start_server: Callable[..., Server], *urls: str) -> Server:
    return start_server(**{**SHARED, "ice": {"ice_turn_urls": urls, "ice_turn_secret": SECRET}})


def meet(someone: Callable[..., Person], server: Server, **options: Any) -> tuple[Person, Person]:
    first, second = someone(server), someone(server)
    for each in (first, second):
        each.join(iceTransportPolicy="relay", **options)
    return first, second


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_relay_only(
    someone: Callable[..., Person], start_server: Callable[..., Server], turn: Turn, transport: str
) -> None:
    first, second = meet(someone, serve(start_server, *turn.urls(transport)))
    for each in (first, second):
        each.wait_path("relay")
    first.say("through the relay")
    second.wait_heard("through the relay")
    protocols = """async () => [...(await peer().pc.getStats()).values()]
        .filter(({ type, candidateType }) => type === "local-candidate" && candidateType === "relay")
        .map(({ relayProtocol }) => relayProtocol)"""
    assert set(first.run(protocols)) == {transport}
    assert first.errors == second.errors == []


def test_credentials_that_are_over_get_no_relay_and_the_server_carries_it(pair: Pair, turn: Turn) -> None:
    (old,), _ = IceServers(turn.settings()).list_for("ada", time.time() - 10_000)
    servers = [{"urls": list(old.urls), "username": old.username, "credential": old.credential}]
    first, second = pair(iceTransportPolicy="relay", iceServers=servers, connectMs=3000)
    for each in (first, second):
        each.wait_path("channel")
    first.say("nevertheless")
    second.wait_heard("nevertheless")


def test_udp_is_swallowed_in_the_middle_of_a_file_and_ice_restarts_over_tcp(
    someone: Callable[..., Person], start_server: Callable[..., Server], turn: Turn
) -> None:
    with Hole(turn.port) as hole:
        udp = f"turn:127.0.0.1:{hole.port}?transport=udp"
        # The server is not to help: only a restart does.
        first, second = meet(someone, serve(start_server, udp, *turn.urls("tcp")), connectMs=60_000)
        for each in (first, second):
            each.wait_path("relay")
        second.run("() => room.on('file', (file) => { window.got = file.accept(); })")
        first.run(HOLD)
        first.run(
            """() => {
                const bytes = new Uint8Array(32 * 1024 * 1024);
                for (let at = 0; at < bytes.length; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536));
                window.file = new File([bytes], "large.bin");
                window.progress = [];
                window.sending = room.sendFile(peer(), file, { onProgress: ({ bytes }) => progress.push(bytes) });
            }"""
        )
        first.wait("sending.bytes > 4 * 1024 * 1024")
        hole.is_black = True
        for each in (first, second):
            each.run("() => { window.before = peer().pc; }")
        assert first.run("() => sending.bytes < file.size")
        first.run("() => letGo()")
        first.run("() => sending.done")
        assert second.run("async () => hex(await got)") == first.run("() => hex(file)")
        # It was mended, and not made anew.
        assert first.run("() => peer().pc === before")
        assert "channel" not in first.run("() => paths")
        assert first.errors == second.errors == []


def test_a_relay_that_is_gone_for_good_leaves_the_server(
    someone: Callable[..., Person], start_server: Callable[..., Server], turn: Turn
) -> None:
    with Hole(turn.port) as hole:
        server = serve(start_server, f"turn:127.0.0.1:{hole.port}?transport=udp")
        first, second = meet(someone, server, connectMs=2000)
        for each in (first, second):
            each.wait_path("relay")
        hole.is_black = True
        # What is said before anybody knows is not lost.
        first.run("() => { for (let n = 0; n < 100; n += 1) room.dataChannel(peer()).send(String(n)); }")
        second.wait("heard.length === 100")
        assert second.run("() => heard") == [str(number) for number in range(100)]
        for each in (first, second):
            each.wait_path("channel")
        hole.is_black = False
        # And it is found again.
        for each in (first, second):
            each.wait_path("relay")
        second.say("back")
        first.wait_heard("back")
