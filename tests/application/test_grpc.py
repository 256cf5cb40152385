"""gRPC beside an application: on a port of its own, for as long as the application lives."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tellwire import Tellwire
from tellwire.client import connect
from tellwire.errors import Unavailable
from tellwire.protocol.proto import tellwire_pb2 as pb
from tellwire.protocol.proto.tellwire_pb2_grpc import TellwireStub
from tellwire.testing.harness import on_loop
from tests.application.hosting import Client, Host
from tests.grpc.callers import Stream, json_data, value_of
from tests.ports import free_port

APP = Path(__file__).parent / "grpc_app.py"
ANN = (("authorization", "Bearer ann"),)


def port_of(tellwire: Tellwire) -> int:
    assert tellwire.grpc_url is not None
    return int(tellwire.grpc_url.rpartition(":")[2])


async def exchange(tellwire: Tellwire) -> list[Any]:
    """Have a client of gRPC read what the application publishes, and the application what the client does."""
    assert tellwire.grpc_url is not None
    async with connect(tellwire.grpc_url) as client, client.subscribe("news", since="earliest") as news:
        await tellwire.publish("news", "from the application")
        await client.publish("news", "over gRPC")
        heard = [(await anext(news)).data for _ in range(2)]
    return [*heard, len((await tellwire.read("news", last=10)).messages)]


@on_loop
async def test_grpc_is_there_for_as_long_as_the_application_is() -> None:
    tellwire = Tellwire(open=True, grpc_port=free_port())  # that nobody else is given when it is free again
    for _ in range(2):
        assert tellwire.grpc_url is None
        async with tellwire.lifespan():
            assert await exchange(tellwire) == ["from the application", "over gRPC", 2]
            port = port_of(tellwire)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_grpc_goes_with_the_application_to_another_loop() -> None:
    tellwire = Tellwire(open=True, grpc_port=0)

    async def live() -> list[Any]:
        async with tellwire.lifespan():
            return await exchange(tellwire)

    assert [asyncio.run(live()) for _ in range(2)] == [["from the application", "over gRPC", 2]] * 2


@on_loop
async def test_port_that_is_taken_keeps_the_application_from_starting() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        tellwire = Tellwire(open=True, grpc_port=port)
        with pytest.raises(Unavailable, match=f"gRPC cannot listen on 127.0.0.1:{port}: is the port taken"):
            await tellwire.start()
        assert tellwire.grpc_url is None
    async with tellwire.lifespan():
        assert await exchange(tellwire) == ["from the application", "over gRPC", 2]


@on_loop
async def test_second_node_is_refused_the_port_while_each_has_a_log_of_its_own() -> None:
    """Two nodes that share a port and no log would each have half of the clients, and none would be told."""
    first = Tellwire(open=True, grpc_port=0)
    async with first.lifespan():
        second = Tellwire(open=True, grpc_port=port_of(first))
        with pytest.raises(Unavailable, match="gRPC cannot listen"):
            await second.start()


def test_application_decides_who_comes_in_and_sends_them_away_when_it_stops() -> None:
    with Host(APP) as host, Client(host.url) as client:
        address = httpx.get(f"{host.url}/grpc").text
        with grpc.insecure_channel(address.removeprefix("grpc://")) as channel:
            stub = TellwireStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Publish(pb.PublishRequest(channel="news", data=json_data(1)))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            result = stub.Call(pb.CallRequest(method="whoami", data=json_data(5)), metadata=ANN)
            assert value_of(result.data) == ["ann", "grpc", 5]
            stub.Publish(pb.PublishRequest(channel="news", data=json_data("over gRPC")), metadata=ANN)
            client.http.headers["authorization"] = "Bearer ann"
            assert client.poll("news") == ["over gRPC"]
            health: Any = health_pb2_grpc.HealthStub(channel)
            watched = health.Watch(health_pb2.HealthCheckRequest())
            assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
            streams = [Stream(stub, pb.SubscribeRequest(channels=["news"], since="earliest"), ANN) for _ in range(3)]
            for stream in streams:
                stream.read_kind("connected")
                assert stream.read_data(1) == ["over gRPC"]
            code = host.stop()
            assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
            for stream in streams:
                closing = stream.read_kind("closing")
                assert (closing.code, closing.reconnect_in_ms) == (1012, 0)
                assert stream.status() is grpc.StatusCode.UNAVAILABLE
        assert code in (0, -15)
        assert "Traceback" not in host.log
