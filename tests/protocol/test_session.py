"""What may be said when, on wires that carry commands (spec, section 6.1)."""

from __future__ import annotations

import pytest

from tellwire.errors import BadRequest, CloseCode, Conflict, Forbidden, Malformed, TooLarge, Unavailable, UnknownCommand
from tellwire.message import Position
from tellwire.protocol.codecs import JSON, MSGPACK, Codec
from tellwire.protocol.commands import Connect, Ping, Publish
from tellwire.protocol.pushes import ErrorPush
from tellwire.protocol.session import ProtocolViolation, Queue, Session, State, describe


def test_connect_may_come_first() -> None:
    session = Session(JSON)
    assert session.receive(b'{"type":"connect","ref":1,"session":"s"}', binary=False) == Connect(ref=1, session="s")
    assert session.state is State.OPEN


def test_connect_may_be_left_out() -> None:
    session = Session(JSON)
    assert session.receive(b'{"type":"ping"}', binary=False) == Ping()
    assert session.state is State.OPEN


@pytest.mark.parametrize("first", [b'{"type":"connect"}', b'{"type":"ping"}'])
def test_connect_comes_only_first(first: bytes) -> None:
    session = Session(JSON)
    session.receive(first, binary=False)
    with pytest.raises(BadRequest, match="comes first or not at all") as caught:
        session.receive(b'{"type":"connect","ref":"c"}', binary=False)
    assert caught.value.ref == "c"
    assert session.state is State.OPEN


def test_a_failed_command_leaves_the_session_as_it_was() -> None:
    session = Session(JSON)
    with pytest.raises(UnknownCommand):
        session.receive(b'{"type":"dance"}', binary=False)
    assert session.state is State.NEW
    session.receive(b'{"type":"connect"}', binary=False)


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
def test_the_other_kind_of_frame_ends_the_connection(codec: Codec) -> None:
    session = Session(codec)
    with pytest.raises(ProtocolViolation) as caught:
        session.receive(b"{}", binary=not codec.binary)
    assert caught.value.code is CloseCode.UNSUPPORTED_DATA


@pytest.mark.parametrize(("codec", "payload"), [(JSON, b"{"), (JSON, b"\xff"), (MSGPACK, b"\xc1"), (MSGPACK, b"")])
def test_what_cannot_be_read_ends_the_connection(codec: Codec, payload: bytes) -> None:
    session = Session(codec)
    with pytest.raises(ProtocolViolation) as caught:
        session.receive(payload, binary=codec.binary)
    assert caught.value.code is CloseCode.INVALID_DATA


def test_a_closed_session_takes_nothing() -> None:
    session = Session(JSON)
    session.close()
    assert session.receive(b'{"type":"ping"}', binary=False) is None
    assert session.receive(b"not even JSON", binary=True) is None


def test_errors_carry_the_ref_of_their_command() -> None:
    assert describe(TooLarge("big"), 7) == ErrorPush("too_large", "big", 7)
    unread = BadRequest("no")
    unread.ref = "r"
    assert describe(unread, None) == ErrorPush("bad_request", "no", "r")


def test_conflicts_name_the_head() -> None:
    assert describe(Conflict("no", Position("k", 3)), 1) == ErrorPush("conflict", "no", 1, "k.3")
    assert describe(Conflict("no", None), 1) == ErrorPush("conflict", "no", 1, None)


def test_malformed_is_told_apart_from_a_bad_request() -> None:
    with pytest.raises(Malformed):
        JSON.decode(b"")
    with pytest.raises(BadRequest) as caught:
        JSON.decode(b"[]")
    assert not isinstance(caught.value, Malformed)


def test_publishes_behind_one_that_was_refused_for_a_moment_are_refused_until_the_client_says_that_it_knows() -> None:
    queue = Queue()
    refused = Publish(channel="a", id="1")
    assert queue.refusal_of(refused) is None
    queue.failed(refused, Unavailable("later"))
    behind = Publish(channel="b", id="2")
    assert isinstance(queue.refusal_of(behind), Unavailable)
    assert isinstance(queue.refusal_of(refused), Unavailable), "it may have been on its way"
    assert queue.refusal_of(Publish(channel="a", ephemeral=True)) is None, "these have no order"
    assert queue.refusal_of(Publish(channel="b", id="3", again=True)) is None
    assert queue.refusal_of(behind) is None


def test_publish_that_is_not_repeated_holds_up_nothing() -> None:
    queue = Queue()
    queue.failed(Publish(channel="a"), Forbidden("never"))
    queue.failed(Publish(channel="a", ephemeral=True), Unavailable("later"))
    assert queue.refusal_of(Publish(channel="a")) is None
