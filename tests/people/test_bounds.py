"""How much is too much, told alike on every transport, and nobody else's affair."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.guarded import SECRET, bearer, someone, token
from tests.readers import PUSHED, READERS, target
from tests.serving import Server
from tests.wires import Http, Refused, WebSocket

AUTH = {"token_key": SECRET, "token_leeway_s": 0.0}


@pytest.mark.parametrize("kind", ["direct", "hypercorn"])
def test_publishing_past_the_rate(start_server: Callable[..., Server], kind: str, channel: str) -> None:
    server = start_server(kind, auth=AUTH, limits={"publishes_per_s": 2})
    eager, honest = token("eager"), token("honest")
    message = {"channel": channel, "data": 1, "ephemeral": True}
    with Http(server) as http:
        while (answer := http.post("/v1/messages", message, headers=[bearer(eager)])).status == 200:
            pass
        assert (answer.status, answer.code) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1
        assert 0 < answer.json()["retry_after_ms"] <= 1000
        listed = http.post("/v1/messages", [message] * 20, headers=[bearer(eager)]).json()
        refused = [item["error"] for item in listed if "error" in item]
        assert len(refused) >= 10
        assert all(error["code"] == "rate_limited" and 0 < error["retry_after_ms"] <= 1000 for error in refused)
        # It is the user that is counted, so another one on the same connection is not concerned.
        assert http.post("/v1/messages", message, headers=[bearer(honest)]).status == 200
    for packed in (False, True):
        with WebSocket(server, packed=packed, token=eager) as wire, WebSocket(server, token=honest) as other:
            while (push := wire.ask(type="publish", **message))["type"] == "published":
                pass
            assert push["code"] == "rate_limited"
            assert 0 < push["retry_after_ms"] <= 1000
            assert wire.ask(type="ping")["type"] == "pong"
            assert other.ask(type="publish", **message)["type"] == "published"


@pytest.mark.parametrize("kind", ["direct", "hypercorn"])
def test_channels_of_one_connection(start_server: Callable[..., Server], kind: str, channel: str) -> None:
    """What is watched counts, and the inbox of a member."""
    server = start_server(kind, auth=AUTH, limits={"channels_per_connection": 4})
    names = [f"{channel}/{number}" for number in range(5)]
    text = token()
    with Http(server) as http:
        for path in ("/v1/messages", "/v1/events", "/v1/stream"):
            for wait in (None, 1):
                asked: list[dict[str, Any]] = [{}, {"presence": "watch"}, {"presence": "enter", "session": "s"}]
                for most, fields in zip((4, 2, 1), asked, strict=True):
                    fields = {**fields, "token": text, "wait": wait}
                    assert http.get(target(path, tuple(names[: most + 1]), fields)).code == "too_many_channels"
    for packed in (False, True):
        names.append(f"{channel}/{packed}")
        with WebSocket(server, packed=packed, token=text) as wire:
            for name in names[:3]:
                assert wire.ask(type="subscribe", channel=name)["type"] == "subscribed"
            assert wire.ask(type="presence", channel=names[0], watch=True)["type"] == "presence"
            for command in (
                {"type": "subscribe", "channel": names[-1]},
                {"type": "presence", "channel": names[-1], "watch": True},
                {"type": "presence", "channel": names[-1], "enter": True},
            ):
                error = wire.ask(**command)
                assert (error["type"], error["code"]) == ("error", "too_many_channels")
            assert wire.ask(type="presence", channel=names[-1])["clients"] == 0  # none of that was half done
            assert wire.ask(type="unsubscribe", channel=names[2])["type"] == "unsubscribed"
            assert wire.ask(type="presence", channel=names[-1], enter=True)["type"] == "presence"


@pytest.mark.parametrize("kind", ["direct", "hypercorn"])
def test_connections_of_one_user(start_server: Callable[..., Server], kind: str, channel: str) -> None:
    server = start_server(kind, auth=AUTH, limits={"connections_per_user": len(PUSHED)})
    text = token("ann")
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(READERS[name](server, channel, token=text)) for name in PUSHED]
        http = stack.enter_context(Http(server))
        for path, wait in (("/v1/events", None), ("/v1/stream", None), ("/v1/messages", 30)):
            answer = http.get(target(path, (channel,), {"token": text, "wait": wait}))
            assert (answer.status, answer.code) == (503, "too_many_connections")
        with pytest.raises((Refused, AssertionError)), WebSocket(server, token=text):
            raise AssertionError
        with WebSocket(server) as wire:  # it says only here who it is
            assert wire.ask(type="connect", token=text)["code"] == "too_many_connections"
            assert wire.read_close()[0] == 1013
        # Requests are no connections; and another user has a count of its own.
        message = {"channel": channel, "data": 1}
        assert http.post("/v1/messages", message, headers=[bearer(text)]).status == 200
        other = stack.enter_context(READERS["sse"](server, channel, token=token("bob"), since="earliest"))
        for reader in (*readers, other):
            assert reader.read_data(1) == [1]
        readers[0].close()  # who goes makes room
        with Http(server) as again:
            while (
                answer := again.get(target("/v1/messages", (channel,), {"token": text, "wait": 0.01}))
            ).status != 200:
                assert answer.code == "too_many_connections"


# Scripts


def script(server: Server, query: str, **fields: str) -> tuple[str, str]:
    """Load a script; return the function that it calls, and what with."""
    with Http(server) as http:
        answer = http.get(f"/v1/messages?{query}", headers=list(fields.items()))
        assert answer.status == 200, answer
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        text = answer.body.decode()
    assert text.startswith("/**/")
    assert text.endswith(");")
    name, _, argument = text[4:-2].partition("(")
    return name, argument


def test_script_reads(guarded: Server, channel: str) -> None:
    with WebSocket(guarded, token=token()) as wire:
        wire.ask(type="publish", channel=channel, data="</script>\u2028\u2029&")
    for callback in ("f", "$", "_x1", "jQuery.cb_1", "a" * 64):
        name, argument = script(guarded, f"channel={channel}&last=5&callback={callback}&token={token()}")
        assert name == callback
        assert "\u2028" not in argument
        assert "\u2029" not in argument
        assert json.loads(argument)["messages"][0]["data"] == "</script>\u2028\u2029&"


def test_script_waits_for_what_comes(guarded: Server, channel: str) -> None:
    with Http(guarded) as http, WebSocket(guarded, token=token()) as wire:
        http.send_request("GET", f"/v1/messages?channel={channel}&wait=30&callback=f&token={token()}")
        while not wire.is_silent(0.01) or http.is_silent(0.01):
            assert wire.ask(type="publish", channel=channel, data=1)["type"] == "published"
        answer = http.read_response()
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.body.startswith(b'/**/f({"messages":[{"type":"message"')


def test_script_of_a_poll_that_expires(guarded: Server, channel: str) -> None:
    name, argument = script(guarded, f"channel={channel}&wait=30&callback=f&token={token(expires_in_s=1)}")
    assert (name, json.loads(argument)["code"]) == ("f", "expired")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("channel=a", "unauthorized"),
        ("channel=a&token=nothing", "unauthorized"),
        (f"channel=a&token={token(expires_in_s=-1)}", "expired"),
        (f"channel=a&token={token(can={})}", "forbidden"),
        (f"channel=a+b&token={token()}", "invalid_channel"),
        (f"channel=a&since=x&token={token()}", "invalid_cursor"),
        (f"token={token()}", "bad_request"),
        (f"channel=a&wait=x&token={token()}", "bad_request"),
    ],
)
def test_error_is_told_in_the_script(guarded: Server, query: str, code: str) -> None:
    name, argument = script(guarded, f"{query}&callback=f")
    problem = json.loads(argument)
    assert (name, problem["code"]) == ("f", code)
    assert problem["status"] >= 400


@pytest.mark.parametrize("callback", [
    "alert(1)//", "a;b", "a+b", "a%0Ab", "%3Cscript%3E", "a..b", ".a", "a.", "1a", "a%5B0%5D", "%E2%80%A8", "a%00",
    "a" * 65, "a-b", "%C3%A4", "f%28", "f%0A", "f%20", "a%2F**%2F",
])  # fmt: skip
def test_callback_that_is_no_name_is_refused_as_a_problem(guarded: Server, callback: str) -> None:
    with Http(guarded) as http:
        for query in (f"channel=a&token={token()}", "channel=a"):
            answer = http.get(f"/v1/messages?{query}&callback={callback}")
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.status in (400, 401)
            assert b"f(" not in answer.body[:2]


def test_script_may_not_use_cookies(guarded: Server) -> None:
    _, argument = script(guarded, "channel=a&callback=f", Cookie=f"tellwire_token={token()}")
    assert json.loads(argument)["code"] == "unauthorized"


def test_no_scripts_unless_the_settings_say_so(start_server: Callable[..., Server]) -> None:
    server = start_server(auth=AUTH)
    with Http(server) as http:
        answer = http.get(f"/v1/messages?channel=a&callback=f&token={token(someone())}")
        assert (answer.status, answer.code) == (400, "bad_request")
        assert http.get("/v1/messages?channel=a&callback=f").code == "bad_request"
