"""When an embedded node is open: by lifespan, by hand, by the first request; twice, again, and not at all."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from tellwire import Identity, Namespace, Received, Tellwire, TellwireError
from tellwire.config import InvalidSetting, Server, Settings
from tellwire.testing.harness import on_loop
from tellwire.webhooks.settings import WebhookSettings


@asynccontextmanager
async def visiting(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Ask an application without a server between, hence without a lifespan."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


@on_loop
async def test_publish_before_start_says_what_to_do() -> None:
    tellwire = Tellwire(open=True)
    with pytest.raises(RuntimeError, match=r"lifespan=tellwire\.lifespan .* await tellwire\.start\(\)"):
        await tellwire.publish("news", 1)
    with pytest.raises(RuntimeError, match="not started"):
        tellwire.publish_sync("news", 1)
    with pytest.raises(RuntimeError, match="not started"):
        await tellwire.read("news")
    with pytest.raises(RuntimeError, match="not started"):
        await anext(tellwire.subscribe("news"))
    with pytest.raises(RuntimeError, match="not started"):
        await tellwire.presence("news")
    with pytest.raises(RuntimeError, match="not started"):
        await tellwire.revoke(user="ann")


@on_loop
async def test_start_twice_opens_once_and_stop_twice_closes_once() -> None:
    tellwire = Tellwire(open=True)
    await tellwire.start()
    first = await tellwire.publish("news", 1)
    await tellwire.start()
    second = await tellwire.publish("news", 2)
    assert first.position is not None
    assert second.position is not None
    assert first.position.epoch == second.position.epoch
    await asyncio.gather(tellwire.stop(), tellwire.stop())
    await tellwire.stop()
    with pytest.raises(RuntimeError, match="not started"):
        await tellwire.publish("news", 3)


@on_loop
async def test_inner_lifespan_changes_nothing() -> None:
    tellwire = Tellwire(open=True)
    async with tellwire.lifespan():
        async with tellwire.lifespan(object()):
            pass
        await tellwire.publish("news", 1)


@on_loop
async def test_it_can_be_started_again() -> None:
    tellwire = Tellwire(open=True)
    for _ in range(2):
        async with tellwire.lifespan():
            await tellwire.publish("news", 1)
            assert len((await tellwire.read("news")).messages) == 1  # memory forgets


def test_it_goes_on_to_the_next_event_loop(tmp_path: Path) -> None:
    tellwire = Tellwire(open=True, broker=f"sqlite:///{tmp_path / 'log'}")

    async def publish() -> int:
        async with tellwire.lifespan():
            await tellwire.publish("news", 1)
            return len((await tellwire.read("news")).messages)

    assert [asyncio.run(publish()) for _ in range(3)] == [1, 2, 3]


def test_event_loop_that_was_closed_under_it_is_no_hindrance() -> None:
    tellwire = Tellwire(open=True)

    async def leave() -> None:
        await tellwire.start()

    async def publish() -> None:
        async with tellwire.lifespan():
            await tellwire.publish("news", 1)

    asyncio.run(leave())
    asyncio.run(tellwire.stop())
    asyncio.run(leave())
    with pytest.raises(RuntimeError, match="not started"):
        tellwire.publish_sync("news", 1)
    asyncio.run(publish())


@on_loop
async def test_another_event_loop_is_refused() -> None:
    tellwire = Tellwire(open=True)
    async with tellwire.lifespan():
        for use in (tellwire.publish("news", 1), tellwire.start(), tellwire.stop()):
            with pytest.raises(RuntimeError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, use)


@on_loop
async def test_without_a_lifespan_the_first_requests_open_it_once(caplog: pytest.LogCaptureFixture) -> None:
    tellwire = Tellwire(open=True)
    app = Starlette(routes=[Mount("/realtime", tellwire.asgi)])
    async with visiting(app) as client:
        answers = await asyncio.gather(*(client.get("/realtime/v1/messages?channel=news") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["cursor"] for answer in answers}) == 1
    await tellwire.publish("news", 1)
    await tellwire.stop()


@on_loop
async def test_whoever_asked_first_may_go_away(tmp_path: Path) -> None:
    tellwire = Tellwire(open=True, broker=f"sqlite:///{tmp_path / 'log'}")
    first, second = asyncio.create_task(tellwire.start()), asyncio.create_task(tellwire.start())
    await asyncio.sleep(0)
    first.cancel()
    await second
    await tellwire.publish("news", 1)
    await tellwire.stop()


@on_loop
async def test_stop_waits_for_a_start_and_start_for_a_stop(tmp_path: Path) -> None:
    tellwire = Tellwire(open=True, broker=f"sqlite:///{tmp_path / 'log'}")
    starting = asyncio.create_task(tellwire.start())
    await asyncio.sleep(0)
    await tellwire.stop()
    assert starting.done()
    await tellwire.start()
    stopping = asyncio.create_task(tellwire.stop())
    await asyncio.sleep(0)
    await tellwire.start()
    assert stopping.done()
    await tellwire.publish("news", 1)
    await tellwire.stop()


@on_loop
async def test_requests_after_the_stop_are_sent_elsewhere() -> None:
    tellwire = Tellwire(open=True)
    async with visiting(tellwire.asgi) as client:
        async with tellwire.lifespan():
            assert (await client.get("/healthz")).status_code == 200
        answer = await client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["code"] == "draining"
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await tellwire.asgi({"type": "websocket", "path": "/v1/ws", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


@on_loop
async def test_start_that_fails_says_why_and_can_be_tried_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log'}"
    here, there = Tellwire(open=True, broker=url), Tellwire(open=True, broker=url)
    async with here.lifespan():
        with pytest.raises(TellwireError):
            await there.start()
        there.on_subscribe(lambda client, channel: None)  # it is not running
    async with there.lifespan():
        await there.publish("news", 1)


@on_loop
async def test_two_in_one_process_do_not_hear_of_each_other() -> None:
    one, other = Tellwire(open=True), Tellwire(open=True)
    async with one.lifespan(), other.lifespan(), one.subscribe("news") as messages:
        await other.publish("news", "other")
        await one.publish("news", "one")
        message = await anext(messages)
        assert isinstance(message, Received)
        assert message.data == "one"


async def lifespan_of(app: Any) -> list[Any]:
    """Start and stop an application as a server does; return what it said."""
    said: list[Any] = []
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        said.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    return said


@on_loop
async def test_as_the_whole_application_it_follows_the_server(tmp_path: Path) -> None:
    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("a lifespan is not for it")

    url = f"sqlite:///{tmp_path / 'log'}"
    for _ in range(2):
        tellwire = Tellwire(open=True, broker=url)
        said = await lifespan_of(tellwire.in_front_of(nothing, "/realtime"))
        assert [message["type"] for message in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    async with Tellwire(open=True, broker=url).lifespan():
        (failed,) = await lifespan_of(Tellwire(open=True, broker=url).asgi)
        assert failed["type"] == "lifespan.startup.failed"
        assert "log" in failed["message"]


@on_loop
async def test_application_behind_it_may_publish_at_its_first_request() -> None:
    async def view(scope: Any, receive: Any, send: Any) -> None:
        published = await asyncio.to_thread(tellwire.publish_sync, "news", 1)
        await PlainTextResponse(str(published.position))(scope, receive, send)

    tellwire = Tellwire(open=True)
    async with visiting(tellwire.in_front_of(view, "/realtime")) as client:
        position = (await client.get("/")).text
        assert (await client.get("/realtime/v1/messages?channel=news")).json()["cursor"] == position
    await tellwire.stop()


@pytest.mark.parametrize("prefix", ["", "/", "realtime", "/realtime/"])
def test_prefix_has_one_slash(prefix: str) -> None:
    with pytest.raises(ValueError, match="begins with a slash and does not end with one"):
        Tellwire(open=True).in_front_of(Starlette(), prefix)


@on_loop
async def test_publish_sync_from_threads_and_not_on_the_loop() -> None:
    tellwire = Tellwire(open=True)
    async with tellwire.lifespan():
        with pytest.raises(RuntimeError, match=r"await tellwire\.publish"):
            tellwire.publish_sync("news", 0)
        numbers = range(50)
        await asyncio.gather(*(asyncio.to_thread(tellwire.publish_sync, "news", number) for number in numbers))
        history = await tellwire.read("news")
        assert sorted(message.data for message in history.messages) == list(numbers)
        with pytest.raises(TellwireError, match="not a channel name"):
            await asyncio.to_thread(tellwire.publish_sync, "..", 0)


@on_loop
async def test_publish_sync_does_not_wait_for_ever() -> None:
    tellwire = Tellwire(open=True)
    failed: list[BaseException] = []

    def publish() -> None:
        try:
            tellwire.publish_sync("news", 0, timeout_s=0.01)
        except TellwireError as exc:
            failed.append(exc)

    async with tellwire.lifespan():
        thread = threading.Thread(target=publish)
        thread.start()
        thread.join()  # the loop stands still
    assert [str(exc) for exc in failed] == ["publishing took longer than 0.01 s; the message may be published yet"]


# Who may come in


def allowed(tellwire: Tellwire) -> list[int]:
    """Return the status of reading, publishing, and looking at the page, for somebody who says nothing."""

    async def ask() -> list[int]:
        async with tellwire.lifespan(), visiting(tellwire.asgi) as client:
            answers = [
                await client.get("/v1/messages?channel=news"),
                await client.post("/v1/messages", json={"channel": "news", "data": 1}),
                await client.get("/v1/admin/stats"),
                await client.get("/"),
            ]
            return [answer.status_code for answer in answers]

    return asyncio.run(ask())


def test_nobody_may_anything_until_it_is_said_who(caplog: pytest.LogCaptureFixture) -> None:
    assert allowed(Tellwire()) == [401, 401, 401, 404]
    assert "nobody may come in yet" in caplog.text


def test_handlers_that_let_nobody_in_do_not_open_it() -> None:
    tellwire = Tellwire()
    tellwire.on_subscribe(lambda client, channel: None)
    tellwire.on_publish(lambda client, publishing: None)
    tellwire.rpc("time")(lambda client, data: 0)
    assert allowed(tellwire) == [401, 401, 401, 404]


def test_open_lets_everybody_in_but_not_as_an_operator() -> None:
    assert allowed(Tellwire(open=True, page=True)) == [200, 200, 403, 200]


def test_authorize_alone_decides_of_everybody() -> None:
    tellwire = Tellwire()
    tellwire.authorize(lambda client, operation, name: operation == "subscribe" or None)
    assert allowed(tellwire) == [200, 403, 403, 404]


def test_connect_handler_that_knows_nobody_lets_nobody_in() -> None:
    tellwire = Tellwire()
    tellwire.on_connect(lambda request: None)
    tellwire.authorize(lambda client, operation, name: True)
    assert allowed(tellwire) == [401, 401, 401, 404]


def test_identity_without_grants_may_nothing() -> None:
    tellwire = Tellwire()
    tellwire.on_connect(lambda request: Identity(user="ann"))
    assert allowed(tellwire) == [403, 403, 403, 404]


def test_key_closes_it_also_with_a_handler() -> None:
    tellwire = Tellwire(token_key="k" * 32)
    tellwire.authorize(lambda client, operation, name: True)
    assert allowed(tellwire) == [401, 401, 401, 404]


@pytest.mark.parametrize("also", ["token_key", "on_connect", "authorize"])
@on_loop
async def test_open_and_closed_at_once_is_refused(also: str) -> None:
    async def start() -> None:
        tellwire = Tellwire(open=True, token_key="k" * 32 if also == "token_key" else None)
        if also == "on_connect":
            tellwire.on_connect(lambda request: None)
        elif also == "authorize":
            tellwire.authorize(lambda client, operation, name: True)
        await tellwire.start()

    with pytest.raises((ValueError, InvalidSetting), match="open lets everybody in"):
        await start()


@on_loop
async def test_handlers_in_python_and_at_urls_are_not_mixed() -> None:
    hooks = WebhookSettings(hook_publish_url="http://127.0.0.1:9/", hook_secret="s" * 16)
    tellwire = Tellwire(Settings(hooks=hooks))
    tellwire.rpc("time")(lambda client, data: 0)
    with pytest.raises(ValueError, match="both in Python and at URLs"):
        await tellwire.start()


def test_backend_that_knows_clients_decides_of_them() -> None:
    hooks = WebhookSettings(hook_connect_url="http://127.0.0.1:9/", hook_secret="s" * 16, hook_retries=0)
    assert allowed(Tellwire(Settings(hooks=hooks))) == [503, 503, 503, 404]


# Settings


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"broker": "pigeon://here"}, "broker: .* names no broker"),
        ({"origins": ["example.org"]}, "origins: .* is not an origin"),
        ({"trusted_proxies": ["next door"]}, "trusted_proxies: .* neither an address nor a network"),
        ({"hook_timeout_s": -1}, "hook_timeout_s takes a number above 0"),
        ({"token_key": "short"}, "at least"),
        ({"settings": Settings(), "broker": "memory://"}, "broker and settings are both given"),
        ({"settings": Settings(), "namespaces": [Namespace()]}, "namespaces and settings are both given"),
    ],
)
def test_wrong_settings_are_said_at_once(given: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TellwireError), match=says):
        Tellwire(**given)


@on_loop
async def test_settings_as_a_whole(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    settings = Settings(server=Server(open=True), namespaces=(Namespace("short", history_messages=2),))
    tellwire = Tellwire(settings)
    async with tellwire.lifespan():
        for number in range(3):
            await tellwire.publish("short:1", number)
        history = await tellwire.read("short:1", since=0)
        assert [message.data for message in history.messages] == [1, 2]
        assert history.gap is not None
    assert not caplog.records


def test_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELLWIRE_BROKER", "redis://elsewhere")
    assert Tellwire().settings.server.broker == "memory://"
