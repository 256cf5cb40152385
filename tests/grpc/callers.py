"""A client of gRPC's own, which knows nothing of Tellwire but its stubs."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from tellwire.protocol.proto import tellwire_pb2 as pb
from tellwire.protocol.proto.tellwire_pb2_grpc import TellwireStub
from tests.serving import Server

Metadata = tuple[tuple[str, str | bytes], ...]


def json_data(value: Any) -> pb.Data:
    """Make data out of a value."""
    return pb.Data(value=json.dumps(value).encode())


def value_of(data: pb.Data) -> Any:
    """Return the value of data in JSON."""
    assert data.content_type == "", data
    return json.loads(data.value)


class Stream:
    """A stream of pushes, one by one; for Connect it takes commands, too."""

    def __init__(self, stub: TellwireStub, request: pb.SubscribeRequest | None, metadata: Metadata) -> None:
        self._outgoing: queue.Queue[pb.Commands | None] = queue.Queue()
        self.call: Any = (
            stub.Subscribe(request, metadata=metadata)
            if request is not None
            else stub.Connect(iter(self._outgoing.get, None), metadata=metadata)
        )
        self._pushes: list[pb.Push] = []
        self._ref = 0

    def read(self) -> pb.Push:
        """Read the next push; raises StopIteration at the end, RpcError where the server says why."""
        while not self._pushes:
            self._pushes += next(self.call).pushes
        return self._pushes.pop(0)

    def read_kind(self, kind: str) -> Any:
        """Read the next push but heartbeats, which has to be of a kind; return what it holds."""
        while (push := self.read()).WhichOneof("push") == "heartbeat" != kind:
            pass
        assert push.WhichOneof("push") == kind, push
        return getattr(push, kind)

    def read_data(self, count: int) -> list[Any]:
        """Read messages; return what they carry."""
        return [value_of(self.read_kind("message").data) for _ in range(count)]

    def say(self, *commands: pb.Command) -> None:
        """Send commands, all in one."""
        self._outgoing.put(pb.Commands(commands=commands))

    def ask(self, **command: Any) -> pb.Push:
        """Send a command; return its reply, while nothing else may come."""
        self._ref += 1
        self.say(pb.Command(ref=self._ref, **command))
        push = self.read()
        assert push.ref == self._ref, push
        return push

    def end(self) -> None:
        """Say nothing more."""
        self._outgoing.put(None)

    def status(self) -> grpc.StatusCode:
        """Read to the end; return the status."""
        try:
            while True:
                self.read()
        except StopIteration:
            return grpc.StatusCode.OK
        except grpc.RpcError as exc:
            found: grpc.StatusCode = exc.code()
            return found

    def cancel(self) -> None:
        """Go away."""
        self.call.cancel()
        self.end()


class Caller:
    """A channel, and the metadata that goes with every call."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata) -> None:
        self.stub = TellwireStub(channel)
        self.channel = channel
        self._metadata = metadata

    def publish(self, channel: str, value: Any, **fields: Any) -> pb.Published:
        """Publish a value, in JSON."""
        request = pb.PublishRequest(channel=channel, data=json_data(value), **fields)
        return self.stub.Publish(request, metadata=self._metadata)

    def subscribe(self, *channels: str, **fields: Any) -> Stream:
        """Read channels; what comes first is Connected."""
        return Stream(self.stub, pb.SubscribeRequest(channels=channels, **fields), self._metadata)

    def connect(self) -> Stream:
        """Begin a conversation."""
        return Stream(self.stub, None, self._metadata)

    def upload(self, requests: Iterable[pb.PublishRequest]) -> pb.PublishSummary:
        """Publish many."""
        return self.stub.PublishStream(iter(requests), metadata=self._metadata)

    def history(self, *channels: str, **fields: Any) -> pb.HistoryPage:
        """Read a page."""
        return self.stub.History(pb.HistoryRequest(channels=channels, **fields), metadata=self._metadata)

    def ask(self, name: str, request: Any) -> Any:
        """Call a method."""
        return getattr(self.stub, name)(request, metadata=self._metadata)


@contextmanager
def call(
    server: Server, token: str | None = None, session: str | None = None, accept: str | None = None, **options: Any
) -> Iterator[Caller]:
    """Open a connection of its own to a server."""
    metadata: list[tuple[str, str]] = []
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))
    if session is not None:
        metadata.append(("tellwire-session", session))
    if accept is not None:
        metadata.append(("tellwire-accept", accept))
    # Channels with the same options would share one connection.
    own = [("grpc.use_local_subchannel_pool", 1), *options.items()]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", own) as channel:
        yield Caller(channel, tuple(metadata))


def error_of(exc: grpc.RpcError) -> pb.Error:
    """Return the project's own error that a status came with."""
    metadata: Any = exc.trailing_metadata()
    trailer = dict(metadata)
    error = pb.Error.FromString(trailer["tellwire-error-bin"])
    status = pb.Status.FromString(trailer["grpc-status-details-bin"])
    assert [pb.Error.FromString(detail.value) for detail in status.details] == [error]
    assert (status.code, status.message) == (exc.code().value[0], error.message)
    return error
