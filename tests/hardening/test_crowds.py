"""Abuse by many or by much, with honest clients beside it: they wait hardly longer, and all of it is forgotten after.

What a server holds is counted (tests.soak.watched); its memory is compared after a first and a second wave, as Python
keeps for the second what the first needed.
"""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.guarded import SECRET, token
from tests.hardening.honest import ROUNDS, check_unmoved, honest_pair
from tests.readers import target
from tests.serving import PATIENT_S, WATCHDOG_S
from tests.soak.watched import WatchedServer
from tests.wires import TEXT, Http, WebSocket, handshake_fields, write_frame

HALF_OPEN = 10_000
SPARE_FILES = 500
KEPT_BYTES = 16_000_000
"""How much more memory there may be after a second wave than after the first."""


@contextmanager
def watched(**settings: Any) -> Iterator[WatchedServer]:
    """Start a server that tells what it holds, with as many descriptors as may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings["limits"] = {
        "drain_s": 0.1,
        "presence_grace_s": 0.1,
        "heartbeat_s": PATIENT_S,
        "idle_s": PATIENT_S,
        **settings.get("limits", {}),
    }
    server = WatchedServer(**settings)
    try:
        yield server
    finally:
        server.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def half_open(server: WatchedServer, count: int, stack: ExitStack) -> Iterator[int]:
    """Begin requests from many addresses, a part of them at each step, and leave them so."""
    for step in range(ROUNDS):
        for number in range(step * count // ROUNDS, (step + 1) * count // ROUNDS):
            address = (f"127.0.0.{2 + number % 100}", 0)
            wire = socket.create_connection(("127.0.0.1", server.port), source_address=address)
            stack.enter_context(wire)
            wire.sendall(b"GET /v1/events?channel=a HTTP/1.1\r\nX: "[: number % 40])
        yield step


def test_ten_thousand_half_open_connections_cost_nobody_anything(channel: str) -> None:
    count = min(HALF_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES)
    most = count + SPARE_FILES // 4
    limits = {"unauthenticated_max": most, "connections_max": most, "connections_per_address": most, "head_s": 600.0}
    with watched(limits=limits) as server, Http(server) as http:
        server.look(http)
        before = server.look(http)
        sizes = []
        for _ in range(2):
            with honest_pair(server, channel) as pair, ExitStack() as stack:
                check_unmoved(pair, half_open(server, count, stack))
                deadline = time.monotonic() + WATCHDOG_S
                while server.look(http)["unknown"] < count:  # some wait to be accepted
                    assert time.monotonic() < deadline
                check_unmoved(pair, range(ROUNDS))
            sizes.append(server.look_until_empty(http, before)["rss"])
        assert sizes[1] - sizes[0] < KEPT_BYTES


STALLED = {
    "websocket": "tellwire.v1.json",
    "msgpack": "tellwire.v1.msgpack",
    "sse": "/v1/events",
    "stream": "/v1/stream",
}


def stall(server: WatchedServer, kind: str, channel: str, session: str) -> Http:
    """Open a reader that is a member of its channel, and reads nothing but the head of its answer."""
    if kind in ("websocket", "msgpack"):
        wire = WebSocket(server, packed=kind == "msgpack", receive_buffer=4096)
        wire.ask(type="connect", session=session)
        wire.ask(type="subscribe", channel=channel)
        assert wire.ask(type="presence", channel=channel, enter=True, watch=True)["type"] == "presence"
        return wire
    http = Http(server, receive_buffer=4096)
    http.send_request("GET", target(STALLED[kind], (channel,), {"presence": "enter", "session": session}))
    assert http.read_head()[0] == 200
    return http


def noise(server: WatchedServer, channel: str) -> Iterator[int]:
    """Publish much, and let members come and go, at each step."""
    with Http(server) as http:
        batch = [{"channel": channel, "data": "x" * 10_000}] * 50
        for step in range(ROUNDS):
            server.publish_all(batch)
            for number in range(10):
                session = f"passer-by-{number}"
                for enter in (True, False):
                    what = {"channel": channel, "session": session, "enter": enter}
                    assert http.post("/v1/presence", what).status == 200
            yield step


@pytest.mark.parametrize("kind", STALLED)
def test_members_that_never_read_cost_nobody_anything(kind: str, channel: str) -> None:
    namespaces = [{"name": "default", "history_bytes": 2_000_000}]
    with watched(limits={"tail_max_bytes": 2_000_000}, namespaces=namespaces) as server, Http(server) as http:
        server.publish("hello", 1)
        sizes = []
        before: dict[str, Any] = {}
        for _ in range(2):
            with honest_pair(server, f"{channel}-honest") as pair, ExitStack() as stack:
                before = before or server.look(http)
                for number in range(10):
                    stack.enter_context(stall(server, kind, channel, f"stalled-{number}"))
                check_unmoved(pair, noise(server, channel))
                members = http.get(f"/v1/presence?channel={channel}").json()
                assert members["clients"] == 10, "they are there as long as they are connected"
                assert server.look(http)["internal"] == 0
                stack.close()
                # The lists of who has gone are empty again, though nobody has read of it.
                sizes.append(server.look_until_empty(http, before)["rss"])
        assert sizes[1] - sizes[0] < KEPT_BYTES


def subscriptions(server: WatchedServer, channel: str, stack: ExitStack) -> Iterator[int]:
    """Subscribe to hundreds of channels at each step, and publish to some of all."""
    asked = "".join(f"&channel={channel}-{number}" for number in range(300))
    for step in range(ROUNDS):
        wire = stack.enter_context(WebSocket(server))
        for number in range(300):
            command = {"type": "subscribe", "channel": f"{channel}-{step}-{number}"}
            wire.send(write_frame(TEXT, json.dumps(command).encode()))
        for _ in range(300):
            assert wire.read()["type"] == "subscribed"
        events = stack.enter_context(Http(server))
        events.send_request("GET", f"/v1/stream?{asked[1:]}")
        assert events.read_head()[0] == 200
        server.publish_all([{"channel": f"{channel}-{number}", "data": step} for number in range(0, 300, 10)])
        yield step


def test_thousands_of_subscriptions_cost_nobody_anything(channel: str) -> None:
    with watched() as server, Http(server) as http:
        server.publish("hello", 1)
        before = server.look(http)
        sizes = []
        for _ in range(2):
            with honest_pair(server, f"{channel}-honest") as pair, ExitStack() as stack:
                check_unmoved(pair, subscriptions(server, channel, stack))
                assert server.look(http)["readings"] > ROUNDS * 600
            sizes.append(server.look_until_empty(http, before)["rss"])
        assert sizes[1] - sizes[0] < KEPT_BYTES


def flood(wire: WebSocket) -> Iterator[int]:
    """Publish twenty times as fast as may be, and read what is said to that."""
    for step in range(ROUNDS):
        piece = write_frame(TEXT, json.dumps({"type": "publish", "channel": "flood", "data": step}).encode())
        wire.send(piece * 2000)
        kinds = [wire.read()["type"] for _ in range(2000)]
        assert set(kinds) <= {"published", "error"}
        yield step


def test_publishing_past_the_rate_costs_nobody_anything(channel: str) -> None:
    with watched(limits={"publishes_per_s": 100.0}) as server, Http(server) as http:
        server.look(http)
        before = server.look(http)
        with honest_pair(server, channel) as pair, WebSocket(server) as wire:
            check_unmoved(pair, flood(wire))
            figures = server.look(http)
            assert figures["published"] < ROUNDS * 2000 / 4
        server.look_until_empty(http, before)


def strangers(server: WatchedServer, stack: ExitStack) -> Iterator[int]:
    """Open WebSockets with tokens that are not accepted, and some that never say who they are."""
    for step in range(ROUNDS):
        for number in range(20):
            wire = stack.enter_context(Http(server))
            fields = handshake_fields(token="not.a.token" if number % 2 else "")
            wire.send_request("GET", "/v1/ws", headers=fields)
            assert wire.read_head()[0] == 101
        yield step


def test_strangers_cost_nobody_anything(channel: str) -> None:
    with watched(auth={"token_key": SECRET}) as server, Http(server) as http:
        server.look(http)
        before = server.look(http)
        with honest_pair(server, channel, token=token()) as pair, ExitStack() as stack:
            check_unmoved(pair, strangers(server, stack))
        server.look_until_empty(http, before)
