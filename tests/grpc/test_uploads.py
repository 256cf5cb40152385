"""Client streaming: many messages, one summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tellwire.protocol.proto import tellwire_pb2 as pb
from tests.grpc.callers import Caller, call, error_of, json_data, value_of
from tests.guarded import token
from tests.serving import Server


def readings(channel: str, begin: int, end: int) -> Iterator[pb.PublishRequest]:
    """Make numbered messages."""
    for number in range(begin, end):
        yield pb.PublishRequest(channel=channel, data=json_data(number), id=f"r-{number}")


def test_upload_is_in_the_log_in_its_order(calls: Caller, channel: str) -> None:
    summary = calls.upload(readings(channel, 0, 3000))
    assert (summary.received, summary.published, summary.duplicates, summary.failed) == (3000, 3000, 0, 0)
    page = calls.history(channel, limit=3000)
    assert [value_of(message.data) for message in page.messages] == list(range(3000))
    assert [message.seq for message in page.messages] == list(summary.seqs)
    assert summary.last_position == page.messages[-1].position
    assert summary.last_position.startswith(f"{summary.epoch}.")


def test_upload_that_broke_is_resumed_by_the_ids(calls: Caller, channel: str) -> None:
    def break_off() -> Iterator[pb.PublishRequest]:
        yield from readings(channel, 0, 500)
        # What was sent so far has arrived, but for the answer.
        while len(calls.history(channel, limit=1000).messages) < 300:
            pass
        raise ConnectionError

    with pytest.raises(grpc.RpcError):
        calls.upload(break_off())
    summary = calls.upload(readings(channel, 0, 1000))
    assert summary.duplicates >= 300
    assert summary.published + summary.duplicates == 1000
    page = calls.history(channel, limit=2000)
    assert [value_of(message.data) for message in page.messages] == list(range(1000))
    assert [message.seq for message in page.messages] == list(summary.seqs)


def test_message_that_fails_does_not_end_the_upload(calls: Caller, channel: str) -> None:
    requests = [
        *readings(channel, 0, 2),
        pb.PublishRequest(channel="no channel", data=json_data(1), id="bad"),
        pb.PublishRequest(channel=channel),
        pb.PublishRequest(channel=channel, data=json_data(1), expect="other.0"),
        pb.PublishRequest(channel=channel, data=pb.Data(value=b"1", content_type="image/png")),
        pb.PublishRequest(channel=channel, data=json_data("gone"), ephemeral=True),
        *readings(channel, 2, 4),
    ]
    summary = calls.upload(requests)
    assert (summary.received, summary.published, summary.failed) == (9, 5, 4)
    assert [(each.index, each.id, each.error.code) for each in summary.failures] == [
        (2, "bad", "invalid_channel"),
        (3, "", "bad_request"),
        (4, "", "conflict"),
        (5, "", "unsupported_media_type"),
    ]
    assert [seq > 0 for seq in summary.seqs] == [True, True, False, False, False, False, False, True, True]


def test_summary_does_not_grow_without_end(calls: Caller, channel: str) -> None:
    summary = calls.upload(pb.PublishRequest(channel="no channel") for _ in range(12_000))
    assert (summary.received, summary.failed) == (12_000, 12_000)
    assert (len(summary.seqs), len(summary.failures)) == (10_000, 100)


def test_upload_that_is_too_fast_waits(start_grpc: Callable[..., Server], channel: str) -> None:
    server = start_grpc(limits={"publishes_per_s": 200.0})
    with call(server) as calls:
        summary = calls.upload(readings(channel, 0, 300))
        assert (summary.published, summary.failed) == (300, 0)
        page = calls.history(channel, limit=1000)
        assert [value_of(message.data) for message in page.messages] == list(range(300))


def test_upload_of_nothing_has_an_empty_summary(calls: Caller) -> None:
    assert calls.upload([]).received == 0


def test_upload_needs_a_token(guarded_grpc: Server, channel: str) -> None:
    with call(guarded_grpc) as calls, pytest.raises(grpc.RpcError) as caught:
        calls.upload(readings(channel, 0, 10))
    assert error_of(caught.value).code == "unauthorized"
    with call(guarded_grpc, token(can={"publish": ["other"]})) as calls:
        summary = calls.upload(readings(channel, 0, 3))
        assert [each.error.code for each in summary.failures] == ["forbidden"] * 3


def test_upload_ends_where_the_caller_breaks_the_language(calls: Caller) -> None:
    upload: Any = calls.channel.stream_unary("/tellwire.v1.Tellwire/PublishStream")
    with pytest.raises(grpc.RpcError) as caught:
        upload(iter([b"\xff\xff\xff"]))
    assert error_of(caught.value).code == "malformed"
