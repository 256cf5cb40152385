"""Every parser that strangers reach, given anything: it takes it, or raises an error that is documented.

What is fuzzed beside a parser's other tests is not repeated here: codecs (tests.protocol.test_codecs), data
(test_data), the SSE reader (test_sse), positions and cursors (tests.test_message), channel names (tests.test_names),
tokens, keys and grants (tests.auth), addresses (tests.test_limits), handshakes (tests.transports.test_handshake).
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tellwire.auth import Access
from tellwire.auth.credentials import redact
from tellwire.auth.settings import AuthSettings
from tellwire.brokers import make_broker
from tellwire.cli.token_explaining import explain
from tellwire.config import InvalidSetting, load_settings
from tellwire.config import settings as known_settings
from tellwire.errors import (
    BadRequest,
    ForbiddenOrigin,
    InvalidCursor,
    InvalidData,
    Malformed,
    RequestError,
    Unauthorized,
)
from tellwire.message import SEQ_MAX, Cursor, Message, parse_since
from tellwire.names import Namespace, Namespaces
from tellwire.presence import make_presence
from tellwire.protocol.codecs import JSON, MSGPACK, Codec
from tellwire.protocol.commands import Publish
from tellwire.protocol.data import check_data, check_json, to_value
from tellwire.protocol.internal import INBOX, PRESENCE, InternalSignal
from tellwire.protocol.pushes import MemberView
from tellwire.protocol.session import ProtocolViolation, Session, State
from tellwire.toml_lines import TomlFile, TomlSyntaxError
from tellwire.transports.polling import check_callback, wrap
from tellwire.transports.requests import Answer, Decoders, Query

codecs = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.name)

near_json = st.text(alphabet='{}[]",:\\u0019.eE-+ntrfalsu$byd8\r\n ', max_size=60).map(str.encode)
commands = st.sampled_from(
    [
        b'{"type":"ping"}', b'{"type":"connect","session":"s"}', b'{"type":"subscribe","channel":"a"}',
        b'{"type":"dance"}', b"[]", b"\x81\xa4type\xa4ping", b"\x81\xa4type\xa7connect", b"", b"\xc1", b"{",
    ]
)  # fmt: skip
payloads = st.binary(max_size=80) | near_json | commands


# Where to begin


@given(st.text(max_size=40) | st.text(alphabet="0123456789.,abk-", max_size=40) | st.integers() | st.none())
def test_since_of_anything(given: str | int | None) -> None:
    try:
        since = parse_since(given)
    except InvalidCursor:
        return
    assert isinstance(since, Cursor) or since in ("now", "earliest") or 0 <= int(since) <= SEQ_MAX


names = st.sampled_from(
    ["channel", "since", "last", "limit", "wait", "session", "presence", "policy", "on_gap", "envelope", "before", "x"]
)
queries = st.binary(max_size=80) | st.lists(
    st.tuples(names, st.text(alphabet="0159-.kaé%&=\0\n+ ٣", max_size=12) | st.sampled_from(["enter", "nan", "1e99"])),
    max_size=6,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode())
READINGS: dict[str, Callable[[Query], Any]] = {
    "need_channels": lambda query: query.need_channels(),
    "start": lambda query: query.start({"headers": []}),
    "limit": lambda query: query.integer("limit"),
    "last": lambda query: query.integer("last"),
    "wait": lambda query: query.seconds("wait"),
    "envelope": lambda query: query.flag("envelope"),
    "session": lambda query: query.session,
    "attendance": lambda query: query.attendance,
    "policy": lambda query: query.policy,
    "on_gap": lambda query: query.on_gap,
}


@given(queries, st.binary(max_size=30))
def test_queries_of_anything(query_string: bytes, last_event_id: bytes) -> None:
    try:
        query = Query({"query_string": query_string})
    except BadRequest:
        return
    for read in READINGS.values():
        with contextlib.suppress(BadRequest):
            read(query)
    with contextlib.suppress(BadRequest):
        since, _ = query.start({"headers": [(b"last-event-id", last_event_id)]})
        with contextlib.suppress(InvalidCursor):
            parse_since(since)


@given(st.text(max_size=70) | st.from_regex(r"[A-Za-z_$.0-9]{1,70}", fullmatch=True), st.binary(max_size=40))
def test_callbacks_of_anything(name: str, body: bytes) -> None:
    try:
        checked = check_callback(name)
    except BadRequest:
        return
    script = wrap(Answer(200, body), checked).body
    assert re.match(rb"/\*\*/[A-Za-z0-9_$.]{1,64}\(", script)
    assert b"\xe2\x80\xa8" not in script


# What a connection says


@codecs
@given(said=st.lists(st.tuples(payloads, st.booleans()), max_size=8))
def test_sessions_of_anything(codec: Codec, said: list[tuple[bytes, bool]]) -> None:
    session = Session(codec)
    for payload, binary in said:
        before = session.state
        try:
            command = session.receive(payload, binary=binary)
        except RequestError:
            assert session.state is before
        except ProtocolViolation:
            session.close()
        else:
            assert (command is None) == (before is State.CLOSED)


DECODERS = [
    Decoders(Publish, "publish"),
    Decoders(Publish | list[Raw], "publish"),
    Decoders(list[Raw], "list"),
]


@given(payloads, st.booleans())
def test_bodies_of_anything(body: bytes, packed: bool) -> None:
    for kinds in DECODERS:
        with contextlib.suppress(BadRequest):
            assert isinstance(kinds.decode(body, packed=packed), Publish | list)


@given(payloads, st.booleans())
def test_data_that_is_kept_is_a_value_for_handlers(data: bytes, packed: bool) -> None:
    try:
        kept = check_data(data, packed=packed)
    except (InvalidData, Malformed):
        return
    to_value(kept, packed=packed)


# What the server itself has written, out of what strangers gave


def kept_json(data: bytes) -> Raw | None:
    try:
        return Raw(check_json(data))
    except InvalidData:
        return None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda item: st.lists(item, max_size=3) | st.dictionaries(st.sampled_from(["$bytes", "a", "\u2028"]), item),
    max_leaves=8,
)
texts = st.one_of(near_json.map(kept_json), values.map(lambda value: Raw(msgspec.json.encode(value)))).filter(
    lambda raw: raw is not None
)


@codecs
@given(user=st.none() | st.text(min_size=1, max_size=8), state=texts, what=st.sampled_from(["join", "update", "leave"]))
def test_members_of_any_state_reach_everybody(codec: Codec, user: str | None, state: Raw, what: str) -> None:
    data = msgspec.json.encode(MemberView("c", user, state, state))
    push = decoded(codec, codec.message(Message(PRESENCE + "a", 5, "e.5", 1, data, event=what)))
    assert (push["type"], push["channel"], push["seq"]) == (what, "a", 5)
    assert push["member"].get("user") == user
    assert "state" in push["member"]


@codecs
@given(event=st.text(min_size=1, max_size=8), id_=st.text(max_size=8), data=texts)
def test_signals_of_any_data_reach_everybody(codec: Codec, event: str, id_: str, data: Raw) -> None:
    text = msgspec.json.encode(InternalSignal("a", "c", id_, data))
    push = decoded(codec, codec.message(Message(INBOX + "c", 5, "e.5", 1, text, event=event)))
    assert (push["type"], push["from"], push["event"], push["id"]) == ("signal", "c", event, id_)
    assert "data" in push


def decoded(codec: Codec, payload: bytes) -> Any:
    return (msgspec.msgpack if codec.binary else msgspec.json).decode(payload)


# Who comes, and what of it is written down


@given(st.binary(max_size=40), st.none() | st.binary(max_size=40), st.sampled_from(["http", "https", "ws", "wss"]))
def test_origins_of_anything(host: bytes, origin: bytes | None, scheme: str) -> None:
    headers = [(b"host", host), *([(b"origin", origin)] if origin is not None else [])]
    for access in (Access(), Access(loopback_only=True), Access(origins=["https://app.example"])):
        with contextlib.suppress(ForbiddenOrigin):
            access.check(headers, scheme)


@given(st.text(max_size=200) | st.text(alphabet="token=%3DBearer eyJ._-&;,'\" \n", max_size=200))
def test_lines_of_anything_can_be_logged(line: str) -> None:
    assert redact(line).count("\n") <= line.count("\n")


@settings(deadline=None)
@given(st.text(max_size=80) | st.from_regex(r"eyJ[A-Za-z0-9_-]{0,30}\.[A-Za-z0-9_-]{0,30}\.[A-Za-z0-9_-]{0,9}"))
def test_tokens_of_anything_are_explained_or_refused(token: str) -> None:
    with contextlib.suppress(Unauthorized):
        lines, is_good = explain(token, AuthSettings(token_key="a secret that is long enough for HS256"), now=1e9)
        assert lines
        assert not is_good


# Settings


@given(st.text(max_size=80), st.text(max_size=80))
def test_namespaces_of_any_name(name: str, channel: str) -> None:
    try:
        namespace = Namespace(name)
    except ValueError:
        return
    assert Namespaces([namespace]).of(f"{name}:{channel}") is namespace


words = st.text(max_size=20) | st.sampled_from(
    ["1", "-1", "0", "nan", "true", "1e400", "99999999999999999999", "a b,c"]
)


@given(st.dictionaries(st.sampled_from([setting.variable for setting in known_settings()]), words, max_size=3))
def test_environments_of_anything(environ: dict[str, str]) -> None:
    with contextlib.suppress(InvalidSetting):
        load_settings({}, environ)


near_toml = st.text(alphabet="[]{}=\"'#.,\n server limits port host\\u0\r", max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=60) | near_toml.map(str.encode))
def test_settings_files_of_anything(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tellwire.toml"
    path.write_bytes(data)
    with contextlib.suppress(TomlSyntaxError):
        assert TomlFile.read(path).values == tomllib.loads(data.decode())
    with contextlib.suppress(InvalidSetting):
        load_settings({}, {}, path)


@given(st.text(max_size=30) | st.from_regex(r"(memory|sqlite|x):/{0,3}[a-z@:?#\[\]%]{0,10}", fullmatch=True))
def test_brokers_of_any_url(url: str) -> None:
    with contextlib.suppress(ValueError):
        make_broker(url, Namespaces())
    with contextlib.suppress(ValueError):
        make_presence(url)
