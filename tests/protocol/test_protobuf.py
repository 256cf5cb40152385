"""Commands and pushes as messages of spec/tellwire.proto: nothing is left out on the way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellwire.errors import Malformed, RequestError
from tellwire.message import Gap, Message
from tellwire.protocol import commands, protobuf, pushes
from tellwire.protocol.proto import tellwire_pb2 as pb

MEMBER = pushes.MemberView("c", "u", msgspec.Raw(b"1"), msgspec.Raw(b"2"))
GAP = Gap("a.1", "a.2", "slow", ("x", "y"))

SAID: list[pushes.Push] = [
    pushes.Connected("c", "a", "a.1", 25_000, "s", 1, "u", 5),
    pushes.Refreshed(5, 1),
    pushes.Subscribed("x", "a.1", GAP, 1),
    pushes.Unsubscribed("x", 1, "forbidden"),
    pushes.Published("a.1", True, 1),
    pushes.PresencePush("x", "c", [MEMBER], 1, 2, "a.1", 1),
    pushes.Sent("a.1", True, 1),
    pushes.Result(msgspec.Raw(b"{}"), 1),
    pushes.Pong(1),
    pushes.ErrorPush("conflict", "text", 1, "a.1", 5),
    pushes.Join("x", MEMBER, 3),
    pushes.Update("x", MEMBER, 3),
    pushes.Leave("x", MEMBER, 3),
    pushes.Count("x", 1, 2, 3),
    pushes.Signal("x", "c", "i", 4, "e", msgspec.Raw(b"1"), "u", 3),
    pushes.GapPush("a.1", "a.2", "epoch", ("x",)),
    pushes.Heartbeat("a.1"),
    pushes.Closing(1012, "text", 5),
]


def test_every_push_has_a_message() -> None:
    known = {str(kind.__struct_config__.tag) for kind in pushes.PUSHES}
    assert {type(push) for push in SAID} == {*pushes.PUSHES} - {pushes.MessagePush}
    assert {field.name for field in pb.Push.DESCRIPTOR.oneofs_by_name["push"].fields} == known


def test_every_command_has_a_message() -> None:
    known = {str(kind.__struct_config__.tag) for kind in commands.COMMANDS}
    assert {field.name for field in pb.Command.DESCRIPTOR.oneofs_by_name["command"].fields} == known


@pytest.mark.parametrize("push", SAID, ids=lambda push: type(push).__name__)
def test_push_keeps_all_its_fields(push: pushes.Push) -> None:
    made = protobuf.to_proto(push, packed=False)
    kind = made.WhichOneof("push")
    assert kind == push.__struct_config__.tag
    message: Any = getattr(made, str(kind))
    names = {"from_": "from_cursor", "to": "to_position"} if kind == "gap" else {"from_": "sender"}
    for field in msgspec.structs.fields(push):
        if field.name == "ref":
            assert made.ref == 1
        else:
            assert getattr(message, names.get(field.name, field.name)), field.name


@pytest.mark.parametrize("kind", commands.COMMANDS, ids=lambda kind: kind.__name__)
def test_command_comes_back_as_it_was(kind: type[commands.Command]) -> None:
    other_wires = {"unreliable"}
    given_: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.name in ("data", "state"):
            given_[field.name] = msgspec.Raw(b"\x01")
        elif field.name in ("policy", "on_gap"):
            given_[field.name] = {"policy": "latest", "on_gap": "newest"}[field.name]
        elif field.name in ("enter", "watch", "echo", "ephemeral", "in_order", "again"):
            given_[field.name] = field.name != "echo"
        elif field.name in ("ref", "last", "timeout_ms"):
            given_[field.name] = 7
        elif field.name not in other_wires:
            given_[field.name] = f"the {field.name}"
    command = kind(**given_)
    (written,) = pb.Commands.FromString(protobuf.write_command(command, packed=True)).commands
    assert protobuf.read_command(written, packed=True) == (command, True)


@given(st.lists(st.binary(min_size=1, max_size=30_000), min_size=1, max_size=20))
def test_frames_behind_each_other_are_one_batch(values: list[bytes]) -> None:
    encoding = protobuf.protobuf_encoding("*/*")
    packed = [msgspec.msgpack.encode(value) for value in values]
    frames = [encoding.frame(Message("x", seq, "i", 0, data, True), "a") for seq, data in enumerate(packed, 1)]
    batch = encoding.join(frames)
    assert b"".join(batch) == b"".join(frames)
    for chunk in batch:
        assert len(chunk) <= protobuf.CHUNK_BYTES or len(pb.Pushes.FromString(chunk).pushes) == 1
    found = [push.message for chunk in batch for push in pb.Pushes.FromString(chunk).pushes]
    assert [message.data.value for message in found] == values
    assert [message.position for message in found] == [f"a.{seq}" for seq in range(1, len(values) + 1)]


@given(st.binary(max_size=200))
def test_any_bytes_are_commands_or_malformed(payload: bytes) -> None:
    try:
        parsed = protobuf.parse(pb.Commands, payload)
    except Malformed:
        return
    for command in parsed.commands:
        try:
            protobuf.read_command(command, packed=False)
        except RequestError:
            continue
