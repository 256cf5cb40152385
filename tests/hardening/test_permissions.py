"""Who may what: the same answer on every transport, wherever the token comes from.

| token | HTTP | a WebSocket is told, and closed with | |
|---|---|---|---|
| none | 401 `unauthorized` | `unauthorized`, 4500 | nobody said who this is |
| garbage | 401 `unauthorized` | `unauthorized`, 4500 | it is no token, or not one of ours |
| expired | 401 `expired` | `expired`, 4002 | |
| revoked | 401 `revoked` | `revoked`, 4502 | its id was |
| wrong | 403 `forbidden` | `forbidden`, and goes on | it may all of this, but on other channels |
| right | 200 | does it, and goes on | |

Every operation of `DOORS` is tried with each of them, at every door that leads to it, with the token in every place
that the door takes one from.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest

from tellwire.node.callers import client_name
from tests.guarded import ALL, bearer, token
from tests.serving import Server
from tests.wires import Closed, Http, WebSocket

CHANNEL = "matrix-room"
SESSION = "the secret of ann's browser"
BOB = client_name("bob", "bob's")


class Answer(NamedTuple):
    """What somebody is told: the code of an error, and what a WebSocket is closed with."""

    code: str | None
    close: int | None = None


ANSWERS = {
    "none": Answer("unauthorized", 4500),
    "garbage": Answer("unauthorized", 4500),
    "expired": Answer("expired", 4002),
    "revoked": Answer("revoked", 4502),
    "wrong": Answer("forbidden"),
    "right": Answer(None),
}
STATUS = {None: 200, "unauthorized": 401, "expired": 401, "revoked": 401, "forbidden": 403}

ELSEWHERE = {**{name: ["elsewhere", "else*where"] for name in ALL}, "admin": ["elsewhere"]}
TOKENS: dict[str, Callable[[], str]] = {
    "none": lambda: "",
    "garbage": lambda: token(key="a secret that nobody gave to the server"),
    "expired": lambda: token(expires_in_s=-1),
    "revoked": lambda: token(jti="matrix-revoked"),
    "wrong": lambda: token(can=ELSEWHERE),
    "right": lambda: token(),
}


@dataclass(frozen=True)
class Door:
    """A way to an operation."""

    path: str = ""
    method: str = "GET"
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    command: dict[str, Any] | None = None
    packed: bool = False


def reading(path: str, **query: str) -> Door:
    return Door(path, query=(("channel", CHANNEL), *query.items()))


def post(path: str, **body: Any) -> Door:
    return Door(path, "POST", body=body)


def command(kind: str, **fields: Any) -> dict[str, Door]:
    said = {"type": kind, **fields}
    return {"websocket": Door(command=said), "msgpack": Door(command=said, packed=True)}


def streams(**query: str) -> dict[str, Door]:
    return {
        "poll": reading("/v1/messages", **query),
        "longpoll": reading("/v1/messages", wait="0.01", **query),
        "sse": reading("/v1/events", **query),
        "stream": reading("/v1/stream", **query),
    }


PUBLISH = {"channel": CHANNEL, "data": 1, "ephemeral": True}
SEND = {"channel": CHANNEL, "to": BOB, "data": 1}
OPERATIONS: dict[str, dict[str, Door]] = {
    "read": {
        **streams(),
        "sse, head": Door("/v1/events", "HEAD", (("channel", CHANNEL),)),
        "stream, head": Door("/v1/stream", "HEAD", (("channel", CHANNEL),)),
        **command("subscribe", channel=CHANNEL),
    },
    "history": {
        "poll, before": reading("/v1/messages", before="now"),
        "poll, last": reading("/v1/messages", last="5"),
        "poll, since": reading("/v1/messages", since="earliest"),
        **command("subscribe", channel=CHANNEL, last=5),
    },
    "publish": {
        "post": post("/v1/messages", **PUBLISH),
        "post, msgpack": Door("/v1/messages", "POST", body=msgspec.msgpack.encode(PUBLISH)),
        **command("publish", **PUBLISH),
    },
    "look": {
        "get": reading("/v1/presence"),
        "post": post("/v1/presence", channel=CHANNEL, session=SESSION),
        **command("presence", channel=CHANNEL),
    },
    "watch": {**streams(presence="watch"), **command("presence", channel=CHANNEL, watch=True)},
    "enter": {
        **streams(presence="enter", session=SESSION),
        "post": post("/v1/presence", channel=CHANNEL, session=SESSION, enter=True),
        **command("presence", channel=CHANNEL, enter=True),
    },
    "send": {"post": post("/v1/send", session=SESSION, **SEND), **command("send", **SEND)},
    "call": {"post": post("/v1/call", method="echo", data=1), **command("call", method="echo", data=1)},
    "admin": {
        "stats": Door("/v1/admin/stats"),
        "nodes": Door("/v1/admin/nodes"),
        "connections": Door("/v1/admin/connections"),
        "channels": Door("/v1/admin/channels"),
        "presence": reading("/v1/admin/presence"),
        "publish": post("/v1/admin/publish", **PUBLISH),
        "disconnect": post("/v1/admin/disconnect", client="nobody"),
        "unsubscribe": post("/v1/admin/unsubscribe", client="nobody", channel="room"),
        "revoke": post("/v1/admin/revoke", token_id="nothing"),
        "metrics": Door("/metrics"),
    },
}
DOORS = {f"{operation} by {way}": door for operation, ways in OPERATIONS.items() for way, door in ways.items()}

PLACES = {False: ("header", "query", "cookie"), True: ("header", "query", "subprotocol", "cookie", "connect")}
"""Where a token may be, for requests and for WebSockets."""

CASES = [(name, place) for name, door in DOORS.items() for place in PLACES[door.command is not None]]


@pytest.fixture
def present(guarded: Server) -> Iterator[Callable[[Server], None]]:
    """See to it, on a server, that one token is revoked, and that Ann and Bob are both in the channel."""
    with contextlib.ExitStack() as stack:

        def prepare(server: Server) -> None:
            with Http(server) as http:
                order = {"token_id": "matrix-revoked"}
                assert http.post("/v1/admin/revoke", order, headers=[bearer(token())]).status == 200
            for user, session in (("ann", SESSION), ("bob", "bob's")):
                wire = stack.enter_context(WebSocket(server, token=token(user), query=urlencode({"session": session})))
                assert wire.ask(type="presence", channel=CHANNEL, enter=True)["type"] == "presence"

        yield prepare


def knock(server: Server, door: Door, place: str, text: str) -> Answer:
    """Try a door with a token; return what is said."""
    headers, query = [], list(door.query)
    if text:
        if place == "header":
            headers.append(bearer(text))
        elif place == "query":
            query.append(("token", text))
        elif place == "cookie":
            headers.append(("Cookie", f"theme=dark; tellwire_token={text}"))
    if door.command is None:
        return request(server, door, query, headers)
    query.append(("session", SESSION))
    offered = text if place == "subprotocol" else ""
    with WebSocket(server, packed=door.packed, headers=headers, query=urlencode(query), token=offered) as wire:
        return talk(wire, door.command, text if place == "connect" else None)


def request(server: Server, door: Door, query: list[tuple[str, str]], headers: list[tuple[str, str]]) -> Answer:
    body = door.body if isinstance(door.body, bytes) or door.body is None else json.dumps(door.body).encode()
    kind = "application/msgpack" if isinstance(door.body, bytes) else "application/json"
    with Http(server) as http:
        target = f"{door.path}?{urlencode(query)}"
        http.send_request(door.method, target, headers=[("Content-Type", kind), *headers], body=body)
        status, fields = http.read_head()
        code = None
        if status != 200:
            assert fields["content-type"] == "application/problem+json"
            assert ("www-authenticate" in fields) is (status == 401)
            if door.method == "HEAD":
                code = {401: "unauthorized", 403: "forbidden"}[status]
            else:
                problem = json.loads(http.read_exactly(int(fields["content-length"])))
                assert problem["status"] == status
                code = problem["code"]
        assert status == STATUS[code]
        return Answer(code)


def talk(wire: WebSocket, command: dict[str, Any], text: str | None) -> Answer:
    error: dict[str, Any] | None = None
    try:
        if text is not None:
            answer = wire.ask(type="connect", token=text, session=SESSION)
            error = answer if answer["type"] == "error" else None
        if error is None:
            answer = ask(wire, command)
            error = answer if answer["type"] == "error" else None
        if error is None or error["code"] == "forbidden":
            assert wire.ask(type="ping")["type"] == "pong"  # it goes on
            return Answer(error["code"] if error else None)
        closing = wire.read()
        assert closing["type"] == "closing"
        assert closing["reason"]
    except Closed as exc:
        raise AssertionError("the connection was closed without a word") from exc
    code, _ = wire.read_close()
    assert closing["code"] == code
    return Answer(error["code"], code)


def ask(wire: WebSocket, command: dict[str, Any]) -> dict[str, Any]:
    """Say a command; return its answer, or the error that is about the connection itself."""
    with contextlib.suppress(OSError):  # it may be closed by now
        wire.say(ref="matrix", **command)
    while True:
        push = wire.read()
        if push.get("ref") == "matrix" or (push["type"] == "error" and "ref" not in push):
            return push


def check(server: Server, name: str, place: str, kind: str) -> None:
    door = DOORS[name]
    expected = ANSWERS[kind]
    if door.command is None:
        code = "unauthorized" if door.method == "HEAD" and STATUS[expected.code] == 401 else expected.code
        expected = Answer(code)
    assert knock(server, door, place, TOKENS[kind]()) == expected


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("name", DOORS)
def test_answer_is_the_same_at_every_door(
    guarded: Server, present: Callable[[Server], None], name: str, kind: str
) -> None:
    present(guarded)
    for place in PLACES[DOORS[name].command is not None]:
        check(guarded, name, place, kind)


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("foreign", ["uvicorn", "hypercorn"])
def test_answer_is_the_same_under_other_servers(
    guarded_servers: Callable[[str], Server], present: Callable[[Server], None], foreign: str, kind: str
) -> None:
    server = guarded_servers(foreign)
    present(server)
    for name, place in CASES:
        if place in ("header", "subprotocol", "connect"):
            check(server, name, place, kind)


def test_token_that_may_nothing_may_nothing(guarded: Server, present: Callable[[Server], None]) -> None:
    present(guarded)
    for name, door in DOORS.items():
        answer = knock(guarded, door, "header", token(can=None))
        assert answer == Answer("forbidden"), name


def test_first_place_wins(guarded: Server) -> None:
    """A token in a later place does not help one that is not accepted in an earlier."""
    bad, good = TOKENS["expired"](), token()
    with Http(guarded) as http:
        for query, headers in (
            (f"channel=a&token={good}", [bearer(bad)]),
            (f"channel=a&token={bad}", [("Cookie", f"tellwire_token={good}")]),
            ("channel=a", [bearer(bad), ("Cookie", f"tellwire_token={good}")]),
        ):
            assert http.get(f"/v1/messages?{query}", headers=headers).code == "expired"
    for wire in (
        WebSocket(guarded, headers=[bearer(bad)], token=good),
        WebSocket(guarded, query=f"token={bad}", token=good),
        WebSocket(guarded, token=bad, headers=[("Cookie", f"tellwire_token={good}")]),
    ):
        with wire:
            assert wire.read()["code"] == "expired"
            assert wire.read_close()[0] == 4002
