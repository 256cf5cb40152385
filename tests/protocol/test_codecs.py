"""JSON and MessagePack: commands in, pushes out (spec, sections 6, 7 and 9)."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from tellwire.errors import BadRequest, UnknownCommand
from tellwire.message import Gap, Message
from tellwire.protocol.codecs import CODECS, JSON, MSGPACK, Codec
from tellwire.protocol.commands import (
    COMMANDS,
    AnyCommand,
    Call,
    Command,
    Connect,
    Ping,
    Presence,
    Publish,
    Refresh,
    Send,
    Subscribe,
    Unsubscribe,
)
from tellwire.protocol.pushes import (
    PUSHES,
    Closing,
    Connected,
    Count,
    ErrorPush,
    GapPush,
    Heartbeat,
    Join,
    Leave,
    MemberView,
    MessagePush,
    Pong,
    PresencePush,
    Published,
    Push,
    Refreshed,
    Result,
    Sent,
    Signal,
    Subscribed,
    Unsubscribed,
    Update,
)

codecs = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.name)

GAP = Gap("k.1", "k.5", "trimmed", ("a", "b"))
ONE = Raw(b"1")
"""A number, written alike in both languages but for JSON's digit."""
ADA = MemberView("c", "ada", ONE, ONE)
NOBODY = MemberView("c")
EVERY_PUSH: list[Push] = [
    Connected("c", "k", "k.1", 25_000, "s", 1),
    Connected("c", "k", "k.1", 25_000, "s", 1, "ada", 60_000),
    Refreshed(60_000, 1),
    Refreshed(None),
    PresencePush("a", "c", [ADA, NOBODY], 2, 2, "k.1", 1),
    PresencePush("a", "c", [], 0, 0, "k.1"),
    PresencePush("a", "c", None, 5000, 4000, "k.1"),
    Sent("k.1", False, 1),
    Result(ONE, 1),
    Join("a", ADA, 5),
    Update("a", ADA, 5),
    Leave("a", NOBODY, 5),
    Count("a", 5000, 4000, 5),
    Signal("a", "c", "i", 1, "offer", ONE, "ada", 5),
    Signal("a", "c", "", 1, "message", ONE),
    ErrorPush("rate_limited", "slowly", 1, None, 250),
    Subscribed("a", "k.1", GAP, "r"),
    Subscribed("a", "k.1", None),
    Unsubscribed("a", 1),
    Unsubscribed("a", code="forbidden"),
    Published("k.1", False, 1),
    Published(None, False),
    Pong(1),
    ErrorPush("conflict", "no", 1, "k.1"),
    MessagePush("a", "i", 1, "message", ONE, 5, "k"),
    MessagePush("a", "i", 1, "message", ONE, 5, trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    MessagePush("a", "", 1, "typing", ONE, ephemeral=True),
    GapPush.of(GAP),
    Heartbeat("k.1"),
    Closing(1012, "going", 0),
]
EVERY_COMMAND: list[AnyCommand] = [
    Connect(ref=1, session="s"),
    Subscribe(ref="r", channel="a", since="k.1", policy="latest", on_gap="newest"),
    Subscribe(channel="a", since=12),
    Subscribe(channel="a", last=5),
    Unsubscribe(ref=2, channel="a"),
    Connect(ref=1, session="s", token="t", since="k.1"),
    Connect(since=12),
    Refresh(ref=1, token="t"),
    Presence(ref=1, channel="a"),
    Presence(channel="a", enter=True, watch=True, since="k.1"),
    Presence(channel="a", enter=False, watch=False, since=12),
    Call(ref=1, method="m", timeout_ms=5),
    Ping(ref=3),
]
CARRIERS: list[tuple[type[Command], str, dict[str, str]]] = [
    (Publish, "data", {"channel": "a"}),
    (Presence, "state", {"channel": "a"}),
    (Send, "data", {"channel": "a", "to": "c"}),
    (Call, "data", {"method": "m"}),
]
"""Commands that carry what the client wrote, with its field and what else they need."""


def one(codec: Codec) -> Raw:
    return ONE if codec is JSON else Raw(b"\x01")


def plain(codec: Codec, payload: bytes) -> Any:
    return json.loads(payload) if codec is JSON else msgspec.msgpack.decode(payload)


def written(codec: Codec, command: object) -> bytes:
    return msgspec.json.encode(command) if codec is JSON else msgspec.msgpack.encode(command)


def test_every_command_and_push_is_tried_here() -> None:
    assert {type(push) for push in EVERY_PUSH} == set(PUSHES)
    assert {type(command) for command in EVERY_COMMAND} | {kind for kind, _, _ in CARRIERS} == set(COMMANDS)


@codecs
@pytest.mark.parametrize("command", EVERY_COMMAND, ids=str)
def test_commands_are_read_as_they_were_written(codec: Codec, command: Command) -> None:
    assert codec.decode(written(codec, command)) == command


@codecs
@pytest.mark.parametrize(("kind", "field", "needed"), CARRIERS, ids=lambda case: getattr(case, "__name__", ""))
def test_what_a_command_carries_is_kept_as_it_came(
    codec: Codec, kind: type[Command], field: str, needed: dict[str, str]
) -> None:
    data = b'{"a" : [1, 2.50]}' if codec is JSON else b"\x81\xa1a\x92\xd1\x00\x01\x02"  # a roundabout 1
    said = {"type": kind.__struct_config__.tag, **needed, field: Raw(data)}
    command = codec.decode(written(codec, said))
    assert type(command) is kind
    kept = getattr(command, field)
    assert isinstance(kept, Raw)
    assert bytes(kept) == data


@codecs
@pytest.mark.parametrize(("kind", "field", "needed"), CARRIERS, ids=lambda case: getattr(case, "__name__", ""))
def test_null_is_not_the_same_as_left_out(
    codec: Codec, kind: type[Command], field: str, needed: dict[str, str]
) -> None:
    said = {"type": kind.__struct_config__.tag, **needed}
    assert getattr(codec.decode(written(codec, said)), field) is UNSET
    assert getattr(codec.decode(written(codec, {**said, field: None})), field) is not UNSET


@codecs
def test_unknown_fields_are_ignored(codec: Codec) -> None:
    assert codec.decode(written(codec, {"type": "ping", "ref": 1, "later": {"x": [1]}})) == Ping(ref=1)


@codecs
@pytest.mark.parametrize("push", EVERY_PUSH, ids=lambda push: type(push).__name__)
def test_pushes_name_their_type_and_leave_out_defaults(codec: Codec, push: Push) -> None:
    if isinstance(push, MessagePush | Signal | Result):
        push = msgspec.structs.replace(push, data=one(codec))
    elif isinstance(push, Join | Update):
        push = msgspec.structs.replace(push, member=MemberView("c", "ada", one(codec), one(codec)))
    elif isinstance(push, PresencePush) and push.members:
        push = msgspec.structs.replace(push, members=[MemberView("c", "ada", one(codec), one(codec)), NOBODY])
    said = plain(codec, codec.encode(push))
    assert said["type"] == push.__struct_config__.tag
    fields = msgspec.structs.fields(push)
    for field in fields:
        value = getattr(push, field.name)
        if field.default is not msgspec.NODEFAULT and value == field.default:
            assert field.encode_name not in said
        else:
            assert field.encode_name in said


@codecs
def test_gaps_say_from_and_to(codec: Codec) -> None:
    expected = {"from": "k.1", "to": "k.5", "reason": "trimmed", "channels": ["a", "b"]}
    assert plain(codec, codec.encode(GapPush.of(GAP))) == {"type": "gap", **expected}
    assert plain(codec, codec.encode(Subscribed("a", "k.1", GAP)))["gap"] == expected


@codecs
def test_members_leave_out_what_they_have_not(codec: Codec) -> None:
    members = [MemberView("c"), MemberView("d", "ada", one(codec), one(codec))]
    assert plain(codec, codec.encode(PresencePush("a", "c", members, 2, 2, "k.1")))["members"] == [
        {"client": "c"},
        {"client": "d", "user": "ada", "info": 1, "state": 1},
    ]


@codecs
def test_signals_say_from(codec: Codec) -> None:
    said = plain(codec, codec.encode(Signal("a", "c", "i", 5, "offer", one(codec), "ada", 7)))
    assert said == {
        "type": "signal", "channel": "a", "from": "c", "user": "ada", "event": "offer", "data": 1, "id": "i",
        "time": 5, "seq": 7,
    }  # fmt: skip


@codecs
@pytest.mark.parametrize("packed", [False, True])
def test_messages_are_carried_in_either_language(codec: Codec, packed: bool) -> None:
    value = {"x": [1, "two", None]}
    data = msgspec.msgpack.encode(value) if packed else msgspec.json.encode(value)
    message = Message("news", 7, "id-7", 1_700_000_000_000, data, packed, "greeting", "k")
    assert plain(codec, codec.message(message)) == {
        "type": "message", "channel": "news", "seq": 7, "id": "id-7", "time": 1_700_000_000_000,
        "event": "greeting", "key": "k", "data": value,
    }  # fmt: skip


@codecs
def test_ephemeral_messages_have_no_seq(codec: Codec) -> None:
    said = plain(codec, codec.message(Message("news", 0, "", 5, b"\xc0", packed=True)))
    assert said["ephemeral"] is True
    assert "seq" not in said


@codecs
@given(payload=st.binary(max_size=120))
def test_arbitrary_bytes_raise_only_what_is_documented(codec: Codec, payload: bytes) -> None:
    with contextlib.suppress(BadRequest):
        codec.decode(payload)


words = st.sampled_from(["", "a", "news", "k.1", "now", "latest", "é", "\0", "x" * 300])
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
nearly_commands = st.dictionaries(
    st.sampled_from(
        [
            "ref",
            "channel",
            "since",
            "last",
            "policy",
            "on_gap",
            "data",
            "id",
            "event",
            "echo",
            "expect",
            "x",
            "token",
            "session",
            "enter",
            "watch",
            "state",
            "to",
            "method",
            "timeout_ms",
        ]
    ),
    anything,
    max_size=6,
).flatmap(
    lambda fields: st.sampled_from(
        [
            "connect",
            "refresh",
            "subscribe",
            "unsubscribe",
            "publish",
            "presence",
            "send",
            "call",
            "ping",
            "dance",
            "",
            5,
            None,
        ]
    ).map(lambda name: {**fields, "type": name})
)


@codecs
@given(command=nearly_commands)
def test_near_commands_raise_only_what_is_documented_and_name_their_ref(codec: Codec, command: dict[str, Any]) -> None:
    error: BadRequest | None = None
    try:
        codec.decode(written(codec, command))
    except BadRequest as exc:
        error = exc
    ref = command.get("ref")
    assert error is None or error.ref == (ref if type(ref) in (int, str) else None)


@codecs
@pytest.mark.parametrize("nested", [b"[", b"\x91", b'{"type":', b"\x81\xa4type"])
def test_endless_nesting_is_malformed(codec: Codec, nested: bytes) -> None:
    with pytest.raises(BadRequest):
        codec.decode(nested * 100_000)


@codecs
@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ([], BadRequest, "a command is an object with a type"),
        ({}, BadRequest, "needs a type"),
        ({"type": "dance"}, UnknownCommand, "no command is called 'dance'"),
        ({"type": ["ping"]}, UnknownCommand, "no command is called"),
        ({"type": "subscribe"}, BadRequest, "subscribe: .*channel"),
        ({"type": "subscribe", "channel": 5}, BadRequest, "subscribe: .*channel"),
        ({"type": "subscribe", "channel": "a", "policy": "maybe"}, BadRequest, "policy"),
        ({"type": "ping", "ref": 1.5}, BadRequest, "ping: .*ref"),
        ({"type": "refresh"}, BadRequest, "refresh: .*token"),
        ({"type": "presence", "channel": "a", "enter": 1}, BadRequest, "presence: .*bool.*enter"),
        ({"type": "send", "channel": "a", "data": 1}, BadRequest, "send: .*to"),
        ({"type": "call", "data": 1}, BadRequest, "call: .*method"),
    ],
    ids=str,
)
def test_errors_say_what_was_wrong_and_where(codec: Codec, said: Any, error: type[BadRequest], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        codec.decode(written(codec, said))
    assert type(caught.value) is error


def test_subprotocols_are_in_the_servers_order_of_preference() -> None:
    assert list(CODECS) == ["tellwire.v1.json", "tellwire.v1.msgpack"]
