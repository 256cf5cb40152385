"""The proxy does to what passes what it says, and counts every byte; in virtual time, over real sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from tellwire.compare.path import Path, parse_bandwidth, parse_duration, parse_share
from tellwire.compare.proxy import HELD_MAX_BYTES, QUEUED_MAX_BYTES, Pipe, Proxy, lost_s
from tests.compare.known_server import VirtualLoop

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def through(path: Path, answer: Answer, use: Callable[[Proxy, Streams], Awaitable[None]]) -> None:
    """Connect to a server through the proxy."""

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server, Proxy(server.sockets[0].getsockname()[:2], path) as proxy:
            streams = await asyncio.open_connection("127.0.0.1", proxy.port)
            try:
                await use(proxy, streams)
            finally:
                streams[1].close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


def now() -> float:
    return asyncio.get_running_loop().time()


def test_delay_is_added_each_way_and_to_the_handshake() -> None:
    async def use(proxy: Proxy, streams: Streams) -> None:
        reader, writer = streams
        for round_trips in (2, 1):  # the first waits for the connection, too
            begin = now()
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            assert now() - begin == pytest.approx(round_trips * 0.1)

    through(Path(delay_s=0.05), echo, use)


def test_bandwidth_lets_no_more_through() -> None:
    async def use(proxy: Proxy, streams: Streams) -> None:
        reader, writer = streams
        begin = now()
        writer.write(b"x" * 125_000)
        await reader.readexactly(125_000)
        # A second up; down it goes on while the rest comes, and is done one read later.
        assert 1.0 <= now() - begin <= 2.0
        assert (proxy.up_bytes, proxy.down_bytes) == (125_000, 125_000)

    through(Path(bandwidth_bits_per_s=1_000_000), echo, use)


def test_loss_keeps_order_and_loses_nothing() -> None:
    sent = random.Random(5).randbytes(400_000)

    async def use(proxy: Proxy, streams: Streams) -> None:
        reader, writer = streams
        begin = now()
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        assert now() - begin >= 0.2

    through(Path(loss=0.05), echo, use)


def test_loss_costs_what_is_documented() -> None:
    chance = random.Random(7)
    path = Path(loss=0.1)
    waits = [lost_s(path, chance, 0.2) for _ in range(100_000)]
    assert sum(wait > 0 for wait in waits) / len(waits) == pytest.approx(0.1, rel=0.05)
    assert {round(wait, 6) for wait in waits} <= {0, 0.2, 0.6, 1.4, 3.0, 6.2, 12.6}
    assert lost_s(Path(), chance, 0.2) == 0


def test_upgrades_are_refused_and_requests_pass() -> None:
    async def use(proxy: Proxy, streams: Streams) -> None:
        reader, writer = streams
        writer.write(b"GET /v1/ws HTTP/1.1\r\nHost: a\r\n")
        await writer.drain()
        writer.write(b"Upgrade: websocket\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        other, other_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        other_writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await other.readuntil(b"\r\n\r\n")).startswith(b"GET / ")
        other_writer.close()

    through(Path(no_websocket=True), echo, use)


async def stream_of_events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request whole, then another with a stream."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
    await asyncio.sleep(1)
    writer.write(b"done")
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(20):
        await asyncio.sleep(1)
        writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
    await reader.read()
    writer.close()


def test_answers_are_held_until_they_are_whole_or_too_large() -> None:
    async def use(proxy: Proxy, streams: Streams) -> None:
        reader, writer = streams
        begin = now()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        first = await reader.read(10)
        assert now() - begin == pytest.approx(1)
        assert (first + await reader.readuntil(b"done")).endswith(b"\r\n\r\ndone")
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        begin = now()
        await reader.readuntil(b"\r\n\r\n")
        # Sixteen of them are more than is held.
        assert now() - begin == pytest.approx(HELD_MAX_BYTES // 4096)

    through(Path(buffering_proxy=True), stream_of_events, use)


def test_sender_waits_where_too_much_is_on_its_way() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.close()

    async def use(proxy: Proxy, streams: Streams) -> None:
        _, writer = streams
        writer.write(b"x" * 20_000_000)
        await asyncio.sleep(1)
        (connection,) = proxy.connections
        assert 0 < connection._up.queued_bytes <= QUEUED_MAX_BYTES + 300_000
        assert proxy.up_bytes < 10_000_000

    through(Path(bandwidth_bits_per_s=1_000_000), swallow, use)


def test_cut_resets_every_connection() -> None:
    async def use(proxy: Proxy, streams: Streams) -> None:
        reader, writer = streams
        writer.write(b"ping")
        await reader.readexactly(4)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        assert proxy.connections == set()

    through(Path(), echo, use)


def test_pipe_delivers_in_order_whatever_is_lost() -> None:
    async def run() -> list[bytes]:
        out: list[bytes] = []
        pipe = Pipe(Path(delay_s=0.01, loss=0.4), out.append, random.Random(3))
        for number in range(200):
            pipe.put(b"%d" % number)
            await asyncio.sleep(0.005)
        await asyncio.sleep(120)
        return out

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(run()) == [b"%d" % number for number in range(200)]


@pytest.mark.parametrize(
    ("text", "seconds"), [("50ms", 0.05), ("0.2s", 0.2), ("1", 1), ("250 us", 0.00025), ("1.5S", 1.5)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.5 %", 0.005), ("0.02", 0.02), ("0", 0), ("50%", 0.5)])
def test_shares_are_read(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize(("text", "rate"), [("2mbit", 2e6), ("512kbit/s", 512e3), ("64000", 64e3), ("1Gbps", 1e9)])
def test_bandwidths_are_read(text: str, rate: float) -> None:
    assert parse_bandwidth(text) == rate


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (parse_duration, "fast", "'fast' is not a time; one looks like 50ms"),
        (parse_duration, "-1s", "is not a time"),
        (parse_share, "60%", "'60%' is not a share from 0 to 50 %"),
        (parse_share, "nan", "is not a share"),
        (parse_bandwidth, "10", "'10' is not a bandwidth of at least 1 kbit/s"),
        (parse_bandwidth, "2 parsec", "is not a bandwidth"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(parse: Callable[[str], float], text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        parse(text)
