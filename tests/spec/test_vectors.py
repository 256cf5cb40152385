"""The vectors of the spec, against the Python code; the clients run the same files."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from tellwire.auth import Grants, Identity, Operation
from tellwire.auth.claims import Claims, to_identity
from tellwire.brokers.memory import MemoryBroker
from tellwire.cli.follow import backoff_s
from tellwire.errors import (
    BadRequest,
    InvalidChannel,
    InvalidCursor,
    InvalidData,
    Malformed,
    RequestError,
    Unauthorized,
)
from tellwire.message import Cursor, Message, Position, parse_since
from tellwire.names import Namespace, Namespaces, check_channel
from tellwire.node import Caller, Node
from tellwire.protocol.codecs import JSON, MSGPACK, Codec
from tellwire.protocol.commands import Publish
from tellwire.protocol.data import check_data, to_json, to_packed
from tellwire.protocol.encodings import event_stream
from tellwire.protocol.pushes import PUSHES
from tellwire.protocol.session import ProtocolViolation, Session
from tellwire.protocol.sse import EventParser
from tellwire.testing.doors import somebody
from tellwire.transports.polling import write_slice

VECTORS = Path(__file__).parent.parent.parent / "spec" / "vectors"


def vectors(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text("ascii"))
    return loaded


def cases(name: str, key: str = "cases") -> pytest.MarkDecorator:
    """Run a test once for every case of a list."""
    found = vectors(name)[key]
    return pytest.mark.parametrize("case", found, ids=[f"{key}-{number}" for number in range(len(found))])


def test_every_file_is_run_here_and_described() -> None:
    files = {path.name for path in VECTORS.glob("*.json")}
    readme = (VECTORS / "README.md").read_text()
    source = Path(__file__).read_text()
    for file in files:
        assert f"`{file}`" in readme
        assert f'"{file.removesuffix(".json")}"' in source


# Section 1


@cases("names", "valid")
def test_channel_names(case: str) -> None:
    assert check_channel(case) == case


@cases("names", "invalid")
def test_invalid_channel_names(case: str) -> None:
    with pytest.raises(InvalidChannel):
        check_channel(case)


@cases("names", "namespaces")
def test_namespaces(case: dict[str, str]) -> None:
    namespaces = Namespaces(Namespace(name) for name in vectors("names")["known_namespaces"])
    assert namespaces.of(case["channel"]).name == case["namespace"]


# Section 2


@cases("positions", "positions")
def test_positions(case: dict[str, Any]) -> None:
    assert Position.parse(case["text"]) == Position(case["epoch"], case["seq"])
    assert str(Position(case["epoch"], case["seq"])) == case["text"]


@cases("positions", "cursors")
def test_cursors(case: dict[str, Any]) -> None:
    cursor = Cursor(tuple(Position(part["epoch"], part["seq"]) for part in case["parts"]))
    assert Cursor.parse(case["text"]) == cursor
    assert str(cursor) == case["text"]


@cases("positions", "invalid_positions")
def test_invalid_positions(case: str) -> None:
    with pytest.raises(InvalidCursor):
        Position.parse(case)


@cases("positions", "invalid_cursors")
def test_invalid_cursors(case: str) -> None:
    with pytest.raises(InvalidCursor):
        Cursor.parse(case)


@cases("since")
def test_since(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(InvalidCursor) as caught:
            parse_since(case["since"])
        assert caught.value.code == case["error"]
        return
    since = parse_since(case["since"])
    match case["means"]:
        case {"word": word}:
            assert since == word
        case {"seq": seq}:
            assert since == seq
        case {"cursor": cursor}:
            assert since == Cursor.parse(cursor)


# Section 6


def _said(codec: Codec, case: dict[str, Any]) -> bytes | None:
    if codec is MSGPACK:
        return bytes.fromhex(case["msgpack"]) if "msgpack" in case else None
    return case["json"].encode() if "json" in case else None


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.name)
@cases("commands")
def test_commands(codec: Codec, case: dict[str, Any]) -> None:
    payload = _said(codec, case)
    if payload is None:
        return  # the case is of the other language
    if "command" in case:
        module = msgspec.json if codec is JSON else msgspec.msgpack
        assert module.decode(module.encode(codec.decode(payload))) == case["command"]
        return
    with pytest.raises(BadRequest) as caught:
        codec.decode(payload)
    assert caught.value.code == case["error"]
    assert caught.value.ref == case.get("ref")
    session = Session(codec)
    if "close" in case:
        with pytest.raises(ProtocolViolation) as ended:
            session.receive(payload, binary=codec.binary)
        assert ended.value.code == case["close"]
    else:
        with pytest.raises(RequestError):
            session.receive(payload, binary=codec.binary)


# Section 7


@cases("pushes")
def test_pushes(case: dict[str, Any]) -> None:
    said = case["push"]
    assert msgspec.msgpack.decode(bytes.fromhex(case["msgpack"])) == said
    if said["type"] == "message":
        data = msgspec.json.encode(said["data"])
        message = Message(
            said["channel"],
            said.get("seq", 0),
            said["id"],
            said["time"],
            data,
            event=said["event"],
            key=said.get("key"),
            trace=said.get("trace", ""),
        )
        written = {codec: codec.message(message) for codec in (JSON, MSGPACK)}
    else:
        kind = _kind(said["type"])
        # Each is read in its own language first, for a push carries data as it is written there.
        written = {
            JSON: JSON.encode(msgspec.json.decode(msgspec.json.encode(said), type=kind)),
            MSGPACK: MSGPACK.encode(msgspec.msgpack.decode(bytes.fromhex(case["msgpack"]), type=kind)),
        }
    assert msgspec.json.decode(written[JSON]) == said
    assert msgspec.msgpack.decode(written[MSGPACK]) == said


def _kind(tag: str) -> Any:
    return next(push for push in PUSHES if push.__struct_config__.tag == tag)


def test_every_push_has_a_vector() -> None:
    assert {case["push"]["type"] for case in vectors("pushes")["cases"]} == {p.__struct_config__.tag for p in PUSHES}


# Section 13


@cases("identity")
def test_clients_are_named_after_user_and_session(case: dict[str, Any]) -> None:
    caller = Caller(Identity(case["user"]), "websocket", "127.0.0.1", case["session"])
    assert caller.client == case["client"]


@cases("permissions", "patterns")
@pytest.mark.parametrize("operation", get_args(Operation))
def test_patterns(operation: Operation, case: dict[str, Any]) -> None:
    grants = Grants.of({operation: [case["pattern"]]})
    for name in case["fits"]:
        assert grants.may(operation, name), name
    for name in case["not"]:
        assert not grants.may(operation, name), name


@cases("permissions", "grants")
def test_grants(case: dict[str, Any]) -> None:
    grants = to_identity(Claims(can=case["can"], channels=case["channels"])).grants
    for asked in case["asked"]:
        assert grants.may(asked["operation"], asked["name"]) is asked["may"], asked


@cases("permissions", "refused")
def test_claims_that_cannot_be_read(case: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized, match=case["place"]):
        to_identity(Claims(can=case["can"]))


# Section 9


@pytest.mark.parametrize("case", vectors("data")["both"] + vectors("data")["deep"], ids=str)
def test_data_in_both_directions(case: dict[str, Any]) -> None:
    text, packed = case["json"].encode(), bytes.fromhex(case["msgpack"])
    assert to_packed(check_data(text, packed=False)) == packed
    assert msgspec.json.decode(to_json(check_data(packed, packed=True))) == msgspec.json.decode(text)


@cases("data", "to_msgpack")
def test_data_to_messagepack(case: dict[str, Any]) -> None:
    assert to_packed(check_data(case["json"].encode(), packed=False)).hex() == case["msgpack"]


@cases("data", "to_json")
def test_data_to_json(case: dict[str, Any]) -> None:
    text = to_json(check_data(bytes.fromhex(case["msgpack"]), packed=True))
    assert msgspec.json.decode(text) == json.loads(case["json"])


@cases("data", "refused")
def test_data_that_is_refused(case: dict[str, Any]) -> None:
    data = case["json"].encode() if "json" in case else bytes.fromhex(case["msgpack"])
    with pytest.raises(InvalidData if data else Malformed):
        check_data(data, packed="msgpack" in case)


# Section 8.4


@cases("sse", "messages")
def test_sse_messages(case: dict[str, Any]) -> None:
    message = Message(**{**case["message"], "data": case["message"]["data"].encode()})
    frame = event_stream(envelope=False, chunked=False).frame(message, case["epoch"])
    assert frame.decode() == case["stream"]


@cases("sse", "pushes")
def test_sse_pushes(case: dict[str, Any]) -> None:
    push = msgspec.convert(case["push"], _kind(case["push"]["type"]))
    parser = EventParser("before")
    (event,) = parser.feed(event_stream(envelope=False, chunked=False).push(push))
    assert event.event == case["event"]
    assert json.loads(event.data) == case["push"]
    assert event.id == ("before" if case["id"] is None else case["id"])


@cases("sse", "streams")
def test_sse_streams(case: dict[str, Any]) -> None:
    parser = EventParser()
    events = []
    for chunk in case["chunks"]:
        events += parser.feed(bytes.fromhex(chunk["hex"]) if isinstance(chunk, dict) else chunk.encode())
    assert [event._asdict() for event in events] == case["events"]
    assert parser.last_event_id == case["last_event_id"]
    assert parser.retry_ms == case["retry_ms"]


# Section 5


@cases("gaps")
def test_gaps(case: dict[str, Any]) -> None:
    async def read() -> Any:
        namespaces = Namespaces([Namespace(history_messages=case["history_messages"])])
        broker = MemoryBroker(namespaces)
        broker.head = Position(vectors("gaps")["epoch"], 0)
        node = Node(broker, namespaces=namespaces)
        await node.open()
        try:
            for channel in case["publish"]:
                await node.publish(Publish(channel=channel, data=msgspec.Raw(b"1")), somebody(), packed=False)
            read = case["read"]
            slice_ = await node.reading.read(
                read["channels"], read["since"], limit=read.get("limit", 1000), on_gap=read.get("on_gap", "oldest")
            )
            return json.loads(write_slice(slice_, slice_.gap).body)
        finally:
            await node.aclose()

    answer = asyncio.run(read())
    assert answer["gap"] == case["gap"]
    assert [message["seq"] for message in answer["messages"]] == case["seqs"]
    assert answer["cursor"] == case["cursor"]


# Section 11.3


@cases("backoff")
def test_backoff(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low + case["random"] * (high - low))
    assert backoff_s(case["failures"] - 1) * 1000 == case["wait_ms"]
