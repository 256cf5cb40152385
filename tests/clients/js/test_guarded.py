"""The JavaScript client where a token is needed: who may, who is here, direct messages and calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients.js.driver import ClientError, Driver
from tests.guarded import GUARDED, token
from tests.serving import Server

TRANSPORTS = ("websocket", "sse", "longpoll", "poll")

Connect = Callable[..., Driver]

PATIENT: dict[str, Any] = {
    **GUARDED,
    "limits": {**GUARDED["limits"], "presence_grace_s": 30.0, "presence_lease_s": 60.0, "call_timeout_s": 60.0},
}
"""A server that takes nobody for gone who stands still for a while: here they leave when they say so."""


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    server = Server(**PATIENT)
    yield server
    server.close()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def come(guarded: Server, connect: Connect) -> Connect:
    """Connect somebody by name to the shared server that asks for tokens."""

    def start(user: str, transport: str, **claims: Any) -> Driver:
        options = {"transports": [transport], "pollMs": 50, "longPollMs": 2000}
        client = connect(url(guarded), token=token(user, **claims), **options)
        client.wait_connected(transport)  # without a connection, who enters is in with the next one only
        return client

    return start


def names(members: list[dict[str, Any]]) -> dict[str, Any]:
    return {member["user"]: member.get("state") for member in members}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_members_come_change_and_go(come: Connect, channel: str, transport: str) -> None:
    ann, bob = come("ann", "websocket"), come("bob", transport)
    ann.do("enter", channel=channel, state={"mood": 1})
    bob.do("watch", channel=channel)
    assert names(bob.wait_for("members")["members"]) == {"ann": {"mood": 1}}
    bob.do("enter", channel=channel, state="here")
    joined = ann.wait_for("join", lambda event: event["member"]["user"] == "bob")
    assert joined["member"]["state"] == "here"
    ann.do("enter", channel=channel, state={"mood": 2})
    assert bob.wait_for("update", lambda event: event["member"]["user"] == "ann")["member"]["state"] == {"mood": 2}
    bob.do("enter", channel=channel, state="away")
    ann.wait_for("update", lambda event: event["member"].get("state") == "away")
    ann.do("leave", channel=channel)
    bob.wait_for("leave", lambda event: event["member"]["user"] == "ann")
    ann.do("enter", channel=channel)
    bob.wait_for("join", lambda event: event["member"]["user"] == "ann")
    bob.do("leave", channel=channel)
    ann.wait_for("leave", lambda event: event["member"]["user"] == "bob")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_signals_come_to_one_client(come: Connect, channel: str, transport: str) -> None:
    ann, bob = come("ann", "websocket"), come("bob", transport)
    # Bob also reads a channel in which he is not.
    bob.do("subscribe", channel=f"{channel}-other")
    bob.do("subscribe", channel=channel)
    for each in (ann, bob):
        each.do("enter", channel=channel)
    to = {user: each.do("client") for user, each in (("ann", ann), ("bob", bob))}
    for number in range(5):
        assert ann.do("send", channel=channel, to=to["bob"], data=number, event="offer", id=f"n{number}")["position"]
    found = [bob.wait_for("signal") for _ in range(5)]
    assert [(each["data"], each["event"], each["from"]) for each in found] == [
        (number, "offer", to["ann"]) for number in range(5)
    ]
    assert ann.do("send", channel=channel, to=to["bob"], data="again", id="n4")["duplicate"] is True
    bob.do("send", channel=channel, to=to["ann"], data="back")
    assert ann.wait_for("signal")["data"] == "back"
    ann.do("publish", channel=f"{channel}-other", data="to all")
    assert bob.wait_messages(f"{channel}-other", 1) == ["to all"]
    with pytest.raises(ClientError, match="not_found"):
        ann.do("send", channel=channel, to="nobody", data=1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_calls_are_answered(come: Connect, transport: str) -> None:
    client = come("ann", transport)
    assert client.do("call", method="add", data=[1, 2, 3]) == 6
    assert client.do("call", method="who")["user"] == "ann"
    for method, code in (("refuse", "forbidden"), ("fail", "hook_failed"), ("nothing", "not_found")):
        with pytest.raises(ClientError, match=code):
            client.do("call", method=method, data=None)
    with pytest.raises(ClientError, match="timeout"):
        client.do("call", method="hang", timeoutMs=200)
    assert client.do("call", method="echo", data={"a": [None]}) == {"a": [None]}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_who_may_not_is_told_and_the_rest_goes_on(come: Connect, channel: str, transport: str) -> None:
    rights = {"subscribe": [f"{channel}-*"], "publish": [f"{channel}-a"]}
    client = come("ann", transport, can=rights)
    for name in ("a", "b"):
        client.do("subscribe", channel=f"{channel}-{name}")
    for what in ("subscribe", "history", "publish"):
        with pytest.raises(ClientError, match="forbidden"):
            client.do(what, channel="secret", **({"data": 1} if what == "publish" else {}))
    with pytest.raises(ClientError, match="forbidden"):
        client.do("enter", channel=channel)
    with pytest.raises(ClientError, match="forbidden"):
        client.do("call", method="add", data=[])
    client.do("publish", channel=f"{channel}-a", data="still here")
    assert client.wait_messages(f"{channel}-a", 1) == ["still here"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("bad", ["no token", "of another key", "expired", None])
def test_wrong_credentials_are_the_end_at_once(
    guarded: Server, connect: Connect, transport: str, bad: str | None
) -> None:
    tokens = {"of another key": token(key="another secret that is long enough"), "expired": token(expires_in_s=-5.0)}
    text = tokens.get(bad, bad) if bad is not None else None
    others = [name for name in TRANSPORTS if name != transport]
    options = {"token": text} if text is not None else {}
    client = connect(url(guarded), transports=[transport, *others], **options)
    client.begin("subscribe", channel="a")
    event = client.wait_for("state", lambda event: event["state"] != "connecting")
    assert (event["state"], event["code"]) == ("failed", "unauthorized")
    with pytest.raises(ClientError, match="unauthorized"):
        client.do("publish", channel="a", data=1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_fresh_token_is_fetched_before_and_after_the_end_of_one(
    guarded: Server, connect: Connect, channel: str, transport: str
) -> None:
    # The first is over already; the second is refreshed, or is over, while messages come.
    tokens = [token(expires_in_s=-5.0), token(expires_in_s=2.5), token()]
    client = connect(url(guarded), tokens=tokens, transports=[transport], pollMs=50)
    client.do("subscribe", channel=channel)
    everybody = connect(url(guarded), token=token("bob"))
    for number in range(40):
        everybody.do("publish", channel=channel, data=number)
        client.wait_messages(channel, number + 1)
    client.wait_connected(transport)
    assert client.messages[channel] == list(range(40))


def test_keeping_the_session_keeps_the_client_id(guarded: Server, connect: Connect, channel: str) -> None:
    ids = set()
    for transport in TRANSPORTS:
        client = connect(url(guarded), token=token("ann"), session="the secret of ann", transports=[transport])
        client.wait_connected(transport)
        client.do("enter", channel=channel)
        ids.add(client.do("client"))
        client.close()
    assert len(ids) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_presence_and_signals_outlive_the_server(
    start_server: Callable[..., Server], connect: Connect, channel: str, tmp_path: Any, transport: str
) -> None:
    settings = {**PATIENT, "server": {"broker": f"sqlite:///{tmp_path}/log.db"}}
    server = start_server(**settings)
    ann = connect(url(server), token=token("ann"), transports=["websocket"])
    bob = connect(url(server), token=token("bob"), transports=[transport], pollMs=50)
    ann.wait_connected("websocket")
    bob.wait_connected(transport)
    ann.do("enter", channel=channel, state="a")
    bob.do("enter", channel=channel, state="b")
    ann.wait_for("members", lambda event: len(event["members"]) == 2)
    to = bob.do("client")
    ann.do("send", channel=channel, to=to, data="before")
    assert bob.wait_for("signal")["data"] == "before"
    server.kill()
    server.wait()
    # One that polls would else not notice, if it was not running meanwhile.
    for each in (ann, bob):
        each.wait_for("state", lambda event: event["state"] == "disconnected")
    server = start_server(**{**settings, "server": {**settings["server"], "port": server.port}})
    ann.wait_connected("websocket")
    bob.wait_connected(transport)
    both = {"ann": "a", "bob": "b"}
    ann.wait_for("members", lambda event: names(event["members"]) == both)
    bob.wait_for("members", lambda event: names(event["members"]) == both)
    ann.do("send", channel=channel, to=to, data="after")
    assert bob.wait_for("signal")["data"] == "after"
