"""Real servers are compared over real ways; no figure is asserted that a busy machine could change."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from tellwire.compare.clients import Datagrams
from tellwire.compare.comparison import Comparison
from tellwire.compare.failures import Unmeasured
from tellwire.compare.options import Options
from tellwire.compare.path import Path
from tellwire.compare.publishers import WebSocketPublisher
from tellwire.compare.server_process import Gauge
from tellwire.compare.site import site_of
from tests.guarded import guarded, guarded_servers, token
from tests.serving import Server

__all__ = ["guarded", "guarded_servers"]

QUICK: dict[str, Any] = {
    "rate": 50, "seconds": 0.2, "readers": (1, 2), "payload_bytes": (16, 300), "tries": 2, "idle": 5, "poll_s": 0.1,
    "patience_s": 60,
}  # fmt: skip


def compare(url: str | None, *keys: str, path: Path | None = None, **more: Any) -> dict[str, Any]:
    """Run a short comparison."""
    given = {name: more.pop(name) for name in list(more) if name in ("token", "pid")}
    options = Options(transports=keys, path=path or Path(), **{**QUICK, **more})
    comparison = Comparison(options, url=url, **given)
    asyncio.run(comparison.run())
    return comparison.found


def test_every_transport_is_measured(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}"
    keys = ("poll", "longpoll", "sse", "ndjson", "websocket", "websocket-msgpack")
    found = compare(url, *keys, pid=server.pid)
    assert (found["ended"], found["says"], found["unknown"]) == ("complete", "", [])
    assert found["server"] == {"url": url, "is_own": False, "pid": server.pid}
    for key in keys:
        wire = found["transports"][key]
        assert (wire["status"], wire["says"]) == ("measured", ""), key
        assert wire["memory_kib_per_connection"]["connections"] == 5
        assert [(entry["readers"], entry["missing"]) for entry in wire["readers"]] == [(1, 0), (2, 0)]
        assert [entry["latency_ms"]["count"] for entry in wire["readers"]] == [10, 20]
        assert wire["resume_ms"]["missed"] == 10
        for entry in wire["readers"]:
            assert entry["cpu_us_per_message"] == pytest.approx(entry["readers"] * entry["cpu_us_per_delivery"])
        for entry in [*wire["bytes"], *wire["publish"]["bytes"]]:
            for way in (entry["down"], entry["up"]):
                assert way["total"] == pytest.approx(way["payload"] + way["headers"] + way["framing"])
                assert way["framing"] >= 0
    by_key = found["transports"]
    # What a stream carries beside its payload has no heads in it; what is asked for has both.
    assert by_key["sse"]["bytes"][0]["down"]["headers"] == by_key["websocket"]["bytes"][0]["down"]["headers"] == 0
    for way in ("down", "up"):
        # All ten may have come with one answer.
        assert 10 * by_key["longpoll"]["bytes"][0][way]["headers"] > 100
    assert (
        by_key["websocket"]["bytes"][0]["down"]["framing"] > by_key["websocket-msgpack"]["bytes"][0]["down"]["framing"]
    )
    assert found["fallback"]["transport"] == "websocket"


def test_long_polling_beats_a_websocket_that_is_blocked(server: Server) -> None:
    path = Path(no_websocket=True, buffering_proxy=True)
    found = compare(f"http://127.0.0.1:{server.port}", "longpoll", "sse", "websocket", path=path, patience_s=10)
    wires = found["transports"]
    assert {key: wire["status"] for key, wire in wires.items()} == {
        "longpoll": "measured",
        "sse": "buffered",
        "websocket": "blocked",
    }
    assert "something on the way keeps the stream to itself" in wires["sse"]["says"]
    assert wires["websocket"]["says"] == "something on the way does not let it through: it answered 403"
    assert [wires[key]["path"]["verdict"] for key in wires] == ["open", "buffered", "blocked"]
    assert found["ended"] == "complete"
    assert found["fallback"]["transport"] in ("longpoll", "poll")


def test_refused_token_ends_with_a_sentence(guarded: Server) -> None:
    url = f"http://127.0.0.1:{guarded.port}"
    for shown, says in ((None, "token"), ("a.b.c", "token"), (token(can={"subscribe": []}), "may not")):
        found = compare(url, "sse", token=shown)
        assert found["ended"] == "refused", found
        assert says in found["says"]
        assert found["transports"]["sse"]["status"] == "unmeasured"


def test_token_that_suffices_is_shown_on_every_transport(guarded: Server) -> None:
    shown = token(can={"subscribe": ["lab*"], "publish": ["lab*"]})
    found = compare(f"http://127.0.0.1:{guarded.port}", "longpoll", "sse", "websocket", token=shown, channel="lab")
    assert found["ended"] == "complete", found["says"]
    assert [wire["status"] for wire in found["transports"].values()] == ["measured"] * 3
    assert shown not in repr(found)


def test_server_that_is_not_there_is_said() -> None:
    found = compare("http://127.0.0.1:1", "sse")
    assert found["ended"] == "lost"
    assert found["says"].startswith("127.0.0.1:1 cannot be connected to")


def test_server_that_is_killed_half_way_leaves_what_was_measured(start_server: Any) -> None:
    server: Server = start_server()
    comparison = Comparison(
        Options(transports=("sse", "websocket"), **QUICK),
        url=f"http://127.0.0.1:{server.port}",
        progress=lambda key, step, *_: server.kill() if (key, step) == ("websocket", "resuming") else None,
    )
    asyncio.run(comparison.run())
    found = comparison.found
    assert found["ended"] == "lost"
    assert "while WebSocket, JSON was measured" in found["says"] or "cannot be connected to" in found["says"]
    assert found["transports"]["sse"]["status"] == "measured"
    half = found["transports"]["websocket"]
    assert half["status"] == "broken"
    assert "latency_ms" in half
    assert "resume_ms" not in half


def test_publisher_whose_server_is_gone_says_so_again(start_server: Any) -> None:
    server: Server = start_server()

    async def run() -> list[str]:
        publisher = WebSocketPublisher(site_of(f"http://127.0.0.1:{server.port}"))
        await publisher.open()
        publisher.sent += 1  # what is answered no more
        server.kill()
        says: list[str] = []
        for _ in range(2):
            with pytest.raises(Unmeasured) as caught:
                await publisher.settle()
            says.append(caught.value.status)
            publisher.send("lab", "a text")  # which is known to be in vain
        return says

    assert asyncio.run(run()) == ["broken", "broken"]


def test_server_of_its_own_ends_with_the_comparison() -> None:
    found = compare(None, "sse")
    assert (found["ended"], found["server"]["is_own"]) == ("complete", True)
    with pytest.raises(ProcessLookupError):
        os.kill(found["server"]["pid"], 0)


def test_what_reads_inside_is_refused_over_tls() -> None:
    with pytest.raises(ValueError, match="which TLS does not let them"):
        Comparison(Options(path=Path(buffering_proxy=True)), url="https://127.0.0.1:1")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"transports": ("pigeon",)}, "there is no transport 'pigeon'; there are poll, longpoll"),
        ({"rate": 0}, "rate is 0; it has to be a number above 0"),
        ({"seconds": float("inf")}, "seconds is inf; it has to be a number above 0"),
        ({"idle": -1}, "idle is -1; 0 leaves the memory of idle connections out"),
        ({"payload_bytes": (4,)}, "a payload has at least 8 bytes"),
        ({"readers": ()}, "readers names nothing to measure"),
        ({"readers": (0,)}, "at least one reader"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Options(**options)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only Linux tells of a process in /proc")  # noqa: PTH110
def test_gauge_reads_this_process() -> None:
    gauge = Gauge(os.getpid())
    before = time.process_time()
    read = gauge.cpu_s()
    assert read is not None
    assert before <= read <= time.process_time()
    memory = gauge.memory_bytes()
    assert memory is not None
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert (gauge.memory_bytes() or 0) - memory > 48 * 2**20
    assert gauge.unknown is None
    assert "--pid" in (Gauge(None).unknown or "")


def test_datagrams_are_counted_for_who_opened_them() -> None:
    async def run() -> list[tuple[int, int]]:
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(_Echo, local_addr=("127.0.0.1", 0))
        where = server.get_extra_info("sockname")
        with Datagrams() as outer:
            one, _ = await loop.create_datagram_endpoint(_Heard, remote_addr=where)
            with Datagrams() as inner:
                other, heard = await loop.create_datagram_endpoint(_Heard, remote_addr=where)
        for transport in (one, other, other):
            transport.sendto(b"x" * 100)
        await heard.twice
        later, after = await loop.create_datagram_endpoint(_Heard, remote_addr=where)
        later.sendto(b"later")
        later.sendto(b"later")
        await after.twice
        for transport in (one, other, later, server):
            transport.close()
        return [(outer.up_bytes, inner.up_bytes), (outer.down_bytes, inner.down_bytes)]

    # The answers of the first socket are there before those of the second, which were asked for later.
    assert asyncio.run(run()) == [(100, 200), (100, 200)]


@pytest.mark.parametrize("key", ["grpc", "webrtc"])
def test_what_the_client_speaks_is_measured_with_it(key: str) -> None:
    pytest.importorskip({"grpc": "grpc", "webrtc": "aiortc"}[key], reason=f"tellwire[{key}] is not installed")
    found = compare(None, key, "sse", idle=2)
    wire = found["transports"][key]
    assert (found["ended"], wire["status"], wire["says"]) == ("complete", "measured", "")
    assert [(entry["readers"], entry["missing"]) for entry in wire["readers"]] == [(1, 0), (2, 0)]
    for entry in [*wire["bytes"], *wire["publish"]["bytes"]]:
        assert entry["down"]["framing"] > 0
        assert entry["up"]["framing"] > 0
    assert wire["resume_ms"]["missed"] == 10


def test_what_the_proxy_cannot_carry_is_left_out(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}"
    found = compare(url, "webrtc", "grpc", "sse", path=Path(delay_s=0.001))
    wires = found["transports"]
    assert wires["webrtc"]["says"] == "it goes over UDP, which the proxy that shapes the way does not carry"
    assert wires["grpc"]["says"] == "where the server has gRPC is not known here; --grpc says it"
    assert [wires[key]["status"] for key in wires] == ["unmeasured", "unmeasured", "measured"]
    assert found["ended"] == "complete"


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(data, addr)


class _Heard(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self._count = 0
        self.twice: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._count += 1
        if self._count == 2:
            self.twice.set_result(None)
