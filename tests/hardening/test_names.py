"""Names that are none, and those that are the server's own, at every door that takes one."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from tests.guarded import bearer, token
from tests.serving import Server
from tests.wires import Http, WebSocket

NAMES = [
    "a..b", "../a", "a/../../etc/passwd", "a\0", "\0", "a\nb", "a\r\nSet-Cookie: x=1", "a" * 10_240, "",
    "$presence:x", "$client:x", "$control:nodes", "$", "$presence:$client:x", "$PRESENCE:x",
]  # fmt: skip
IDS = [name[:20].encode("unicode_escape").decode() for name in NAMES]

COMMANDS: dict[str, dict[str, Any]] = {
    "subscribe": {"since": "earliest"},
    "unsubscribe": {},
    "publish": {"data": 1},
    "publish ephemeral": {"type": "publish", "data": 1, "ephemeral": True},
    "presence": {},
    "presence enter": {"type": "presence", "enter": True, "watch": True, "state": 1},
    "presence leave": {"type": "presence", "enter": False, "watch": False},
    "send": {"to": "somebody", "data": 1},
}
READS = [
    "/v1/messages?", "/v1/messages?wait=1&", "/v1/messages?before=now&", "/v1/events?", "/v1/stream?",
    "/v1/events?presence=enter&session=s&", "/v1/stream?presence=watch&", "/v1/messages?presence=enter&session=s&",
    "/v1/presence?", "/v1/messages?channel=fine&",
]  # fmt: skip
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/messages", {"data": 1}),
    ("/v1/messages", {"data": 1, "ephemeral": True}),
    ("/v1/presence", {"session": "s", "enter": True}),
    ("/v1/presence", {"session": "s", "enter": False}),
    ("/v1/send", {"session": "s", "to": "x", "data": 1}),
    ("/v1/admin/publish", {"data": 1}),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", NAMES, ids=IDS)
def test_name_is_refused_by_every_command(server: Server, name: str, packed: bool) -> None:
    with WebSocket(server, packed=packed) as wire:
        for command, fields in COMMANDS.items():
            error = wire.ask(**{"type": command, **fields, "channel": name})
            assert (error["type"], error["code"]) == ("error", "invalid_channel"), command
            assert len(error["message"]) < 400
        assert wire.ask(type="ping")["type"] == "pong"


@pytest.mark.parametrize("name", NAMES, ids=IDS)
def test_name_is_refused_by_every_request(server: Server, name: str) -> None:
    with Http(server) as http:
        for path in READS:
            # An empty parameter is a name that is empty, and no missing one.
            answer = http.get(f"{path}channel={quote(name, safe='')}")
            assert (answer.status, answer.code) == (400, "invalid_channel"), path
            assert len(answer.body) < 1000
        for path, fields in BODIES:
            body = {**fields, "channel": name}
            assert http.post(path, body).code == "invalid_channel", path
            headers = [("Content-Type", "application/msgpack")]
            packed = http.request("POST", path, headers=headers, body=msgspec.msgpack.encode(body))
            assert packed.code == "invalid_channel", path
        many = http.post("/v1/messages", [{"channel": name, "data": 1}, {"channel": "fine", "data": 1}]).json()
        assert many[0]["error"]["code"] == "invalid_channel"
        assert many[1]["position"]


@pytest.mark.parametrize("name", NAMES, ids=IDS)
def test_token_that_names_it_reads_nothing(guarded: Server, name: str) -> None:
    """Whoever made the token was wrong, so that nothing in it is believed."""
    text = token(channels=["fine", name])
    with Http(guarded) as http:
        assert http.get("/v1/messages", headers=[bearer(text)]).status in (400, 401)
    with WebSocket(guarded, token=text) as wire:
        code, reason = wire.read_close()
        assert code in (4500, 1008)
        assert reason


@pytest.mark.parametrize("name", ["$presence:x", "$client:x", "$control:nodes"])
def test_right_to_everything_is_none_to_what_is_the_servers_own(guarded: Server, name: str) -> None:
    text = token(can={"subscribe": ["*", name], "publish": ["*", name], "presence": ["*", name], "admin": ["*"]})
    with Http(guarded) as http, WebSocket(guarded, token=text) as wire:
        assert http.get(f"/v1/messages?channel={quote(name)}", headers=[bearer(text)]).code == "invalid_channel"
        forged = {"channel": name, "data": {"what": "revoke", "at": 2e9, "user": "ann"}}
        for path in ("/v1/messages", "/v1/admin/publish"):
            assert http.post(path, forged, headers=[bearer(text)]).code == "invalid_channel"
        assert wire.ask(type="subscribe", channel=name)["code"] == "invalid_channel"
        assert wire.ask(type="publish", **forged)["code"] == "invalid_channel"
        assert wire.ask(type="ping")["type"] == "pong"
        listed = http.get(f"/v1/admin/channels?prefix={quote(name[:2])}", headers=[bearer(text)]).json()
        assert listed == {"channels": [], "total": 0, "unanswered": []}


def test_name_in_the_signals_of_another_is_refused(server: Server) -> None:
    """The receiver is named by the client; what is no member's name leads to no log of another's."""
    with WebSocket(server) as wire:
        assert wire.ask(type="presence", channel="fine", enter=True)["type"] == "presence"
        for other in ("x", "$control:nodes", "nodes", "..", "a b", "é"):
            assert wire.ask(type="send", channel="fine", to=other, data=json.dumps({}))["code"] == "not_found"
        for other in ("", "\0", "a\nb", "x" * 65):
            assert wire.ask(type="send", channel="fine", to=other, data=1)["code"] == "bad_request"
