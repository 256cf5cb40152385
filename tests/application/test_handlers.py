"""Handlers of an application, asked over real wires: what they refuse, break, alter, and whom they see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tellwire import Client as Asking
from tellwire import ConnectRequest, Identity, Publishing, Tellwire
from tests.application.hosting import Client, Host, Socket

PREFIX = "/a/b/c"

FAILURES = {"refuse": "forbidden", "raise": "hook_failed", "cancel": "hook_failed", "hang": "timeout"}
"""What a client is told, by what the handler does."""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host(Path(__file__).parent / "asked_app.py") as host:
        yield host


@pytest.fixture
def client(host: Host) -> Iterator[Client]:
    with Client(host.url, PREFIX) as client:
        yield client


def both(client: Client, command: str, **fields: Any) -> list[Any]:
    """Carry out a command over WebSocket and over HTTP; return both codes, None where it was done."""
    with client.socket() as socket:
        codes = [socket.ask(command, **fields).get("code")]
        assert socket.ask("ping")["type"] == "pong", "the connection goes on"
    if command == "subscribe":
        codes += [client.get(path, **fields).json().get("code") for path in ("/v1/messages", "/v1/events")]
    else:
        path = {"publish": "/v1/messages", "call": "/v1/call"}[command]
        codes.append(client.post(path, fields).json().get("code"))
    return codes


@pytest.mark.parametrize("word", [*FAILURES, "nonsense", "stubborn"])
@pytest.mark.parametrize("hook", ["subscribe", "publish", "authorize", "call"])
def test_handler_that_does_not_answer_allows_nothing(client: Client, hook: str, word: str) -> None:
    code = {**FAILURES, "nonsense": "hook_failed", "stubborn": "timeout"}[word]
    if hook == "call":
        expected = None if word == "nonsense" else code  # any result is one
        assert set(both(client, "call", method="do", data=word)) == {expected}
    elif hook == "publish":
        assert set(both(client, "publish", channel=f"publish:{word}", data=1)) == {code}
        assert client.poll(f"publish:{word}") == []
    else:
        assert set(both(client, "subscribe", channel=f"{hook}:{word}")) == {code}


@pytest.mark.parametrize("word", [*FAILURES, "nonsense", "lines"])
def test_connect_handler_that_does_not_answer_lets_nobody_in(client: Client, word: str) -> None:
    code = {**FAILURES, "nonsense": "hook_failed", "lines": "hook_failed"}[word]
    answer = client.get("/v1/messages", channel="news", user=word)
    assert answer.json()["code"] == code
    assert "secret" not in answer.text
    assert client.get("/v1/events", channel="news", user=word).json()["code"] == code
    if word == "refuse":
        with client.socket(f"user={word}") as socket:
            assert socket.read("error")["code"] == code
            with pytest.raises(ConnectionClosed) as closed:
                socket.read()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4501
    else:
        with pytest.raises(InvalidStatus) as refused, client.socket(f"user={word}"):
            pass
        assert json.loads(refused.value.response.body or b"")["code"] == code


def test_secret_of_an_exception_is_not_told(host: Host, client: Client) -> None:
    for answer in (
        client.get("/v1/messages", channel="subscribe:raise"),
        client.post("/v1/messages", {"channel": "publish:raise", "data": 1}),
        client.post("/v1/call", {"method": "do", "data": "raise"}),
    ):
        assert answer.status_code == 502
        assert "secret" not in answer.text
        assert "ZeroDivision" not in answer.text
    assert "a secret" in host.log, "what failed is in the log"


@pytest.mark.parametrize(
    ("word", "code"),
    [("elsewhere", "hook_failed"), ("unsendable", "hook_failed"), ("large", "too_large"), ("reserved", "bad_request")],
)
def test_altered_message_is_checked_as_every_other(client: Client, word: str, code: str) -> None:
    assert set(both(client, "publish", channel=f"publish:{word}", data=1)) == {code}
    assert client.poll(f"publish:{word}") == []


def test_altered_message_is_what_everybody_gets(client: Client) -> None:
    with client.socket() as socket, client.events("publish:alter") as events:
        socket.ask("subscribe", channel="publish:alter")
        assert both(client, "publish", channel="publish:alter", data=[1, {"$bytes": "AA=="}]) == [None, None]
        for _ in range(2):
            message = socket.read()
            assert message["data"] == {"was": [1, {"$bytes": "AA=="}], "by": "ann"}
            assert (message["event"], message["key"]) == ("altered", "k")
            assert next(events).event == "altered"
    assert len(client.poll("publish:alter")) == 2


def test_publishes_keep_their_order_while_the_handler_takes_its_time(client: Client) -> None:
    sent = [number if number % 5 else "no" for number in range(1, 41)]
    expected = [[value] for value in sent if value != "no"]
    with client.socket() as socket:
        socket.ask("subscribe", channel="publish:later")
        for value in sent:
            socket.say("publish", channel="publish:later", data=value)
        assert [socket.read()["data"] for _ in expected] == expected
    messages = [{"channel": "publish:later", "data": value} for value in sent]
    answers = client.post("/v1/messages", messages).json()
    refused = [answer["error"]["code"] if "error" in answer else None for answer in answers]
    assert refused == ["forbidden" if value == "no" else None for value in sent]
    assert client.poll("publish:later") == expected * 2


def test_publishes_behind_one_that_is_to_be_repeated_do_not_overtake_it(client: Client) -> None:
    sent = [("news", 1), ("publish:refuse", 2), ("publish:hang", 3), ("news", 4), ("publish:refuse", 5), ("news", 6)]
    expected = [None, "forbidden", *["timeout"] * 4]
    messages = [{"channel": channel, "data": data} for channel, data in sent]
    answers = client.post("/v1/messages", messages).json()
    assert [answer.get("error", {}).get("code") for answer in answers] == expected
    with client.socket() as socket:
        socket.ask("connect", in_order=True)
        for place, message in enumerate(messages):
            socket.say("publish", ref=f"p{place}", **message)
        assert [socket.answer(f"p{place}").get("code") for place in range(len(sent))] == expected
        assert socket.ask("publish", channel="news", data=7)["code"] == "timeout", "it may have been on its way"
        assert socket.ask("publish", channel="news", data=8, again=True)["type"] == "published"
        assert socket.ask("publish", channel="news", data=9)["type"] == "published"
    with client.socket() as socket:
        for place, message in enumerate(messages):
            socket.say("publish", ref=f"p{place}", **message)
        codes = [socket.answer(f"p{place}").get("code") for place in range(len(sent))]
        assert codes == [None, "forbidden", "timeout", None, "forbidden", None], "who does not ask is not held up"


def test_call_returns_what_the_handler_does(client: Client) -> None:
    value = {"a": [1, None, "ä"]}
    assert client.post("/v1/call", {"method": "echo", "data": value}).json() == {"data": value}
    with client.socket() as socket:
        assert socket.ask("call", method="echo", data=value)["data"] == value
        assert socket.ask("call", method="do", data="bytes")["data"] == {"bytes": {"$bytes": "AA=="}}
        assert socket.ask("call", method="do", data="unsendable")["code"] == "hook_failed"
        assert socket.ask("call", method="nothing")["code"] == "not_found"


def test_handlers_see_the_same_client_on_every_transport(host: Host, client: Client) -> None:
    """Who keeps its session is the same client everywhere; what it says of itself is what `on_connect` said."""
    with client.socket("user=eve") as socket:
        name = socket.ask("connect", session="of eve")["client"]
        socket.ask("subscribe", channel="news")
        socket.ask("publish", channel="news", data=1)
        socket.ask("call", method="do", data="")
    who = {"user": "eve", "session": "of eve"}
    with client.events("news", **who):
        pass
    client.get("/v1/messages", channel="news", **who)
    client.get("/v1/messages", channel="news", since=0, wait=1, **who)
    assert client.http.post(f"{PREFIX}/v1/messages?user=eve", json={"channel": "news", "data": 1}).status_code == 200
    assert client.http.post(f"{PREFIX}/v1/call?user=eve", json={"method": "do", "data": ""}).status_code == 200
    for _ in range(1000):
        asked = [tuple(map(str, line)) for line in client.http.get("/a/asked").json() if "eve" in line]
        if sum(line[0] == "disconnect" for line in asked) >= 2:
            break
    assert {line[1:3] for line in asked} == {("eve", "{'name': 'Ann'}")}
    transports = {(line[0], line[3]) for line in asked}
    assert transports >= {
        ("subscribe", "websocket"), ("publish", "websocket"), ("call", "websocket"), ("disconnect", "websocket"),
        ("subscribe", "sse"), ("disconnect", "sse"),
        ("subscribe", "poll"), ("publish", "publish"), ("call", "call"),
    }  # fmt: skip
    assert {line[4] for line in asked if line[0] == "subscribe"} == {name}
    assert {line[4] for line in asked if line[3] in ("websocket", "sse")} == {name}


def test_everything_works_deep_under_a_prefix(host: Host, client: Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    for asset in ("console/app.js", "console/app.css", "console/mark.svg", "console/lanes/websocket.js"):
        assert asset.rpartition("/")[2] in page.text or "lanes" in asset
        assert client.get(f"/{asset}").status_code == 200
    assert 'href="/' not in page.text
    assert 'src="/' not in page.text
    redirected = client.http.get(PREFIX)
    assert redirected.status_code == 307
    assert redirected.headers["location"].endswith(f"{PREFIX}/")
    assert client.get("/openapi.json").json()["servers"] == [{"url": PREFIX}]
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").json() == {"ready": True, "draining": False}
    assert client.get("/v1/ws").status_code == 426
    assert client.get("/v1/messages/").status_code == 400, "as without the slash: no channel is named"
    assert client.get("/v1/nowhere").json()["code"] == "not_found"
    assert client.http.get("/v1/messages?channel=news").status_code == 404
    allowed = client.http.options(f"{PREFIX}/v1/messages", headers={"Origin": "https://evil.example"})
    assert allowed.json()["code"] == "forbidden_origin"
    assert client.http.options(f"{PREFIX}/v1/messages", headers={"Origin": host.url}).status_code == 204


# What the application says of its clients


def order(client: Client, what: str, /, **fields: Any) -> Any:
    answer = client.http.post(f"/a/order/{what}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def read_close(socket: Socket) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        socket.read()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


@pytest.mark.parametrize(
    ("what", "fields", "code"),
    [
        ("disconnect", {"reason": "moved"}, 1001),
        ("disconnect", {"reconnect": False}, 4501),
        ("revoke", {}, 4502),
    ],
)
def test_user_is_sent_away_on_every_connection(client: Client, what: str, fields: dict[str, Any], code: int) -> None:
    with client.socket("user=gus") as one, client.socket("user=gus") as two, client.socket("user=ann") as other:
        for socket in (one, two, other):
            socket.ask("ping")
        order(client, what, user="gus", **fields)
        assert [read_close(one), read_close(two)] == [code, code]
        assert other.ask("ping")["type"] == "pong"
    with client.socket("user=gus") as again:
        assert again.ask("ping")["type"] == "pong", "the application says anew that it is this user"


def test_client_is_sent_away_alone(client: Client) -> None:
    with client.socket("user=gus") as one, client.socket("user=gus") as other:
        order(client, "disconnect", client=one.ask("connect")["client"])
        assert read_close(one) == 1001
        assert other.ask("ping")["type"] == "pong"


def test_application_sees_who_is_here(client: Client) -> None:
    assert order(client, "presence", channel="here") == {"members": [], "clients": 0, "users": 0}
    with client.socket("user=eve") as socket:
        name = socket.ask("connect", session="of eve, here")["client"]
        socket.ask("presence", channel="here", enter=True, state={"typing": True})
        client.post("/v1/presence", {"channel": "here", "session": "of ann, here", "enter": True})
        occupancy = order(client, "presence", channel="here")
        assert (occupancy["clients"], occupancy["users"]) == (2, 2)
        assert {
            "client": name, "user": "eve", "info": {"name": "Ann"}, "state": {"typing": True},
        } in occupancy["members"]  # fmt: skip
        assert [member["state"] for member in occupancy["members"] if member["user"] == "ann"] == [None]


# Registering


def test_each_question_is_registered_once() -> None:
    tellwire = Tellwire()

    @tellwire.on_connect
    def who(request: ConnectRequest) -> None:
        return None

    with pytest.raises(RuntimeError, match=r"on_connect is registered already: it is .*who, and there can be one"):
        tellwire.on_connect(who)
    tellwire.rpc("time")(lambda client, data: 0)
    with pytest.raises(RuntimeError, match="the method 'time' is registered already"):
        tellwire.rpc("time")(lambda client, data: 1)
    assert who(ConnectRequest()) is None, "a decorated function is still itself"


def test_wrong_function_is_refused_when_it_is_registered() -> None:
    tellwire = Tellwire()
    with pytest.raises(TypeError, match=r"on_connect is called with \(request\); .* takes \(\)"):
        tellwire.on_connect(lambda: None)  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"authorize is called with \(client, operation, name\)"):
        tellwire.authorize(lambda client: True)  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"on_publish takes a function .* not a int"):
        tellwire.on_publish(3)  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"the method 'x' is called with \(client, data\)"):
        tellwire.rpc("x")(lambda client: 0)  # type: ignore[type-var]
    for name in ("", "x" * 129, "a\nb"):
        with pytest.raises(ValueError, match="a method's name has 1 to 128"):
            tellwire.rpc(name)(lambda client, data: 0)


def test_handlers_come_before_the_start() -> None:
    async def late() -> None:
        tellwire = Tellwire(open=True)
        async with tellwire.lifespan():
            with pytest.raises(RuntimeError, match="on_publish comes too late"):
                tellwire.on_publish(lambda client, publishing: None)
            with pytest.raises(RuntimeError, match="the method 'x' comes too late"):
                tellwire.rpc("x")(lambda client, data: 0)

    asyncio.run(late())


def test_callable_objects_and_partial_functions_are_handlers() -> None:
    class Gate:
        def __call__(self, request: ConnectRequest) -> Identity:
            return Identity(user="ann")

        async def let_in(self, client: Asking, publishing: Publishing) -> None: ...

    tellwire = Tellwire()
    tellwire.on_connect(Gate())
    tellwire.on_publish(Gate().let_in)
