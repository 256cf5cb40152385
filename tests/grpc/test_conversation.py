"""Connect: the commands and pushes of a WebSocket over one stream of gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tellwire.protocol.proto import tellwire_pb2 as pb
from tests.grpc.callers import Caller, call, error_of, json_data, value_of
from tests.guarded import token
from tests.serving import Server


def publish(channel: str, value: object, ref: int = 1, **fields: object) -> pb.Command:
    request = pb.PublishRequest(channel=channel, data=json_data(value), **fields)  # type: ignore[arg-type]  # as it is
    return pb.Command(ref=ref, publish=request)


def test_all_commands_are_answered(guarded_grpc: Server, channel: str) -> None:
    with call(guarded_grpc, token("ann")) as calls:
        stream = calls.connect()
        connected = stream.ask(connect=pb.ConnectRequest(session="ann's")).connected
        assert (connected.user, connected.session) == ("ann", "ann's")
        assert connected.expires_in_ms > 3_000_000
        subscribed = stream.ask(subscribe=pb.SubscribeCommand(channel=channel)).subscribed
        assert subscribed.channel == channel
        assert subscribed.cursor.startswith(connected.epoch)
        assert not subscribed.HasField("gap")
        stream.say(publish(channel, "hi", ref=7))
        pushes = {push.WhichOneof("push"): push for push in (stream.read(), stream.read())}
        assert pushes["published"].ref == 7
        assert pushes["published"].published.position == pushes["message"].message.position
        entered = stream.ask(presence=pb.PresenceRequest(channel=channel, enter=True, state=json_data(1))).presence
        assert entered.client == connected.client
        sent = pb.SendRequest(channel=channel, to=connected.client, data=json_data("psst"))
        stream.say(pb.Command(ref=8, send=sent))
        pushes = {push.WhichOneof("push"): push for push in (stream.read(), stream.read())}
        assert pushes["sent"].ref == 8
        signal = pushes["signal"].signal
        assert (signal.sender, signal.user, value_of(signal.data)) == (connected.client, "ann", "psst")
        assert value_of(stream.ask(call=pb.CallRequest(method="add", data=json_data([1, 2]))).result.data) == 3
        refreshed = stream.ask(refresh=pb.RefreshRequest(token=token("ann", expires_in_s=50))).refreshed
        assert refreshed.expires_in_ms <= 50_000
        assert stream.ask(ping=pb.PingRequest()).WhichOneof("push") == "pong"
        assert stream.ask(unsubscribe=pb.UnsubscribeRequest(channel=channel)).unsubscribed.channel == channel
        stream.cancel()


def test_what_goes_wrong_is_answered_and_the_stream_goes_on(calls: Caller, channel: str) -> None:
    stream = calls.connect()
    for command, code in (
        ({"subscribe": pb.SubscribeCommand(channel="no channel")}, "invalid_channel"),
        ({"subscribe": pb.SubscribeCommand(channel="a", policy=99)}, "bad_request"),  # type: ignore[arg-type]
        ({"subscribe": pb.SubscribeCommand(channel="a", since="what")}, "invalid_cursor"),
        ({"unsubscribe": pb.UnsubscribeRequest(channel="a")}, "bad_request"),
        ({"publish": pb.PublishRequest(channel=channel)}, "bad_request"),
        ({"publish": pb.PublishRequest(channel=channel, data=pb.Data(value=b"{"))}, "invalid_data"),
        ({"publish": pb.PublishRequest(channel=channel, data=pb.Data(content_type="x/y"))}, "bad_request"),
        ({"send": pb.SendRequest(channel=channel, to="nobody", data=json_data(1))}, "forbidden"),
        ({"call": pb.CallRequest(method="nothing")}, "not_found"),
        ({"call": pb.CallRequest(method="a", data=pb.Data(value=b"{"))}, "invalid_data"),
        ({"connect": pb.ConnectRequest()}, "bad_request"),
        ({}, "unknown_command"),
    ):
        assert stream.ask(**command).error.code == code, command
    assert stream.ask(ping=pb.PingRequest()).WhichOneof("push") == "pong"
    stream.cancel()


def test_conflict_has_the_head(calls: Caller, channel: str) -> None:
    head = calls.publish(channel, 1).position
    stream = calls.connect()
    stream.say(publish(channel, 2, expect="other.0"))
    error = stream.read_kind("error")
    assert (error.code, error.head) == ("conflict", head)
    stream.cancel()


def test_unknown_fields_and_commands_of_a_newer_version_are_no_violation(calls: Caller, channel: str) -> None:
    # Field 999 with a text in it, in the outer message, the command and the request.
    extra = b"\xba\x3e\x03new"
    request = pb.PublishRequest(channel=channel, data=json_data(1)).SerializeToString() + extra
    inner = b"\x2a" + bytes([len(request)]) + request + extra
    newer = b"\x08\x05" + b"\xba\x3e\x00"
    payload = b"".join(b"\x0a" + bytes([len(each)]) + each for each in (inner, newer)) + extra
    connect: Any = calls.channel.stream_stream(
        "/tellwire.v1.Tellwire/Connect", response_deserializer=pb.Pushes.FromString
    )
    pushes = [push for batch in connect(iter([payload])) for push in batch.pushes]
    assert [(push.WhichOneof("push"), push.ref) for push in pushes] == [("published", 0), ("error", 5)]
    assert pushes[1].error.code == "unknown_command"


def test_stream_ends_with_its_last_answer_where_nothing_is_read(calls: Caller, channel: str) -> None:
    stream = calls.connect()
    stream.say(*(publish(channel, number, ref=number + 1) for number in range(500)))
    stream.end()
    assert [stream.read().ref for _ in range(500)] == list(range(1, 501))
    assert stream.status() is grpc.StatusCode.OK


def test_reader_that_says_nothing_more_goes_on_reading(calls: Caller, channel: str) -> None:
    stream = calls.connect()
    stream.ask(subscribe=pb.SubscribeCommand(channel=channel))
    stream.end()
    for number in range(10):
        calls.publish(channel, number)
        assert stream.read_data(1) == [number]
    stream.cancel()


def test_bytes_that_are_no_commands_end_the_stream(calls: Caller) -> None:
    connect: Any = calls.channel.stream_stream("/tellwire.v1.Tellwire/Connect")
    for payload in (b"\xff\xff\xff", b"\x0a\xff", b"\x0a\x06\x12\x04\x0a\x02\xff\xfe"):
        with pytest.raises(grpc.RpcError) as caught:
            list(connect(iter([payload])))
        assert error_of(caught.value).code == "malformed"
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_token_may_come_with_connect(guarded_grpc: Server, channel: str) -> None:
    with call(guarded_grpc) as calls:
        stream = calls.connect()
        assert stream.ask(connect=pb.ConnectRequest(token=token("ann"))).connected.user == "ann"
        stream.say(publish(channel, 1))
        assert stream.read_kind("published").position
        stream.cancel()
        stream = calls.connect()
        stream.say(publish(channel, 1))
        assert stream.read_kind("error").code == "unauthorized"
        assert stream.read_kind("closing").code == 4500
        assert stream.status() is grpc.StatusCode.UNAUTHENTICATED


def test_who_does_not_say_who_they_are_is_closed(start_grpc: Callable[..., Server]) -> None:
    server = start_grpc(auth={"token_key": "x" * 32}, limits={"connect_s": 0.2})
    with call(server) as calls:
        stream = calls.connect()
        assert stream.read_kind("closing").code == 4500
        assert stream.status() is grpc.StatusCode.UNAUTHENTICATED


def test_own_channels_of_a_token_are_subscribed(guarded_grpc: Server, channel: str) -> None:
    with call(guarded_grpc, token(channels=[channel])) as calls:
        first = calls.publish(channel, 1).position
        calls.publish(channel, 2)
        stream = calls.connect()
        assert stream.read_kind("subscribed").channel == channel
        stream.cancel()
    with call(guarded_grpc) as calls:
        stream = calls.connect()
        connect = pb.ConnectRequest(token=token(channels=[channel]), since=first)
        assert stream.ask(connect=connect).WhichOneof("push") == "connected"
        assert stream.read_kind("subscribed").cursor == first
        assert stream.read_data(1) == [2]
        stream.cancel()


def test_peer_that_reads_no_answers_is_read_no_further(start_grpc: Callable[..., Server]) -> None:
    server = start_grpc(handlers="tests.handlers", limits={"heartbeat_s": 60.0})
    window: dict[str, Any] = {"grpc.http2.lookahead_bytes": 65_535, "grpc.http2.bdp_probe": 0}
    with call(server, **window) as calls, call(server) as other:
        stream = calls.connect()
        text = "x" * 10_000
        commands = [pb.Command(ref=1, call=pb.CallRequest(method="echo", data=json_data(text)))] * 50
        stream.say(*commands)
        for _ in commands:
            assert stream.read().WhichOneof("push") == "result"
        before = server.rss
        for _ in range(100):
            stream.say(*commands)
        # The others are served meanwhile; all the answers together would be 50 MB.
        for number in range(200):
            other.publish("a", number)
        assert server.rss - before < 25_000_000
        for _ in range(100 * len(commands)):
            assert value_of(stream.read_kind("result").data) == text
        stream.cancel()
