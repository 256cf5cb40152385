"""The methods that ask once: Publish, History, Presence, Call; and what they answer where they cannot."""

from __future__ import annotations

from typing import Any

import grpc
import msgspec
import pytest

from tellwire.protocol.proto import tellwire_pb2 as pb
from tests.grpc.callers import Caller, call, error_of, json_data, value_of
from tests.guarded import token
from tests.readers import READERS
from tests.serving import Server


def refused(ask: Any) -> tuple[grpc.StatusCode, pb.Error]:
    """Return the status and the error of a call that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    return caught.value.code(), error_of(caught.value)


def test_message_is_published_once_by_its_id(calls: Caller, channel: str) -> None:
    first = calls.publish(channel, {"text": "hi"}, id="m-1")
    again = calls.publish(channel, {"text": "other"}, id="m-1")
    assert first.position
    assert (again.position, again.duplicate) == (first.position, True)
    page = calls.history(channel)
    assert [value_of(message.data) for message in page.messages] == [{"text": "hi"}]
    assert page.messages[0].position == first.position
    assert page.messages[0].id == "m-1"


def test_message_that_does_not_meet_what_is_expected_is_aborted_with_the_head(calls: Caller, channel: str) -> None:
    first = calls.publish(channel, 1)
    second = calls.publish(channel, 2, expect=first.position)
    status, error = refused(lambda: calls.publish(channel, 3, expect=first.position))
    assert (status, error.code, error.head) == (grpc.StatusCode.ABORTED, "conflict", second.position)


def test_history_goes_backwards_and_forwards(calls: Caller, channel: str) -> None:
    positions = [calls.publish(channel, number).position for number in range(10)]

    def of(page: pb.HistoryPage) -> list[Any]:
        return [value_of(message.data) for message in page.messages]

    newest = calls.history(channel, limit=3)
    assert of(newest) == [7, 8, 9]
    assert of(calls.history(channel, before=newest.messages[0].position, limit=4)) == [3, 4, 5, 6]
    assert of(calls.history(channel, last=2)) == [8, 9]
    page = calls.history(channel, since="earliest", limit=6)
    assert of(page) == [0, 1, 2, 3, 4, 5]
    assert of(calls.history(channel, since=page.cursor)) == [6, 7, 8, 9]
    assert of(calls.history(channel, since=positions[7])) == [8, 9]
    assert refused(lambda: calls.history(channel, since="now", last=1))[1].code == "bad_request"
    assert refused(calls.history)[1].code == "bad_request"
    assert calls.history(channel, since="other.5").gap.reason == pb.Gap.REASON_EPOCH


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (
            pb.PublishRequest(channel="no channel", data=json_data(1)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_channel",
        ),
        (pb.PublishRequest(channel="a"), grpc.StatusCode.INVALID_ARGUMENT, "bad_request"),
        (pb.PublishRequest(channel="a", data=pb.Data()), grpc.StatusCode.INVALID_ARGUMENT, "malformed"),
        (pb.PublishRequest(channel="a", data=pb.Data(value=b"{")), grpc.StatusCode.INVALID_ARGUMENT, "invalid_data"),
        (
            pb.PublishRequest(channel="a", data=pb.Data(value=b"1", content_type="image/png")),
            grpc.StatusCode.INVALID_ARGUMENT,
            "unsupported_media_type",
        ),
        (
            pb.PublishRequest(channel="tight:a", data=json_data("x" * 100)),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "too_large",
        ),
        (
            pb.PublishRequest(channel="a", data=json_data(1), event="gap"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "bad_request",
        ),
    ],
)
def test_publish_that_cannot_be_is_told_why(
    calls: Caller, request_: pb.PublishRequest, status: grpc.StatusCode, code: str
) -> None:
    said, error = refused(lambda: calls.ask("Publish", request_))
    assert (said, error.code) == (status, code)
    assert error.message


@pytest.mark.parametrize("name", ["websocket", "msgpack", "sse", "poll"])
@pytest.mark.parametrize(
    ("data", "value"),
    [
        (pb.Data(value=b'{"a": [1, 2.5, null]}'), {"a": [1, 2.5, None]}),
        (pb.Data(value=b'"x"', content_type="application/json"), "x"),
        (pb.Data(value=msgspec.msgpack.encode({"a": 1}), content_type="application/msgpack"), {"a": 1}),
        (pb.Data(value=b"\x00\xff", content_type="application/octet-stream"), b"\x00\xff"),
    ],
)
def test_what_is_published_is_read_on_every_wire(
    calls: Caller, grpc_server: Server, channel: str, name: str, data: pb.Data, value: Any
) -> None:
    calls.ask("Publish", pb.PublishRequest(channel=channel, data=data))
    with READERS[name](grpc_server, channel, since="earliest") as reader:
        (found,) = reader.read_data(1)
    assert found == ({"$bytes": "AP8="} if value == b"\x00\xff" and name != "msgpack" else value)


def test_reader_gets_data_in_the_language_that_it_accepts(grpc_server: Server, channel: str) -> None:
    grpc_server.publish(channel, {"a": 1})
    with call(grpc_server) as calls:
        raw = pb.Data(value=b"\x00\xff", content_type="application/octet-stream")
        calls.ask("Publish", pb.PublishRequest(channel=channel, data=raw))
        packed = pb.Data(value=msgspec.msgpack.encode([1]), content_type="application/msgpack")
        calls.ask("Publish", pb.PublishRequest(channel=channel, data=packed))

    def read(accept: str | None) -> list[tuple[bytes, str]]:
        with call(grpc_server, accept=accept) as calls:
            return [(each.data.value, each.data.content_type) for each in calls.history(channel).messages]

    assert read(None) == read("application/json") == [(b'{"a": 1}', ""), (b'{"$bytes":"AP8="}', ""), (b"[1]", "")]
    kind = "application/msgpack"
    assert read(kind) == [(msgspec.msgpack.encode(value), kind) for value in ({"a": 1}, b"\x00\xff", [1])]
    assert read("*/*") == [
        (b'{"a": 1}', ""),
        (b"\x00\xff", "application/octet-stream"),
        (msgspec.msgpack.encode([1]), kind),
    ]
    with call(grpc_server, accept="image/png") as calls:
        assert refused(lambda: calls.history(channel))[1].code == "bad_request"


def test_tokens_and_what_they_allow(guarded_grpc: Server, channel: str) -> None:
    with call(guarded_grpc) as calls:
        status, error = refused(lambda: calls.publish(channel, 1))
        assert (status, error.code) == (grpc.StatusCode.UNAUTHENTICATED, "unauthorized")
    with call(guarded_grpc, token(expires_in_s=-10)) as calls:
        assert refused(lambda: calls.publish(channel, 1))[1].code == "expired"
    with call(guarded_grpc, "no.token.atall") as calls:
        assert refused(lambda: calls.publish(channel, 1))[0] is grpc.StatusCode.UNAUTHENTICATED
    with call(guarded_grpc, token(can={"publish": [channel]})) as calls:
        calls.publish(channel, 1)
        for ask in (
            lambda: calls.publish("other", 1),
            lambda: calls.history(channel),
            lambda: calls.ask("Call", pb.CallRequest(method="add")),
            lambda: calls.ask("Presence", pb.PresenceRequest(channel=channel)),
        ):
            status, error = refused(ask)
            assert (status, error.code) == (grpc.StatusCode.PERMISSION_DENIED, "forbidden")


def test_procedures_are_called_and_their_errors_told(guarded_grpc: Server) -> None:
    with call(guarded_grpc, token("ann"), session="s") as calls:

        def ask(method: str, data: Any = None, **options: Any) -> Any:
            request = pb.CallRequest(method=method, data=json_data(data), **options)
            return value_of(calls.ask("Call", request).data)

        assert ask("add", [1, 2]) == 3
        assert ask("who")["transport"] == "grpc"
        assert ask("bytes") == {"raw": {"$bytes": "AP8="}, "was": "NoneType"}
        status, error = refused(lambda: ask("tire"))
        assert (status, error.code, error.retry_after_ms) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "rate_limited",
            2500,
        )
        assert refused(lambda: ask("nothing"))[0] is grpc.StatusCode.NOT_FOUND
        status, error = refused(lambda: ask("fail"))
        assert (status, error.code) == (grpc.StatusCode.INTERNAL, "hook_failed")
        assert "hunter2" not in error.message
        status, error = refused(lambda: ask("hang", timeout_ms=50))
        assert (status, error.code) == (grpc.StatusCode.DEADLINE_EXCEEDED, "timeout")


def test_deadline_of_a_call_ends_the_procedure(guarded_grpc: Server) -> None:
    with call(guarded_grpc, token()) as calls:
        metadata = (("authorization", f"Bearer {token()}"),)

        def seen(name: str) -> int:
            found: dict[str, int] = value_of(calls.ask("Call", pb.CallRequest(method="seen")).data)
            return found.get(name, 0)

        before, timeout_s = seen("began"), 0.2
        while seen("began") == before:  # one whose time is up before it has come begins nothing
            with pytest.raises(grpc.RpcError) as caught:
                calls.stub.Call(pb.CallRequest(method="hang"), metadata=metadata, timeout=timeout_s)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            timeout_s *= 2
        while seen("cancelled") != seen("began"):
            pass
        before = seen("began")
        cancelled = calls.stub.Call.future(pb.CallRequest(method="hang"), metadata=metadata)
        while seen("began") == before:
            pass
        cancelled.cancel()
        while seen("cancelled") != seen("began"):
            pass


def test_members_of_a_channel(guarded_grpc: Server, channel: str) -> None:
    with call(guarded_grpc, token("ann", info={"name": "Ann"}), session="ann's") as ann:
        entered = ann.ask("Presence", pb.PresenceRequest(channel=channel, enter=True, state=json_data({"at": 1})))
        assert entered.clients == 1
        (member,) = entered.members
        assert (member.client, member.user) == (entered.client, "ann")
        assert (value_of(member.info), value_of(member.state)) == ({"name": "Ann"}, {"at": 1})
        with call(guarded_grpc, token("bob")) as bob:
            there = bob.ask("Presence", pb.PresenceRequest(channel=channel))
            assert [each.client for each in there.members] == [member.client]
            assert refused(lambda: bob.ask("Presence", pb.PresenceRequest(channel=channel, enter=True)))[1].message
        with call(guarded_grpc, token("bob"), session="bob's", accept="application/msgpack") as bob:
            there = bob.ask("Presence", pb.PresenceRequest(channel=channel, enter=True))
            assert msgspec.msgpack.decode(there.members[0].state.value) == {"at": 1}
        assert ann.ask("Presence", pb.PresenceRequest(channel=channel, enter=False)).clients == 1


def test_large_channel_is_counted_only(guarded_grpc: Server, channel: str) -> None:
    there = pb.Members()
    for number in range(5):
        with call(guarded_grpc, token(f"user-{number}"), session=f"s-{number}") as calls:
            there = calls.ask("Presence", pb.PresenceRequest(channel=f"crowd:{channel}", enter=True))
    assert (there.counted_only, there.clients, len(there.members)) == (True, 5, 0)
