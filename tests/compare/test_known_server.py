"""The harness finds back what is known beforehand of a server: its delays, and its overhead to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tellwire.compare.comparison import Comparison
from tellwire.compare.options import Options
from tests.compare.known_server import KnownServer, VirtualClock, VirtualLoop

OPEN_S = 0.3
DELIVER_S = 0.2
PADDING = 40
SIZES = (16, 200, 70_000)

WITHIN = 0.05
"""The share by which a figure may be off: with a clock that stands still while anything is to be done, it is less."""


def measure(*keys: str, then: Callable[[KnownServer], None] = lambda _: None, **options: Any) -> dict[str, Any]:
    """Compare transports of a known server in virtual time."""

    async def run() -> dict[str, Any]:
        async with KnownServer(open_s=OPEN_S, deliver_s=DELIVER_S, padding=PADDING) as server:
            then(server)
            given = Options(
                transports=keys, rate=40, seconds=1, readers=(1, 3), payload_bytes=SIZES, tries=3, idle=0, **options
            )
            comparison = Comparison(given, url=server.url, clock=VirtualClock())
            await comparison.run()
            return comparison.found

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What was found of Server-Sent Events, WebSocket, and a transport that the server does not have."""
    return measure("sse", "ndjson", "websocket")


@pytest.mark.parametrize("key", ["sse", "websocket"])
def test_known_delays_are_found_back(found: dict[str, Any], key: str) -> None:
    wire = found["transports"][key]
    assert (wire["status"], wire["says"]) == ("measured", "")
    assert wire["connect_ms"]["median"] == pytest.approx(1000 * OPEN_S, rel=WITHIN)
    assert wire["first_message_ms"]["median"] == pytest.approx(1000 * (OPEN_S + DELIVER_S), rel=WITHIN)
    assert wire["resume_ms"]["median"] == pytest.approx(1000 * (OPEN_S + DELIVER_S), rel=WITHIN)
    assert [entry["latency_ms"]["count"] for entry in wire["readers"]] == [40, 120]
    for entry in wire["readers"]:
        assert entry["missing"] == 0
        for name in ("p50", "p99", "p99.9", "min", "max"):
            assert entry["latency_ms"][name] == pytest.approx(1000 * DELIVER_S, rel=WITHIN)


def test_known_overhead_of_events_is_found_back(found: dict[str, Any]) -> None:
    for size, entry in zip(SIZES, found["transports"]["sse"]["bytes"], strict=True):
        overhead = PADDING + len('id: known.10000000\ndata: ""\n\n')
        assert entry["down"] == {
            "payload": size,
            "headers": 0,
            "framing": pytest.approx(overhead),
            "total": pytest.approx(size + overhead),
        }
        assert entry["up"]["total"] == 0


def test_known_overhead_of_frames_is_found_back(found: dict[str, Any]) -> None:
    channel = len("compare-12345678-")
    for size, entry in zip(SIZES, found["transports"]["websocket"]["bytes"], strict=True):
        envelope = '{"type":"message","channel":"","seq":10000000,"pad":"","data":""}'
        content = len(envelope) + PADDING + channel + len(str(size)) + size
        # RFC 6455, section 5.2: up to 125, up to 65,535, and beyond.
        header = 2 if content <= 125 else 4 if content <= 65_535 else 10
        assert entry["down"]["framing"] == pytest.approx(content - size + header)
        assert entry["up"]["total"] == 0


def test_known_overhead_of_publishes_is_found_back(found: dict[str, Any]) -> None:
    post = found["transports"]["sse"]["publish"]
    assert post["by"] == "POST /v1/messages"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 51\r\n\r\n"
    for size, entry in zip(SIZES, post["bytes"], strict=True):
        assert entry["down"]["headers"] == len(head)
        assert entry["down"]["framing"] == len('{"position": "known.10000000", "duplicate": false}')
        assert entry["up"]["payload"] == size
        assert entry["up"]["framing"] == len('{"channel":"compare-12345678","data":""}')
    socket = found["transports"]["websocket"]["publish"]["bytes"]
    assert [entry["down"]["headers"] + entry["up"]["headers"] for entry in socket] == [0, 0, 0]


def test_transport_that_is_lacking_is_said(found: dict[str, Any]) -> None:
    ndjson = found["transports"]["ndjson"]
    assert (ndjson["status"], ndjson["says"]) == ("absent", "the server does not have it: it answered 404")
    assert "connect_ms" not in ndjson
    assert found["ended"] == "complete"


def test_what_a_client_comes_to_is_said(found: dict[str, Any]) -> None:
    assert found["fallback"]["transport"] is not None
    assert "a client that is left alone comes to" in found["fallback"]["says"]


def test_unknown_process_is_said(found: dict[str, Any]) -> None:
    assert found["server"]["pid"] is None
    assert [entry["cpu_us_per_message"] for entry in found["transports"]["sse"]["readers"]] == [None, None]
    assert "memory_kib_per_connection" not in found["transports"]["sse"]
    assert any("--pid" in each for each in found["unknown"])


def test_load_stands_beside_each_figure(found: dict[str, Any]) -> None:
    wire = found["transports"]["websocket"]
    figures = [wire["connect_ms"], wire["first_message_ms"], wire["latency_ms"], wire["resume_ms"]]
    for figure in [*figures, *wire["bytes"], *wire["publish"]["bytes"], *wire["readers"]]:
        assert figure["load"]["limit_per_s"] > 0
        assert isinstance(figure["load"]["bottleneck"], bool)


@pytest.mark.parametrize("publishes", [1, 2, 30])
def test_server_that_dies_half_way_leaves_what_was_measured(publishes: int) -> None:
    def die_soon(server: KnownServer) -> None:
        server.dies_after = publishes

    found = measure("sse", "websocket", then=die_soon)
    assert found["ended"] == "lost"
    assert "cannot be connected to" in found["says"] or "broke" in found["says"] or "closed" in found["says"]
    wires = found["transports"]
    assert wires["websocket"]["status"] == "unmeasured"
    assert wires["sse"]["status"] != "measured"
    assert ("connect_ms" in wires["sse"]) == (publishes == 30)


def test_messages_that_never_come_are_counted() -> None:
    async def run() -> dict[str, Any]:
        async with KnownServer() as server:
            deliver = server.sse
            server.sse = lambda place: b": \n" if place == 60 else deliver(place)  # type: ignore[method-assign]
            given = Options(transports=("sse",), rate=40, seconds=1, readers=(1,), payload_bytes=(16,), tries=1, idle=0)
            comparison = Comparison(given, url=server.url, clock=VirtualClock())
            await comparison.run()
            return comparison.found

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        found = runner.run(run())
    (entry,) = found["transports"]["sse"]["readers"]
    assert entry["missing"] == 1
    assert entry["latency_ms"]["count"] == 39
