"""Peers that do what they may, without an end: it costs them their connection, or nothing at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import methodcaller

import pytest

from tests.hardening.punctual import in_time
from tests.readers import LineReader, target
from tests.serving import Server
from tests.wires import TEXT, Http, WebSocket, write_frame

MEGABYTE = 1_000_000


@pytest.mark.parametrize("reads", [False, True], ids=["publishes only", "and subscribes"])
def test_peer_that_never_reads_its_answers_is_no_longer_read_from(server: Server, channel: str, reads: bool) -> None:
    with WebSocket(server, receive_buffer=4096) as wire:
        if reads:  # what the hub sends takes the answers along
            wire.say(type="subscribe", channel=channel)
            assert wire.read()["type"] == "subscribed"
        command = {"type": "publish", "ref": "r" * 1000, "channel": channel, "data": 1, "ephemeral": True}
        frames = write_frame(TEXT, json.dumps(command).encode()) * 60
        before = server.rss
        sent = wire.send_while_taken(frames, 100 * MEGABYTE)
        assert sent < 100 * MEGABYTE, "the server goes on reading from a peer that reads nothing"
        assert server.rss - before < 16 * MEGABYTE


def test_peer_that_never_reads_its_errors_is_no_longer_read_from(server: Server) -> None:
    with WebSocket(server, receive_buffer=4096) as wire:
        frames = write_frame(TEXT, b'{"type":"nonsense","ref":"%b"}' % (b"r" * 1000)) * 60
        before = server.rss
        assert wire.send_while_taken(frames, 100 * MEGABYTE) < 100 * MEGABYTE
        assert server.rss - before < 16 * MEGABYTE


def test_peer_that_never_reads_its_history_costs_no_copy_of_it(server: Server, channel: str) -> None:
    name = f"large:{channel}"
    server.publish_all([{"channel": name, "data": "x" * 100_000}] * 20)
    before = server.rss
    with WebSocket(server, receive_buffer=4096) as wire:
        for _ in range(200):
            wire.say(type="subscribe", channel=name, since="earliest")
            wire.say(type="unsubscribe", channel=name)
        assert server.rss - before < 16 * MEGABYTE


def test_10_000_subscriptions_and_ends_of_them_leave_nothing(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"commands_per_s": 1_000_000})
    with WebSocket(server) as wire:

        def rounds(count: int) -> None:
            for start in range(0, count, 100):
                names = [f"{channel}-{number % 500}" for number in range(start, start + 100)]
                for name in names:
                    wire.say(type="subscribe", channel=name, since="earliest")
                    wire.say(type="unsubscribe", channel=name)
                answers = [wire.read()["type"] for _ in range(200)]
                assert answers == ["subscribed", "unsubscribed"] * 100

        rounds(2000)
        before = server.rss
        rounds(10_000)
        assert server.rss - before < 4 * MEGABYTE


def test_2_000_connections_that_come_and_go_leave_nothing(server: Server, channel: str) -> None:
    def rounds(count: int) -> None:
        for _ in range(count):
            with WebSocket(server) as wire:
                wire.say(type="subscribe", channel=channel)
            with Http(server) as http:
                http.send_request("GET", target("/v1/events", (channel,), {}))
            with Http(server) as http:
                http.send_request("GET", target("/v1/messages", (channel,), {"wait": 60}))

    rounds(200)
    with Http(server) as http:
        http.get("/healthz")
    before = server.rss
    rounds(700)
    with Http(server) as http:
        http.get("/healthz")
    assert server.rss - before < 8 * MEGABYTE


def test_channels_that_nobody_needs_any_more_are_bounded(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(namespaces=[{"history_bytes": 2 * MEGABYTE}])
    numbers = iter(range(1_000_000))

    def publish(count: int) -> None:
        for _ in range(count):
            server.publish_all([{"channel": f"{channel}-{next(numbers)}", "data": "x" * 200} for _ in range(1000)])

    publish(20)
    before = server.rss
    publish(60)
    assert server.rss - before < 16 * MEGABYTE


def test_polls_that_are_asked_for_in_one_breath_are_answered_one_by_one(server: Server, channel: str) -> None:
    start = server.publish(channel, 0)
    with Http(server) as http:
        path = target("/v1/messages", (channel,), {"since": start, "wait": 60})
        request = f"GET {path} HTTP/1.1\r\nHost: {http.host}\r\n\r\n".encode()
        http.send(request * 200)
        server.publish(channel, 1)
        for _ in range(200):
            assert [message["data"] for message in http.read_response().json()["messages"]] == [1]


def test_requests_behind_a_waiting_poll_are_bounded(server: Server, channel: str) -> None:
    start = server.publish(channel, 0)
    before = server.rss
    with Http(server, receive_buffer=4096) as http:
        path = target("/v1/messages", (channel,), {"since": start, "wait": 60})
        request = f"GET {path} HTTP/1.1\r\nHost: {http.host}\r\n\r\n".encode()
        http.send(request)
        assert http.is_silent()
        sent = http.send_while_taken(request * 400, 100 * MEGABYTE)
        assert sent < 100 * MEGABYTE
        assert server.rss - before < 16 * MEGABYTE


@pytest.mark.parametrize("parameters", [{"wait": 60}, {}], ids=["long", "short"])
def test_polls_whose_answers_are_never_read_are_bounded(
    server: Server, channel: str, parameters: dict[str, int]
) -> None:
    server.publish_all([{"channel": channel, "data": "x" * 60_000}] * 30)
    before = server.rss
    with Http(server, receive_buffer=4096) as http:
        path = target("/v1/messages", (channel,), {"since": "earliest", "limit": 10_000, **parameters})
        request = f"GET {path} HTTP/1.1\r\nHost: {http.host}\r\n\r\n".encode()
        assert http.send_while_taken(request, 40 * MEGABYTE) < 40 * MEGABYTE
        assert server.rss - before < 24 * MEGABYTE
        first = http.read_response().json()
        assert first["messages"][0]["data"] == "x" * 60_000
        for _ in range(100):
            # The cursor may be a later one: the server goes on for others meanwhile.
            assert http.read_response().json()["messages"] == first["messages"]


def test_peer_is_not_held_to_deadlines_for_what_the_server_does_not_read(
    start_server: Callable[..., Server], channel: str
) -> None:
    server = start_server(limits={"head_s": 1.5})
    server.publish_all([{"channel": channel, "data": "x" * 60_000}] * 30)
    path = target("/v1/messages", (channel,), {"since": "earliest", "limit": 10_000})
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with in_time(1.5, lambda: Http(server, receive_buffer=4096), methodcaller("send", request)) as http:
        # It goes on for half a second in which nothing is taken: all in all, until the deadline is past.
        for _ in range(5):
            http.send_while_taken(request, 40 * MEGABYTE)
        for _ in range(10):
            assert len(http.read_response().json()["messages"]) == 30


def test_ephemeral_messages_do_not_wait_for_a_reader_that_stopped(server: Server, channel: str) -> None:
    with WebSocket(server, receive_buffer=4096) as stalled, LineReader(server, channel) as other:
        stalled.ask(type="subscribe", channel=channel)
        before = server.rss
        batch = [{"channel": channel, "data": "x" * 10_000, "ephemeral": True}] * 100
        for _ in range(60):
            server.publish_all(batch)
            assert len(other.read_messages(100)) == 100
        assert server.rss - before < 16 * MEGABYTE
        server.publish(channel, "in the log")
        read = 0
        while stalled.read()["data"] != "in the log":
            read += 1
        assert read < 6000


def test_connection_that_is_cut_in_the_middle_of_everything_harms_nothing(server: Server, channel: str) -> None:
    request = (
        f"GET {target('/v1/stream', (channel,), {'since': 'earliest'})} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )
    for cut in range(0, len(request), 7):
        with Http(server) as http:
            http.send(request[:cut])
    frame = write_frame(TEXT, json.dumps({"type": "subscribe", "channel": channel}).encode())
    for cut in range(len(frame)):
        with WebSocket(server) as wire:
            wire.send(frame[:cut])
    with WebSocket(server) as wire:
        wire.ask(type="subscribe", channel=channel)
        server.publish(channel, "fine")
        assert wire.read()["data"] == "fine"


def test_half_closed_connection_is_let_go_of(server: Server, channel: str) -> None:
    """A peer that says that it sends nothing more is gone: its poll or stream is not kept for it."""
    with Http(server) as http:
        http.send_request("GET", target("/v1/stream", (channel,), {}))
        http.read_head()
        http.socket.shutdown(1)
        assert b'"connected"' in http.read_to_end()
