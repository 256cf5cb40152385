"""The examples of examples/embedding, each under servers of other people, with clients of every kind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.application.hosting import Client, Host
from tests.serving import ROOT

EXAMPLES = ROOT / "examples" / "embedding"
FILES = sorted(EXAMPLES.glob("*.py"))
LINES_MAX = 40


@pytest.fixture(params=["uvicorn", "hypercorn"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Return a server with the example that the test is named after."""
    name = request.function.__name__.removeprefix("test_").partition("_")[0]
    with Host(EXAMPLES / f"{name}_app.py", request.param) as host:
        yield host
        assert host.stop() in (0, -15)
        assert "Traceback" not in host.log


def check_news(client: Client, post: str, event: str = "message") -> None:
    """Read the channel ``news`` in three ways while something is posted to the application's own `post`."""
    with client.socket() as socket, client.events("news") as events:
        assert socket.ask("subscribe", channel="news")["type"] == "subscribed"
        answer = client.http.post(post)
        assert answer.status_code in (200, 201), answer.text
        position = answer.text.strip('"')
        message = socket.read()
        assert message["data"]["text"] == "It rains"
        assert message["event"] == event
        arrived = next(events)
        assert (arrived.id, arrived.event) == (position, event)
        assert client.poll("news") == [message["data"]]
        assert socket.ask("publish", channel="news", data=1)["code"] == "forbidden"
        assert client.get("/v1/messages", channel="secrets").json()["code"] == "forbidden"


def check_stranger(host: Host) -> None:
    """See that somebody who did not log in is told so, on every transport."""
    with Client(host.url) as stranger:
        for path in ("/v1/messages", "/v1/events", "/v1/stream"):
            assert stranger.get(path, channel="news").json()["code"] == "unauthorized"
        with stranger.socket() as socket, pytest.raises(ConnectionClosedError) as closed:
            socket.read()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4500


def test_fastapi_example(host: Host) -> None:
    check_stranger(host)
    with Client(host.url) as ann:
        assert ann.http.post("/news?text=no").status_code == 401
        assert ann.http.post("/login?user=ann").status_code == 200
        check_news(ann, "/news?text=It rains")
        assert ann.post("/v1/call", {"method": "shout", "data": "hello"}).json() == {"data": "ann: HELLO"}
        assert ann.get("/openapi.json").json()["servers"] == [{"url": "/realtime"}]


def test_starlette_example(host: Host) -> None:
    def log_in(user: str) -> Client:
        return Client(host.url, token=anybody.http.post(f"/token?user={user}").json()["token"])

    with Client(host.url) as anybody, log_in("ann") as ann, log_in("bob") as bob:
        assert anybody.get("/v1/messages", channel="room:1").json()["code"] == "unauthorized"
        with ann.socket() as socket, bob.events("room:1", presence="enter", session="of bob") as events:
            assert socket.ask("subscribe", channel="room:1")["type"] == "subscribed"
            assert socket.ask("presence", channel="room:1", enter=True)["clients"] == 2
            assert sorted(anybody.http.get("/rooms/1").json()) == ["ann", "bob"]
            assert socket.ask("publish", channel="room:1", data="hello")["type"] == "published"
            assert socket.ask("publish", channel="room:1", data=[1])["code"] == "forbidden"
            assert bob.post("/v1/messages", {"channel": "room:1", "data": "hi"}).status_code == 200
            assert socket.read()["data"] == {"from": "ann", "text": "hello"}
            assert socket.read()["data"] == {"from": "bob", "text": "hi"}
            messages = (event for event in events if event.event == "message")
            assert next(messages).data == '{"from":"ann","text":"hello"}'
            assert next(messages).data == '{"from":"bob","text":"hi"}'
        assert [data["text"] for data in ann.poll("room:1")] == ["hello", "hi"]


def test_django_example(host: Host) -> None:
    check_stranger(host)
    with Client(host.url) as ann:
        assert ann.http.get("/login?user=ann").status_code == 200
        check_news(ann, "/news?text=It rains")
        assert ann.http.get("/realtimes").status_code == 404
        assert ann.get("/v1/nothing").json()["code"] == "not_found"


def test_litestar_example(host: Host) -> None:
    with Client(host.url) as anybody:
        check_news(anybody, "/news?text=It rains", event="headline")
        assert anybody.http.get("/news").json() == ["It rains"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_example_is_short_and_tested(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= LINES_MAX
    assert f"test_{file.stem.removesuffix('_app')}_example" in globals()


def test_examples_pass_a_strict_type_checker() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, FILES)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
