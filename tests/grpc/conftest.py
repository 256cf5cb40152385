"""Servers that speak gRPC, and a client of gRPC's own, out of the stubs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tellwire.protocol.proto.tellwire_pb2_grpc import TellwireStub
from tests.grpc.callers import Caller, call
from tests.guarded import PATIENT
from tests.serving import SHARED, Server


@pytest.fixture(scope="module")
def grpc_server() -> Iterator[Server]:
    """A server that is open, shared by the tests of a module."""
    server = Server(**{**SHARED, "server": {"grpc_port": 0}})
    yield server
    server.close()


@pytest.fixture(scope="module")
def guarded_grpc() -> Iterator[Server]:
    """A server that asks for tokens and has procedures, shared by the tests of a module."""
    server = Server(**{**PATIENT, "server": {"grpc_port": 0}})
    yield server
    server.close()


@pytest.fixture
def calls(grpc_server: Server) -> Iterator[Caller]:
    """Call the open server."""
    with call(grpc_server) as caller:
        yield caller


@pytest.fixture
def stub(calls: Caller) -> TellwireStub:
    """Call the open server by the stubs alone."""
    return calls.stub


@pytest.fixture
def start_grpc(start_server: Callable[..., Server]) -> Callable[..., Server]:
    """Start servers with settings of their own."""

    def start(**settings: Any) -> Server:
        return start_server(**{**settings, "server": {"grpc_port": 0, **settings.get("server", {})}})

    return start
