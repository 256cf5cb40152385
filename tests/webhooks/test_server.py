"""A server whose backend is asked over HTTP, from the outside: each hook, on the wires that it concerns."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.serving import WATCHDOG_S, Server
from tests.webhooks.backend import HANG_UP, SECRET, Answer, Asked, Backend
from tests.wires import Http, WebSocket

HELD: queue.Queue[threading.Event] = queue.Queue()


def answer(asked: Asked) -> Answer:
    """Answer as a shop's backend might."""
    body = asked.json
    match asked.path:
        case "/connect":
            user = body["headers"].get("authorization", "").removeprefix("Shop ")
            if not user:
                return Answer({"error": {"code": "unauthorized", "message": "log in first"}}, 401)
            can = {"subscribe": ["*"], "publish": ["*"], "presence": ["*"], "call": ["*"]}
            return Answer({"result": {"user": user, "can": can, "info": {"name": user.title()}}})
        case "/subscribe" if body["channel"] == "staff":
            return Answer({"error": {"code": "forbidden", "message": "staff only"}}, 403)
        case "/publish" if body["data"] == "secret":
            return Answer({"error": {"code": "forbidden", "message": "not that"}}, 403)
        case "/publish" if body["data"] == "fail":
            return HANG_UP
        case "/publish":
            return Answer({"result": {"data": {"by": body["client"]["user"], "said": body["data"]}}})
        case "/call":
            return Answer({"result": [body["method"], body["data"], body["client"]["user"]]})
        case _:
            return Answer()


@contextmanager
def running() -> Iterator[Backend]:
    """Run the backend in a loop of a thread of its own."""
    started: queue.Queue[tuple[Backend, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        stop = asyncio.Event()
        async with Backend(answer) as backend:
            started.put((backend, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    backend, loop, stop = started.get(timeout=WATCHDOG_S)
    try:
        yield backend
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(WATCHDOG_S)


@pytest.fixture
def backend() -> Iterator[Backend]:
    with running() as backend:
        yield backend


@pytest.fixture
def shop(backend: Backend, start_server: Callable[..., Server]) -> Server:
    urls = {f"hook_{hook}_url": f"{backend.url}/{hook}" for hook in ("connect", "subscribe", "publish", "call")}
    disconnect = {"hook_disconnect_url": f"{backend.url}/disconnect"}
    return start_server(hooks={**urls, **disconnect, "hook_secret": SECRET, "hook_retries": 0, "hook_timeout_s": 30.0})


def post(server: Server, path: str, body: Any, *fields: tuple[str, str]) -> tuple[int, Any]:
    with Http(server) as http:
        answered = http.request("POST", path, body=json.dumps(body).encode(), headers=fields)
        return answered.status, answered.json()


ANN = ("Authorization", "Shop ann")


def test_the_backend_says_who_somebody_is_on_every_wire(shop: Server, channel: str) -> None:
    assert post(shop, "/v1/messages", {"channel": channel, "data": 1})[0] == 401
    assert post(shop, "/v1/call", {"method": "price", "data": {"of": "tea"}}, ANN) == (
        200,
        {"data": ["price", {"of": "tea"}, "ann"]},
    )
    with WebSocket(shop, headers=[ANN]) as wire:
        assert wire.ask(type="connect")["user"] == "ann"
        (member,) = wire.ask(type="presence", channel=channel, enter=True)["members"]
        assert (member["user"], member["info"]) == ("ann", {"name": "Ann"})
        assert wire.ask(type="call", method="price")["data"] == ["price", None, "ann"]
    with WebSocket(shop) as stranger:
        assert stranger.read()["code"] == "unauthorized"


def test_the_backend_alters_and_refuses_messages_in_their_order(shop: Server, channel: str) -> None:
    with WebSocket(shop, headers=[ANN]) as wire:
        wire.ask(type="subscribe", channel=channel)
        for number in range(20):
            wire.say(type="publish", channel=channel, data=number, ref=number)
        said = [push for push in (wire.read() for _ in range(40)) if push["type"] == "message"]
        assert [push["data"] for push in said] == [{"by": "ann", "said": number} for number in range(20)]
        refused = wire.ask(type="publish", channel=channel, data="secret")
        assert (refused["code"], refused["message"]) == ("forbidden", "not that")
        assert wire.ask(type="publish", channel=channel, data="fail")["code"] in ("hook_failed", "timeout")
        assert wire.ask(type="publish", channel=channel, data="on")["type"] == "published"
    status, listed = post(
        shop, "/v1/messages", [{"channel": channel, "data": data} for data in ("a", "secret", "b")], ANN
    )
    assert status == 200
    assert [item.get("error", {}).get("code") for item in listed] == [None, "forbidden", None]


def test_the_backend_decides_who_reads(shop: Server) -> None:
    with WebSocket(shop, headers=[ANN]) as wire:
        refused = wire.ask(type="subscribe", channel="staff")
        assert (refused["code"], refused["message"]) == ("forbidden", "staff only")
    for path in ("/v1/messages?channel=staff", "/v1/events?channel=staff", "/v1/stream?channel=staff"):
        with Http(shop) as http:
            assert http.get(path, headers=[ANN]).code == "forbidden"


def test_the_backend_is_told_of_each_end_once_also_when_the_server_stops(shop: Server, backend: Backend) -> None:
    with WebSocket(shop, headers=[ANN]) as first:
        client = first.ask(type="connect")["client"]
    second = WebSocket(shop, headers=[("Authorization", "Shop bob")])
    second.ask(type="connect")
    shop.stop()
    second.close()
    ends = [asked.json for asked in backend.requests if asked.path == "/disconnect"]
    assert sorted(end["client"]["user"] for end in ends) == ["ann", "bob"]
    assert client in {end["client"]["client"] for end in ends}
