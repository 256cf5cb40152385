"""What TLS brings: HTTP/2 with its windows, and HTTP/1.1 and WebSocket as without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tellwire.protocol.sse import EventParser
from tests.http2 import Http2
from tests.readers import target
from tests.serving import PATIENT_S, SHARED, Certificate, Server
from tests.wires import Http, WebSocket

BATCH = 12
"""Messages of 1,000 bytes that fit into one DATA frame."""


@pytest.fixture(scope="module", params=["direct", "hypercorn"])
def secure_server(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[Server]:
    """Our own server and a foreign one, with TLS."""
    server = Server(request.param, **{**SHARED, "server": certificate.settings})
    yield server
    server.close()


def publish(wire: Http2, channel: str, *values: Any) -> None:
    """Publish over HTTP/2."""
    body = json.dumps([{"channel": channel, "data": value} for value in values]).encode()
    stream = wire.start("POST", "/v1/messages", body=body)
    answers = json.loads(wire.finish(stream))
    assert wire.statuses[stream] == 200
    assert all(answer["position"] for answer in answers), answers


def test_many_event_streams_share_a_connection(secure_server: Server, certificate: Certificate, channel: str) -> None:
    with Http2(secure_server, certificate.client_context("h2")) as wire:
        streams = [wire.start("GET", target("/v1/events", (f"{channel}-{n}",), {})) for n in range(20)]
        for stream in streams:
            wire.wait_for(stream, b"id: ")
            assert wire.statuses[stream] == 200
        for number, stream in enumerate(streams):
            publish(wire, f"{channel}-{number}", number)
            wire.wait_for(stream, b"data: %d\n\n" % number)
        publish(wire, f"{channel}-0", "again")
        wire.wait_for(streams[0], b'data: "again"\n\n')
        wire.cancel(streams[0])
        publish(wire, f"{channel}-1", "still")
        wire.wait_for(streams[1], b'data: "still"\n\n')


def test_polls_and_streams_of_lines_go_over_http2(
    secure_server: Server, certificate: Certificate, channel: str
) -> None:
    with Http2(secure_server, certificate.client_context("h2")) as wire:
        lines = wire.start("GET", target("/v1/stream", (channel,), {}))
        connected = json.loads(wire.wait_for(lines, b"\n"))
        poll = wire.start("GET", target("/v1/messages", (channel,), {"since": connected["cursor"], "wait": 30}))
        publish(wire, channel, 1)
        assert json.loads(wire.finish(poll))["messages"][0]["data"] == 1
        wire.wait_for(lines, b'"data":1')
        refused = wire.start("GET", "/v1/messages")
        assert json.loads(wire.finish(refused))["code"] == "bad_request"
        assert wire.statuses[refused] == 400


def test_httpx_reads_events_over_http2(secure_server: Server, certificate: Certificate, channel: str) -> None:
    base = f"https://127.0.0.1:{secure_server.port}"
    with (
        httpx.Client(http2=True, verify=certificate.client_context(), base_url=base, timeout=60) as client,
        client.stream("GET", "/v1/events", params={"channel": channel}) as response,
    ):
        assert response.http_version == "HTTP/2"
        parser = EventParser()
        events = []
        for chunk in response.iter_bytes():
            events += parser.feed(chunk)
            if len(events) == 3:
                break
            if parser.last_event_id and not events:
                messages = [{"channel": channel, "data": number} for number in range(3)]
                assert client.post("/v1/messages", json=messages).status_code == 200
        assert [event.data for event in events] == ["0", "1", "2"]


def test_large_bodies_go_both_ways_over_http2(secure_server: Server, certificate: Certificate, channel: str) -> None:
    """Larger than the windows of both sides."""
    name = f"large:{channel}"
    base = f"https://127.0.0.1:{secure_server.port}"
    values = [str(number) * 900_000 for number in range(4)]
    with httpx.Client(http2=True, verify=certificate.client_context(), base_url=base, timeout=60) as client:
        for value in values:
            assert client.post("/v1/messages", json={"channel": name, "data": value}).status_code == 200
        read: list[Any] = []
        since = "earliest"
        while len(read) < len(values):
            page = client.get("/v1/messages", params={"channel": name, "since": since, "wait": 10}).json()
            read += [message["data"] for message in page["messages"]]
            since = page["cursor"]
        assert read == values
        if secure_server.kind == "direct":  # Hypercorn drops a connection that is answered before its body has come
            assert client.post("/v1/messages", content=b" " * (3 << 20)).status_code == 413


def test_plain_request_to_a_port_with_tls_is_cut(secure_server: Server) -> None:
    with Http(secure_server) as http:
        http.send_request("GET", "/healthz")
        http.read_to_end()
    with Http(secure_server) as http:
        http.send(b"\x16\x03\x01\x00\xff" + b"\0" * 300)
        http.read_to_end()
    assert "Traceback" not in secure_server.log


@pytest.mark.parametrize("protocols", [("http/1.1",), ()])
def test_http_1_1_goes_over_tls_too(
    secure_server: Server, certificate: Certificate, channel: str, protocols: tuple[str, ...]
) -> None:
    context = certificate.client_context(*protocols)
    with Http(secure_server, context=context) as reader, Http(secure_server, context=context) as http:
        reader.send_request("GET", target("/v1/events", (channel,), {}))
        reader.read_until(b"id: ")
        assert http.post("/v1/messages", {"channel": channel, "data": "x" * 60_000}).status == 200
        reader.read_until(b"x" * 60_000)
        assert http.get("/healthz").status == 200


def test_websocket_goes_over_tls(secure_server: Server, certificate: Certificate, channel: str) -> None:
    with WebSocket(secure_server, context=certificate.client_context("http/1.1")) as wire:
        assert wire.ask(type="subscribe", channel=channel)["type"] == "subscribed"
        wire.ask(type="publish", channel=channel, data="x" * 60_000)
        assert wire.read()["data"] == "x" * 60_000


def test_stalled_http2_reader_costs_its_window_and_no_more(
    start_server: Callable[..., Server], certificate: Certificate, channel: str
) -> None:
    server = start_server(
        server=certificate.settings,
        limits={"tail_max_bytes": 200_000, "heartbeat_s": PATIENT_S},
        namespaces=[{"history_messages": 100}],
    )
    with Http2(server, certificate.client_context("h2")) as wire:
        stalled = wire.start("GET", target("/v1/stream", (channel,), {}))
        wire.wait_for(stalled, b"\n")
        wire.stall(stalled)
        other = wire.start("GET", target("/v1/stream", (channel,), {}))
        wire.wait_for(other, b"\n")
        for number in range(200):
            publish(wire, channel, *(f"{number} " + "x" * 990 for _ in range(BATCH)))
        before = server.rss
        for number in range(200, 1000):
            publish(wire, channel, *(f"{number} " + "x" * 990 for _ in range(BATCH)))
        # 9 MB were published, and each of them is kept nowhere.
        assert server.rss - before < 6_000_000
        publish(wire, channel, "end")
        wire.wait_for(other, b'"end"')
        assert b'"end"' not in wire.bodies[stalled]
        wire.resume(stalled)
        body = wire.wait_for(stalled, b'"end"')
        pushes = [json.loads(line) for line in body.split(b"\n")[1:-1]]
        assert [push["reason"] for push in pushes if push["type"] == "gap"] == ["slow"]
        seqs = [push["seq"] for push in pushes if push["type"] == "message"]
        assert seqs == sorted(set(seqs))
        assert len(seqs) > 100


def test_http2_stream_that_takes_nothing_is_reset(
    start_server: Callable[..., Server], certificate: Certificate, channel: str
) -> None:
    server = start_server(server=certificate.settings, limits={"heartbeat_s": 0.05})
    with Http2(server, certificate.client_context("h2")) as wire:
        stalled = wire.start("GET", target("/v1/stream", (channel,), {}))
        wire.wait_for(stalled, b"\n")
        wire.stall(stalled)
        for _ in range(20):
            publish(wire, channel, *("x" * 1000 for _ in range(BATCH)))
        wire.wait_reset(stalled)
        publish(wire, channel, "the connection goes on")


@pytest.mark.parametrize(("path", "beat"), [("/v1/stream", b"\n"), ("/v1/events", b"\n: \n"), ("/v1/messages", None)])
def test_http2_request_without_a_body_is_not_waited_for_its_body(
    start_server: Callable[..., Server], certificate: Certificate, channel: str, path: str, beat: bytes | None
) -> None:
    server = start_server(server=certificate.settings, limits={"body_s": 0.5, "heartbeat_s": 0.2})
    with Http2(server, certificate.client_context("h2")) as wire:
        asked = wire.start("GET", target(path, (channel,), {"since": "now", "wait": 2} if beat is None else {}))
        if beat is None:
            assert json.loads(wire.finish(asked))["messages"] == []
        else:
            while wire.bodies[asked].count(beat) < 10:  # for longer than a body may take
                assert asked not in wire.reset | wire.ended
                wire.pump()
        assert wire.statuses[asked] == 200


def test_stalled_reader_over_tls_costs_its_buffers_and_no_more(
    start_server: Callable[..., Server], certificate: Certificate, channel: str
) -> None:
    server = start_server(
        server=certificate.settings,
        limits={"tail_max_bytes": 200_000, "heartbeat_s": PATIENT_S},
        namespaces=[{"history_messages": 100}],
    )
    context = certificate.client_context("http/1.1")
    with Http(server, context=context, receive_buffer=4096) as stalled, Http(server, context=context) as http:
        stalled.send_request("GET", target("/v1/stream", (channel,), {}))
        stalled.read_until(b"\n")
        batch = [{"channel": channel, "data": "x" * 1000}] * 100
        for _ in range(60):
            assert http.post("/v1/messages", batch).status == 200
        before = server.rss
        for _ in range(240):
            assert http.post("/v1/messages", batch).status == 200
        assert server.rss - before < 6_000_000
        assert http.post("/v1/messages", {"channel": channel, "data": "end"}).status == 200
        stalled.read_until(b'"type":"gap"')
        stalled.read_until(b'"end"')


def test_websocket_over_tls_that_stalls_gets_everything_afterwards(
    start_server: Callable[..., Server], certificate: Certificate, channel: str
) -> None:
    server = start_server(
        server=certificate.settings, limits={"heartbeat_s": PATIENT_S}, namespaces=[{"history_messages": 20_000}]
    )
    context = certificate.client_context("http/1.1")
    with WebSocket(server, context=context, receive_buffer=4096) as stalled, Http(server, context=context) as http:
        stalled.ask(type="subscribe", channel=channel)
        for start in range(0, 15_000, 100):
            batch = [{"channel": channel, "data": [n, "x" * 1000]} for n in range(start, start + 100)]
            assert http.post("/v1/messages", batch).status == 200
        assert [stalled.read()["data"][0] for _ in range(15_000)] == list(range(15_000))


def test_open_http2_streams_are_ended_when_the_server_stops(
    start_server: Callable[..., Server], certificate: Certificate, channel: str
) -> None:
    server = start_server(server=certificate.settings)
    with Http2(server, certificate.client_context("h2")) as wire:
        stream = wire.start("GET", target("/v1/stream", (channel,), {}))
        wire.wait_for(stream, b"\n")
        server.terminate()
        body = wire.finish(stream)
        closing = json.loads(body.splitlines()[-1])
        assert (closing["type"], closing["code"]) == ("closing", 1012)
    assert server.wait() == 0
