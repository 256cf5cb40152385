"""The server itself: health, reflection, TLS, and how it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tellwire.protocol.proto import tellwire_pb2 as pb
from tellwire.protocol.proto.tellwire_pb2_grpc import TellwireStub
from tests.grpc.callers import Caller, call, json_data, value_of
from tests.guarded import SECRET, token
from tests.serving import ROOT, WATCHDOG_S, Certificate, Server

SERVICE = "tellwire.v1.Tellwire"


def test_health_is_told(calls: Caller) -> None:
    health: Any = health_pb2_grpc.HealthStub(calls.channel)
    for name in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_shows_the_service(calls: Caller) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(calls.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    services, file = list(stub.ServerReflectionInfo(iter(asked)))
    names = {each.name for each in services.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    (raw,) = file.file_descriptor_response.file_descriptor_proto
    methods = descriptor_pb2.FileDescriptorProto.FromString(raw).service[0].method
    assert [(each.name, each.client_streaming, each.server_streaming) for each in methods] == [
        ("Publish", False, False),
        ("History", False, False),
        ("Presence", False, False),
        ("Call", False, False),
        ("Subscribe", False, True),
        ("PublishStream", True, False),
        ("Connect", True, True),
    ]


def test_draining_closes_every_stream_in_its_slot_and_loses_nothing(
    start_grpc: Callable[..., Server], tmp_path: Path, channel: str
) -> None:
    broker = f"sqlite:///{tmp_path / 'log.db'}"
    server = start_grpc(server={"broker": broker}, limits={"drain_s": 0.5})
    with call(server) as calls:
        streams = [calls.subscribe(channel) for _ in range(10)] + [calls.connect() for _ in range(10)]
        for stream in streams[:10]:
            stream.read_kind("connected")
        for stream in streams[10:]:
            stream.ask(subscribe=pb.SubscribeCommand(channel=channel))
        stub: Any = health_pb2_grpc.HealthStub(calls.channel)
        health = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        first = calls.publish(channel, 1).position
        server.terminate()
        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for stream in streams:
            assert stream.read_data(1) == [1]
            closing = stream.read_kind("closing")
            assert (closing.code, closing.reconnect_in_ms) == (1012, 0)
            assert stream.status() is grpc.StatusCode.UNAVAILABLE
            stream.end()
    assert server.wait() == 0
    with call(start_grpc(server={"broker": broker})) as calls:
        calls.publish(channel, 2)
        stream = calls.subscribe(channel, since=first)
        stream.read_kind("connected")
        assert stream.read_data(1) == [2]
        stream.cancel()


def secure(server: Server, certificate: Certificate, client: Certificate | None = None) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        certificate.cert.read_bytes(),
        client.key.read_bytes() if client else None,
        client.cert.read_bytes() if client else None,
    )
    return grpc.secure_channel(f"localhost:{server.grpc_port}", credentials)


def test_tls_has_the_certificate_of_the_server(start_grpc: Callable[..., Server], certificate: Certificate) -> None:
    server = start_grpc(server=certificate.settings)
    with secure(server, certificate) as channel:
        assert TellwireStub(channel).Publish(pb.PublishRequest(channel="a", data=json_data(1))).position
    with call(server) as calls, pytest.raises(grpc.RpcError):
        calls.publish("a", 1)


def test_clients_without_a_certificate_are_turned_away(
    start_grpc: Callable[..., Server], certificate: Certificate
) -> None:
    server = start_grpc(server={**certificate.settings, "grpc_client_ca": str(certificate.cert)})
    with secure(server, certificate, certificate) as channel:
        assert TellwireStub(channel).Publish(pb.PublishRequest(channel="a", data=json_data(1))).position
    with secure(server, certificate) as channel, pytest.raises(grpc.RpcError) as caught:
        TellwireStub(channel).Publish(pb.PublishRequest(channel="a", data=json_data(1)), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_port_that_is_taken_is_told(grpc_server: Server) -> None:
    command = [sys.executable, "-m", "tellwire", "serve", "--port", "0", "--grpc-port", str(grpc_server.grpc_port)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=WATCHDOG_S)
    assert done.returncode == 1
    assert f"port {grpc_server.grpc_port} of 127.0.0.1 is taken by another program" in done.stderr
    assert "--grpc-port" in done.stderr


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client says first, with no settings (RFC 9113, section 3.4)."""


@contextmanager
def connection(server: Server) -> Iterator[socket.socket]:
    """Connect, and call nothing."""
    with socket.create_connection(("127.0.0.1", server.grpc_port), WATCHDOG_S) as opened:
        opened.sendall(PREFACE)
        yield opened


def is_taken(opened: socket.socket) -> bool:
    """Tell whether the server says its settings, or closes."""
    try:
        return opened.recv(9)[3:4] == bytes([4])
    except ConnectionResetError:
        return False


def test_connections_that_call_nothing_are_bounded(start_grpc: Callable[..., Server]) -> None:
    server = start_grpc(limits={"connections_max": 2})
    with connection(server) as first:
        assert is_taken(first)
        with connection(server) as second:
            assert is_taken(second)
            with connection(server) as third:
                assert not is_taken(third)
    # Those have gone; the server sees it in its own time.
    with call(server) as calls:
        calls.stub.Publish(pb.PublishRequest(channel="a", data=json_data(1)), wait_for_ready=True, timeout=WATCHDOG_S)


def test_connection_that_calls_nothing_is_closed(start_grpc: Callable[..., Server]) -> None:
    server = start_grpc(limits={"idle_s": 0.2})
    with connection(server) as idle:
        while idle.recv(4096):
            pass


def test_long_tokens_are_taken(start_grpc: Callable[..., Server]) -> None:
    server = start_grpc(auth={"token_key": SECRET})
    long = token(can={"publish": [f"channel-{number:04}" for number in range(300)]})
    assert 5000 < len(long) < 8192
    with call(server, long) as calls:
        assert calls.publish("channel-0001", 1).position


def test_page_of_another_origin_is_refused(calls: Caller) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        calls.stub.Publish(
            pb.PublishRequest(channel="a", data=json_data(1)), metadata=(("origin", "https://example.org"),)
        )
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_stubs_are_those_of_the_specification(tmp_path: Path) -> None:
    # What a make above this one, as that of `make test`, tells the makes below it is not meant here.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    ask = ["make", "-n", "-o", ".venv/.installed-dev", "proto"]
    protoc = subprocess.run(ask, cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout
    command = " ".join(line.rstrip("\\") for line in protoc.splitlines() if not line.startswith("echo"))
    (tmp_path / "out").mkdir()
    begin = command.index(".venv/bin/python -m grpc_tools.protoc")
    subprocess.run(
        command[begin:].replace("=src", f"={tmp_path}").replace(":src", f":{tmp_path}"),
        shell=True,
        cwd=ROOT,
        check=True,
    )
    kept = ROOT / "src/tellwire/protocol/proto"
    made = tmp_path / "tellwire/protocol/proto"
    for name in ("tellwire_pb2.py", "tellwire_pb2.pyi", "tellwire_pb2_grpc.py", "tellwire_pb2_grpc.pyi"):
        assert (made / name).read_text() == (kept / name).read_text(), f"{name} is not current: run `make proto`"


def test_stubs_read_what_the_server_writes(calls: Caller, channel: str) -> None:
    calls.publish(channel, {"a": 1})
    found: Any = calls.history(channel).messages[0]
    assert value_of(found.data) == {"a": 1}
