"""Abuse of the gRPC port: whoever asks too much is told so, and nobody else is harmed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tellwire.protocol.proto import tellwire_pb2 as pb
from tests.grpc.callers import Stream, call, error_of, json_data
from tests.serving import Server

SUBSCRIBE = "/tellwire.v1.Tellwire/Subscribe"

FULL = "too_many_connections"
REFUSED = "UNAVAILABLE"
"""What gRPC itself makes of a stream that HTTP/2 refused before anybody looked at it (RFC 9113, 5.1.2): some of those
that come while others that were turned away are still being put away."""


def refusal(exc: grpc.RpcError) -> str:
    """Say how a stream was turned away."""
    if exc.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return error_of(exc).code
    return str(exc.code().name) if "RST_STREAM" in str(exc.details()) else repr(exc)


@pytest.fixture
def limited(start_server: Callable[..., Server]) -> Server:
    return start_server(
        server={"grpc_port": 0}, limits={"grpc_streams_max": 50, "heartbeat_s": 120.0, "connections_max": 1000}
    )


def test_connection_with_ten_thousand_streams_gets_its_share(limited: Server, channel: str) -> None:
    async def flood() -> tuple[Counter[str], int]:
        """Open them; return what those were told that were refused, and how many are read."""
        said: Counter[str] = Counter()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{limited.grpc_port}") as connection:
            subscribe: Any = connection.unary_stream(SUBSCRIBE, response_deserializer=pb.Pushes.FromString)
            await connection.channel_ready()  # so that it knows how many streams HTTP/2 lets in at a time
            request = pb.SubscribeRequest(channels=[channel]).SerializeToString()

            async def read(stream: Any) -> Any:
                try:
                    await stream.read()
                except grpc.aio.AioRpcError as exc:
                    said[refusal(exc)] += 1
                    return None
                return stream

            streams = await asyncio.gather(*(read(subscribe(request)) for _ in range(10_000)))
            live = [stream for stream in streams if stream is not None]
            # Those that are read go on, and so does everybody else.
            await asyncio.to_thread(publish, "to those who read")
            for stream in live:
                pushes = [push for push in (await stream.read()).pushes if not push.HasField("heartbeat")]
                while not pushes:
                    pushes = [push for push in (await stream.read()).pushes if not push.HasField("heartbeat")]
                assert [push.message.data.value for push in pushes] == [b'"to those who read"']
            for stream in live:
                stream.cancel()
        return said, len(live)

    def publish(text: str) -> None:
        with call(limited) as calls:
            assert calls.publish(channel, text).position

    publish("before")
    before = limited.rss
    said, live = asyncio.run(flood())
    assert said.total() == 10_000 - live
    assert FULL in said
    assert set(said) <= {FULL, REFUSED}
    assert 50 <= live < 10_000
    assert limited.rss - before < 60_000_000
    publish("after")


def test_message_that_is_too_large_ends_its_call_only(limited: Server, channel: str) -> None:
    with call(limited) as calls:
        reading = calls.subscribe(channel)
        reading.read_kind("connected")
        large = pb.PublishRequest(channel=channel, data=json_data("x" * 2_000_000))
        with pytest.raises(grpc.RpcError) as caught:
            calls.ask("Publish", large)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as caught:
            calls.upload([large])
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        conversation = calls.connect()
        conversation.say(pb.Command(publish=large))
        assert conversation.status() is not grpc.StatusCode.OK
        calls.publish(channel, "small")
        assert reading.read_data(1) == ["small"]
        reading.cancel()
    assert limited.log == ""


def test_streams_that_are_cancelled_at_once_leave_nothing(limited: Server, channel: str) -> None:
    with call(limited) as calls:
        for _ in range(1000):
            calls.subscribe(channel).call.cancel()
        streams: list[Stream] = []
        refusals: set[str] = set()
        while len(streams) < 50:
            stream = calls.subscribe(channel)
            try:
                stream.read_kind("connected")
            except grpc.RpcError as exc:
                refusals.add(refusal(exc))  # some are still on their way out
            else:
                streams.append(stream)
        assert refusals <= {FULL, REFUSED}
        with pytest.raises(grpc.RpcError) as caught:
            calls.subscribe(channel).read()
        assert refusal(caught.value) in (FULL, REFUSED)
        for stream in streams:
            stream.cancel()
    assert limited.log == ""


def test_connections_of_an_address_are_counted_by_their_streams(
    start_server: Callable[..., Server], channel: str
) -> None:
    server = start_server(server={"grpc_port": 0}, limits={"connections_per_address": 3})
    with call(server) as one, call(server) as two:
        streams = [each.subscribe(channel) for each in (one, two, one)]
        for stream in streams:
            stream.read_kind("connected")
        with pytest.raises(grpc.RpcError) as caught:
            two.subscribe(channel).read()
        assert error_of(caught.value).code == "too_many_connections"
        for stream in streams:
            stream.cancel()


def test_bytes_that_are_no_http2_harm_nobody(limited: Server, channel: str) -> None:
    async def shout(data: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", limited.grpc_port)
        writer.write(data)
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            pass
        writer.close()

    async def all_at_once() -> None:
        frames = (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x00" * 10_000,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        )
        await asyncio.gather(*(shout(data) for data in frames for _ in range(20)))

    asyncio.run(all_at_once())
    with call(limited) as calls:
        assert calls.publish(channel, 1).position


def test_unknown_methods_are_told_so(limited: Server) -> None:
    with call(limited) as calls:
        ask: Any = calls.channel.unary_unary("/tellwire.v1.Tellwire/Nothing")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
