"""A token's end in mid-connection, and going on with a fresh one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.guarded import ALL, bearer, endings, someone, token
from tests.readers import PUSHED, READERS, target
from tests.serving import Server
from tests.wires import Closed, Http, WebSocket


def read_end(wire: WebSocket, code: int) -> None:
    """Read that the connection is closed, and with which code."""
    closing = wire.read()
    assert (closing["type"], closing["code"]) == ("closing", code), closing
    assert closing["reason"]
    assert wire.read_close()[0] == code


@pytest.mark.parametrize("kind", ["direct", "uvicorn", "hypercorn"])
def test_connection_ends_with_its_token(guarded_servers: Callable[[str], Server], kind: str, channel: str) -> None:
    server = guarded_servers(kind)
    for ending in endings():
        with ending as text, contextlib.ExitStack() as entering:
            readers = [entering.enter_context(READERS[name].open(server, channel, token=text)) for name in PUSHED]
            stack = entering.pop_all()
            break
    with stack:
        lasting = stack.enter_context(READERS["sse"](server, channel, token=token(expires_in_s=None)))
        poll = stack.enter_context(Http(server))
        poll.send_request("GET", target("/v1/messages", (channel,), {"token": text, "wait": 30}))
        for reader in readers:
            closing = reader.read()
            assert (closing["type"], closing["code"]) == ("closing", 4002)
            with pytest.raises(Closed):
                reader.read()
        answer = poll.read_response()
        assert (answer.status, answer.code) == (401, "expired")
        for path in ("/v1/messages", "/v1/events", "/v1/stream"):
            assert poll.get(target(path, (channel,), {"token": text})).code == "expired"
        with WebSocket(server, token=text) as wire:
            assert wire.read()["code"] == "expired"
            read_end(wire, 4002)
        # The others do not notice.
        assert poll.post("/v1/messages", {"channel": channel, "data": 1}, headers=[bearer(token())]).status == 200
        assert lasting.read_data(1) == [1]


def test_event_stream_says_closing_as_an_event(guarded: Server, channel: str) -> None:
    for ending in endings():
        with ending as text, contextlib.ExitStack() as entering:
            http = entering.enter_context(Http(guarded))
            http.send_request("GET", target("/v1/events", (channel,), {"token": text}))
            assert http.read_head()[0] == 200
            stack = entering.pop_all()
            break
    with stack:
        http.read_until(b"event: closing\ndata: ")
        assert b'"code":4002' in http.read_until(b"\n")


def test_connected_says_how_long_it_is_good_for(guarded: Server) -> None:
    with WebSocket(guarded, token=token(expires_in_s=600)) as wire:
        assert 540_000 < wire.ask(type="connect")["expires_in_ms"] <= 600_000
    with WebSocket(guarded, token=token(expires_in_s=None)) as wire:
        assert "expires_in_ms" not in wire.ask(type="connect")


@pytest.mark.parametrize("kind", ["direct", "hypercorn"])
@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
def test_refreshed_connection_outlives_its_first_token(
    guarded_servers: Callable[[str], Server], kind: str, packed: bool, channel: str
) -> None:
    server = guarded_servers(kind)
    user = someone()
    for ending in endings(user):
        with ending as text, contextlib.ExitStack() as entering:
            wire = entering.enter_context(WebSocket(server, packed=packed, token=text))
            assert wire.ask(type="subscribe", channel=channel)["type"] == "subscribed"
            refreshed = wire.ask(type="refresh", token=token(user, expires_in_s=900))
            assert refreshed["type"] == "refreshed"
            stack = entering.pop_all()
            break
    with stack:
        assert 840_000 < refreshed["expires_in_ms"] <= 900_000
        assert wire.ask(type="refresh", token=token(user, expires_in_s=None))["expires_in_ms"] is None
        for later in endings(user, seconds=max(0.0, ending.over_at - time.time()) + 0.2):
            with later as text, contextlib.ExitStack() as entering:
                witness = entering.enter_context(WebSocket(server, token=text))
                assert witness.ask(type="connect")["type"] == "connected"
                stack.push(entering.pop_all())
                break
        read_end(witness, 4002)
        assert wire.ask(type="publish", channel=channel, data=1)["type"] == "published"
        assert wire.read()["data"] == 1


def test_refresh_may_shorten(guarded: Server) -> None:
    user = someone()
    with WebSocket(guarded, token=token(user, expires_in_s=900)) as wire:
        for ending in endings(user):
            with ending as text:
                assert wire.ask(type="refresh", token=text)["type"] == "refreshed"
                break
        read_end(wire, 4002)


@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
def test_refresh_that_is_refused_leaves_the_connection_as_it_was(guarded: Server, packed: bool, channel: str) -> None:
    user = someone()
    bad: dict[str, dict[str, Any]] = {
        "bad_request": {"token": token(someone())},
        "unauthorized": {"token": "nothing"},
        "expired": {"token": token(user, expires_in_s=-1)},
    }
    for ending in endings(user):
        with ending as text, contextlib.ExitStack() as entering:
            wire = entering.enter_context(WebSocket(guarded, packed=packed, token=text))
            wire.ask(type="subscribe", channel=channel)
            for code, fields in bad.items():
                error = wire.ask(type="refresh", **fields)
                assert (error["type"], error["code"]) == ("error", code)
            for fields in ({}, {"token": 1}, {"token": None}, {"token": token(None)}, {"token": ""}):
                assert wire.ask(type="refresh", **fields)["type"] == "error"
            wire.ask(type="publish", channel=channel, data=1)
            assert wire.read()["data"] == 1
            stack = entering.pop_all()
            break
    with stack:
        read_end(wire, 4002)  # none of these has made it last longer


@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
def test_refresh_takes_away_what_the_fresh_token_does_not_allow(guarded: Server, packed: bool, channel: str) -> None:
    user, kept = someone(), f"{channel}/kept"
    with WebSocket(guarded, packed=packed, token=token(user)) as wire:
        for name in (channel, kept):
            wire.ask(type="subscribe", channel=name)
        wire.say(ref=7, type="refresh", token=token(user, can={**ALL, "subscribe": [kept], "publish": [channel]}))
        assert wire.read() == {"type": "unsubscribed", "channel": channel, "code": "forbidden"}
        refreshed = wire.read()
        assert (refreshed["type"], refreshed["ref"]) == ("refreshed", 7)
        assert wire.ask(type="publish", channel=channel, data="not for me")["type"] == "published"
        assert wire.ask(type="publish", channel=kept, data=1)["code"] == "forbidden"
        with WebSocket(guarded, token=token()) as other:
            other.ask(type="publish", channel=kept, data="for me")
        assert wire.read()["data"] == "for me"
        assert wire.ask(type="subscribe", channel=channel)["code"] == "forbidden"
        # And a wider one gives it back.
        assert wire.ask(type="refresh", token=token(user))["type"] == "refreshed"
        assert wire.ask(type="subscribe", channel=channel, since="earliest")["type"] == "subscribed"
        assert wire.read()["data"] == "not for me"


def test_refresh_takes_away_presence(guarded: Server, channel: str) -> None:
    user = someone()
    watcher = WebSocket(guarded, token=token())
    with watcher, WebSocket(guarded, token=token(user, info={"name": "Ann"})) as wire:
        watcher.ask(type="presence", channel=channel, watch=True)
        client = wire.ask(type="presence", channel=channel, watch=True, enter=True)["client"]
        assert watcher.read()["type"] == wire.read()["type"] == "join"
        wire.say(ref=7, type="refresh", token=token(user, can={**ALL, "presence": []}))
        ended = wire.read()
        assert ended == {"type": "unsubscribed", "channel": f"$presence:{channel}", "code": "forbidden"}
        assert wire.read()["type"] == "refreshed"
        left = watcher.read()
        assert (left["type"], left["member"]) == ("leave", {"client": client, "user": user})
        assert watcher.ask(type="presence", channel=channel, enter=True)["clients"] == 1
        assert wire.ask(type="ping")["type"] == "pong"  # and nothing of who came came before it
        assert wire.is_silent()


def test_refresh_is_for_connections_with_a_token(server: Server) -> None:
    """On an open server there is nothing to refresh; whatever is said there changes nothing."""
    with WebSocket(server) as wire:
        assert wire.ask(type="refresh", token="anything")["expires_in_ms"] is None
