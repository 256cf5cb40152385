"""Clients that go away in the middle of being let in: nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import time

import pytest

from tellwire.auth import Operation
from tellwire.hooks import Client
from tellwire.node import caller_of
from tellwire.testing.doors import event_door, settle, socket_talk
from tellwire.testing.harness import on_loop
from tellwire.transports.direct import DirectHttpProtocol
from tests.hardening.bounded import BoundedServer
from tests.http2 import Http2
from tests.nodes import Bench, bench
from tests.serving import WATCHDOG_S, Certificate
from tests.soak.watched import WatchedServer
from tests.wires import Connection, Http


class Application:
    """Says yes, but not before it is told to."""

    def __init__(self, node: Bench) -> None:
        self.may_answer = asyncio.Event()
        self.asked = asyncio.Event()
        node.hooks.authorize = self.authorize

    async def authorize(self, _: Client, __: Operation, ___: str) -> bool:
        self.asked.set()
        await self.may_answer.wait()
        return True


@on_loop
async def test_member_that_goes_while_the_application_is_asked_does_not_stay() -> None:
    async with bench(presence_grace_s=0.001) as node:
        await node.presence.open(node.name, 15.0)
        application = Application(node)
        talk = socket_talk(node)
        talk.say(type="presence", ref=1, channel="a", enter=True, watch=True)
        await application.asked.wait()
        talk.door.cut()
        application.may_answer.set()
        await settle()
        assert (await node.presence.count("a")).clients == 0
        assert not len(node.hub.tails)


@on_loop
async def test_stream_that_goes_while_it_enters_does_not_stay() -> None:
    async with bench(presence_grace_s=0.001) as node:
        await node.presence.open(node.name, 15.0)
        door = event_door(node, session="s")
        door.cut()
        await node.members.attend(caller_of(door.subscriber), ["a", "b"], door.subscriber)
        assert (await node.presence.count("a")).clients == 0
        assert (await node.presence.count("b")).clients == 0


@pytest.mark.parametrize("asked", [True, False], ids=["after a request", "before one"])
def test_nothing_is_kept_of_a_connection_that_was_reset(asked: bool) -> None:
    with BoundedServer() as server:
        for _ in range(50):
            with Http(server) as http:
                if asked:
                    assert http.get("/").status == 200
                else:
                    http.send(b"GET / HTTP/1.1\r\n")
                reset_at_close(http)
        with Http(server) as last:
            assert last.get("/").status == 200  # so that all before it have come in
        deadline = time.monotonic() + WATCHDOG_S
        while left := connections_of(server) or server.turnstile.total:
            assert time.monotonic() < deadline, f"{left} connections are kept that are gone"


def connections_of(server: BoundedServer) -> int:
    """Count the connections that a server still has in memory."""
    gc.collect()
    return sum(
        isinstance(each, DirectHttpProtocol) and each.bounds.turnstile is server.turnstile for each in gc.get_objects()
    )


def reset_at_close(wire: Connection) -> None:
    """Let a connection end with RST."""
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_nothing_is_kept_of_an_http2_connection_that_was_reset(certificate: Certificate) -> None:
    server = WatchedServer(server=certificate.settings, limits={"drain_s": 0.1})
    try:
        with Http(server, context=certificate.client_context("http/1.1")) as http:
            server.look(http)
            before = server.look(http)
            for _ in range(20):
                with Http2(server, certificate.client_context("h2")) as wire:
                    wire.finish(wire.start("GET", "/healthz"))
                    reset_at_close(wire)
            server.look_until_empty(http, before)
    finally:
        server.close()
