"""Conversations of anything: two clients say whatever they like, in either language, and the node never fails.

Every reply is what was asked for or a documented error, what one client may publish the other can read, and once both
have gone nothing is left of them.
"""

from __future__ import annotations

import logging
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tellwire.errors import error_classes
from tellwire.protocol import commands
from tellwire.protocol.codecs import JSON, MSGPACK
from tellwire.testing.doors import Seen, Talk, settle, socket_talk
from tellwire.testing.harness import on_loop
from tests.nodes import Bench, bench

NAMES = ["a", "b", "fleeting:c", "a..b", "", "$presence:a", "$client:x", "é", "x" * 256]
CHANNELS = st.just("a") | st.sampled_from(NAMES)
WORDS = ["", "a", "k.1", "now", "earliest", "é", "\0", "x" * 300, "message", "signal"]
PRINTED = st.sampled_from(["a", "b", "c"])
TEXTS = st.sampled_from(WORDS) | st.text(max_size=4)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | TEXTS
    | st.binary(max_size=4)
    | TEXTS.map(lambda text: {"$bytes": text}),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "$bytes", "type", "\u2028"]), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "channel": CHANNELS,
    "since": TEXTS | st.integers(-5, 50),
    "last": st.integers(-2, 5),
    "policy": st.sampled_from(["catch_up", "latest", "disconnect", "x"]),
    "on_gap": st.sampled_from(["oldest", "newest", "x"]),
    "unreliable": st.booleans(),
    "data": VALUES,
    "id": PRINTED | TEXTS,
    "event": PRINTED | TEXTS,
    "key": PRINTED | TEXTS,
    "echo": st.booleans(),
    "ephemeral": st.booleans(),
    "expect": PRINTED | TEXTS,
    "trace": PRINTED | TEXTS,
    "session": PRINTED | TEXTS,
    "token": TEXTS,
    "in_order": st.booleans(),
    "again": st.booleans(),
    "enter": st.booleans(),
    "watch": st.booleans(),
    "state": VALUES,
    "to": TEXTS,
    "method": PRINTED | TEXTS,
    "timeout_ms": st.integers(-1, 5),
}
OF = {
    "connect": ["session", "token", "since", "in_order"],
    "refresh": ["token"],
    "subscribe": ["channel", "since", "last", "policy", "on_gap", "unreliable"],
    "unsubscribe": ["channel"],
    "publish": ["channel", "data", "id", "event", "key", "echo", "ephemeral", "expect", "session", "trace", "again"],
    "presence": ["channel", "enter", "watch", "state", "since"],
    "send": ["channel", "to", "data", "id", "event"],
    "call": ["method", "data", "timeout_ms"],
    "ping": [],
}
RARELY = 8


def command_of(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Make commands of one kind: a field now and then missing or of the wrong kind, and rarely more than one."""
    fields = {name: FIELDS[name] for name in OF[kind] if name in ("channel", "data", "to", "method", "token")}
    others = {name: FIELDS[name] for name in OF[kind] if name not in fields}
    good = st.fixed_dictionaries({"type": st.just(kind), **fields}, optional=others)
    bad = st.fixed_dictionaries({"type": st.just(kind)}, optional={name: FIELDS[name] | VALUES for name in OF[kind]})
    return st.integers(1, RARELY).flatmap(lambda chance: bad if chance == RARELY else good)


COMMANDS = st.sampled_from([*OF, "publish", "publish", "presence"]).flatmap(command_of)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.booleans(), COMMANDS), min_size=1, max_size=25))
def test_a_node_answers_anything(said: list[tuple[bool, dict[str, Any]]]) -> None:
    complaints = Complaints()
    log = logging.getLogger()  # also what the loop says of a callback that failed
    log.addHandler(complaints)
    try:
        run(said)
    finally:
        log.removeHandler(complaints)
    assert not complaints.records


@on_loop
async def run(said: list[tuple[bool, dict[str, Any]]]) -> None:
    async with bench(presence_grace_s=0.001) as node:
        await node.presence.open(node.name, 15.0)
        talks = {packed: socket_talk(node, MSGPACK if packed else JSON) for packed in (False, True)}
        for talk in talks.values():
            say(talk, {"type": "subscribe", "channel": "a"})
            say(talk, {"type": "presence", "channel": "a", "enter": True, "watch": True})
        for packed, command in said:
            say(talks[packed], command)
        await settle()
        for talk in talks.values():
            check(talk.door.drain())
            talk.door.cut()
        await settle()
        await check_empty(node)


def say(talk: Talk, command: dict[str, Any]) -> None:
    """Say it, unless the node has closed."""
    if talk.door.closed_with is None:
        talk.say(ref=1, **command)


def check(seen: list[Seen]) -> None:
    """Check that all errors are documented, and none is the server's."""
    for push in seen:
        if push["type"] == "error":
            assert push["code"] in error_classes()
            assert push["code"] not in ("internal", "unavailable", "timeout"), push
            assert 0 < len(push["message"]) < 1000


async def check_empty(node: Bench) -> None:
    """Check that nothing is left of those who have gone, but for a grace."""
    assert not node.hub.subscribers
    assert not len(node.hub.tails)
    assert not node.members._held_by
    assert all(not hold.holders for hold in node.members._holds.values())


class Complaints(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_every_field_of_every_command_is_tried() -> None:
    known = {str(command.__struct_config__.tag): set(command.__struct_fields__) for command in commands.COMMANDS}
    assert {kind: {*names, "ref"} for kind, names in OF.items()} == known
