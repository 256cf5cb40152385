"""Server streaming: reading, and what happens to whoever reads too slowly or too long."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tellwire.protocol.proto import tellwire_pb2 as pb
from tests.grpc.callers import Caller, Stream, call, error_of, json_data, value_of
from tests.guarded import endings, token
from tests.serving import Server
from tests.wires import Http


def open_connections(server: Server) -> int:
    """Return how many readers of gRPC the server has now."""
    with Http(server) as http:
        for line in http.get("/metrics").body.decode().splitlines():
            if line.startswith('tellwire_connections{transport="grpc"}'):
                return int(float(line.split()[1]))
    return 0


def test_reading_begins_where_it_says_and_goes_on_live(calls: Caller, channel: str) -> None:
    for number in range(5):
        calls.publish(channel, number, key="k", event="counted")
    stream = calls.subscribe(channel, last=2)
    connected = stream.read_kind("connected")
    message = stream.read_kind("message")
    assert (value_of(message.data), message.key, message.event) == (3, "k", "counted")
    assert message.position == f"{connected.epoch}.{message.seq}"
    assert stream.read_data(1) == [4]
    calls.publish(channel, 5)
    assert stream.read_data(1) == [5]
    stream.cancel()
    again = calls.subscribe(channel, since=connected.cursor)
    assert again.read_kind("connected").cursor == connected.cursor
    assert again.read_data(3) == [3, 4, 5]
    again.cancel()


def test_messages_of_several_channels_come_in_the_order_of_the_log(calls: Caller, channel: str) -> None:
    names = [f"{channel}-{number}" for number in range(3)]
    for number in range(30):
        calls.publish(names[number % 3], number)
    stream = calls.subscribe(*names, since="earliest")
    stream.read_kind("connected")
    assert stream.read_data(30) == list(range(30))
    for number in range(30):
        calls.publish(names[number % 3], number)
    assert stream.read_data(30) == list(range(30))
    stream.cancel()


def test_gap_is_told_before_what_comes_after_it(calls: Caller, channel: str) -> None:
    short = f"short:{channel}"
    first = calls.publish(short, 0).position
    for number in range(1, 10):
        calls.publish(short, number)
    stream = calls.subscribe(short, since=first)
    assert stream.read_kind("connected").cursor == first, "who is cut before the gap is told when it comes back"
    gap = stream.read_kind("gap")
    assert (gap.from_cursor, gap.reason, list(gap.channels)) == (first, pb.Gap.REASON_TRIMMED, [short])
    assert stream.read_data(5) == [5, 6, 7, 8, 9]
    newest = calls.subscribe(short, since=first, on_gap=pb.ON_GAP_NEWEST)
    newest.read_kind("connected")
    newest.read_kind("gap")
    calls.publish(short, 10)
    assert newest.read_data(1) == [10]
    stream.cancel()
    newest.cancel()


def test_heartbeat_tells_up_to_where_everything_was_read(start_grpc: Callable[..., Server], channel: str) -> None:
    server = start_grpc(limits={"heartbeat_s": 0.3})
    with call(server) as calls:
        stream = calls.subscribe(channel)
        stream.read_kind("connected")
        position = calls.publish("elsewhere", 1).position
        while stream.read_kind("heartbeat").cursor != position:
            pass
        stream.cancel()


def test_ephemeral_messages_have_no_place(calls: Caller, channel: str) -> None:
    stream = calls.subscribe(channel)
    stream.read_kind("connected")
    assert calls.publish(channel, 1, ephemeral=True).position == ""
    message = stream.read_kind("message")
    assert (message.ephemeral, message.seq, message.position) == (True, 0, "")
    stream.cancel()


def test_who_publishes_without_echo_is_left_out(grpc_server: Server, channel: str) -> None:
    with call(grpc_server, session="mine") as mine, call(grpc_server, session="other") as other:
        streams = [mine.subscribe(channel), other.subscribe(channel)]
        for stream in streams:
            stream.read_kind("connected")
        mine.publish(channel, 1, echo=False)
        mine.publish(channel, 2)
        assert streams[0].read_data(1) == [2]
        assert streams[1].read_data(2) == [1, 2]
        for stream in streams:
            stream.cancel()


def test_reading_that_cannot_be_is_told_why(calls: Caller) -> None:
    for fields, code in (
        ({}, "bad_request"),
        ({"channels": ["no channel"]}, "invalid_channel"),
        ({"channels": ["a"], "since": "what"}, "invalid_cursor"),
        ({"channels": ["a"], "since": "now", "last": 1}, "bad_request"),
        ({"channels": ["a"], "policy": 99}, "bad_request"),
        ({"channels": ["a"], "on_gap": 99}, "bad_request"),
        ({"channels": ["a"], "presence": 99}, "bad_request"),
        ({"channels": ["a"], "presence": pb.ATTENDANCE_ENTER}, "bad_request"),
        ({"channels": [f"c{number}" for number in range(1001)]}, "too_many_channels"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            Stream(calls.stub, pb.SubscribeRequest(**fields), ()).read()
        assert error_of(caught.value).code == code


def test_reader_that_goes_away_is_let_go(calls: Caller, grpc_server: Server, channel: str) -> None:
    while open_connections(grpc_server):
        pass  # those of the tests before go in their own time
    streams = [calls.subscribe(channel) for _ in range(20)]
    for stream in streams:
        stream.read_kind("connected")
    assert open_connections(grpc_server) == 20
    for stream in streams:
        stream.cancel()
    while open_connections(grpc_server):
        pass


def test_reader_that_does_not_read_costs_no_memory_and_misses_nothing(
    start_grpc: Callable[..., Server], channel: str
) -> None:
    server = start_grpc(
        namespaces=[{"name": "default", "history_messages": 100_000, "message_max_bytes": 65_536}],
        limits={"heartbeat_s": 600.0},  # who sleeps through two of them is cut
    )
    # The window of the client is what may be on its way to it, and in no other place.
    window: dict[str, Any] = {"grpc.http2.lookahead_bytes": 65_535, "grpc.http2.bdp_probe": 0}
    count, text = 800, "x" * 20_000
    with call(server, **window) as calls, call(server) as publisher:
        asleep = [calls.subscribe(channel) for _ in range(20)]
        awake = publisher.subscribe(channel)
        for stream in (*asleep, awake):
            stream.read_kind("connected")
        publisher.upload(pb.PublishRequest(channel="warm", data=json_data(text)) for _ in range(count))
        before = server.rss
        for begin in range(0, count, 100):
            requests = [
                pb.PublishRequest(channel=channel, data=json_data([number, text]))
                for number in range(begin, begin + 100)
            ]
            assert publisher.upload(requests).published == 100
            assert [number for number, _ in awake.read_data(100)] == list(range(begin, begin + 100))
        # The messages themselves are in the log once, and in the tail; 20 queues of them would be 320 MB.
        assert server.rss - before < 150_000_000
        for stream in asleep:
            assert [number for number, _ in stream.read_data(count)] == list(range(count))
            stream.cancel()
        awake.cancel()


def test_reader_that_slept_for_too_long_is_told_when_it_wakes_up(
    start_grpc: Callable[..., Server], channel: str
) -> None:
    server = start_grpc(limits={"heartbeat_s": 0.4})
    window: dict[str, Any] = {"grpc.http2.lookahead_bytes": 65_535, "grpc.http2.bdp_probe": 0}
    with call(server, **window) as calls:
        stream = calls.subscribe(channel)
        stream.read_kind("connected")
        with call(server) as publisher:
            publisher.upload(pb.PublishRequest(channel=channel, data=json_data("x" * 20_000)) for _ in range(100))
        while open_connections(server):
            pass
        assert stream.status() is grpc.StatusCode.UNAVAILABLE


def test_token_that_expires_in_mid_stream_ends_it(guarded_grpc: Server, channel: str) -> None:
    for ending in endings(seconds=1.0):
        with ending as text, contextlib.ExitStack() as entering:
            stream = entering.enter_context(call(guarded_grpc, text)).subscribe(channel)
            stream.read_kind("connected")
            stack = entering.pop_all()
            break
    with stack, call(guarded_grpc, token()) as other:
        lasting = other.subscribe(channel)
        lasting.read_kind("connected")
        closing = stream.read_kind("closing")
        assert closing.code == 4002
        with pytest.raises(grpc.RpcError) as caught:
            stream.read()
        assert error_of(caught.value).code == "expired"
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        other.publish(channel, 1)
        assert lasting.read_data(1) == [1]
        lasting.cancel()


def test_upload_ends_with_its_token(guarded_grpc: Server, channel: str) -> None:
    def forever() -> Any:
        while True:
            yield pb.PublishRequest(channel=channel, data=json_data(1))

    with call(guarded_grpc, token(expires_in_s=0.5)) as calls, pytest.raises(grpc.RpcError) as caught:
        calls.upload(forever())
    assert error_of(caught.value).code == "expired"


def test_revoked_user_is_cut_off(guarded_grpc: Server, channel: str) -> None:
    with call(guarded_grpc, token("eve")) as calls:
        stream = calls.subscribe(channel)
        stream.read_kind("connected")
        with Http(guarded_grpc) as http:
            body = b'{"user":"eve"}'
            answer = http.request(
                "POST", "/v1/admin/revoke", body=body, headers=[("Authorization", f"Bearer {token()}")]
            )
            assert answer.status == 200
        assert stream.read_kind("closing").code == 4502
        assert stream.status() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as caught:
            calls.publish(channel, 1)
        assert error_of(caught.value).code == "revoked"


def test_presence_is_told_in_the_stream(guarded_grpc: Server, channel: str) -> None:
    with call(guarded_grpc, token("ann"), session="ann's") as ann, call(guarded_grpc, token("bob")) as bob:
        watching = bob.subscribe(channel, presence=pb.ATTENDANCE_WATCH)
        watching.read_kind("connected")
        entered = ann.subscribe(channel, presence=pb.ATTENDANCE_ENTER)
        client = entered.read_kind("connected").client
        join = watching.read_kind("join")
        assert (join.channel, join.member.client, join.member.user) == (channel, client, "ann")
        entered.cancel()
        assert watching.read_kind("leave").member.client == client
        watching.cancel()


def test_own_channels_of_a_token_are_read(guarded_grpc: Server, channel: str) -> None:
    with call(guarded_grpc, token(channels=[channel])) as calls:
        stream = calls.subscribe()
        stream.read_kind("connected")
        calls.publish(channel, 1)
        assert stream.read_data(1) == [1]
        stream.cancel()
