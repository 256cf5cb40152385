"""More commands and messages than may be: each is refused and told when to come again, and nobody else waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.serving import Server
from tests.wires import Http, WebSocket


@pytest.fixture
def strict(start_server: Callable[..., Server]) -> Server:
    """A server that takes five publishes and five commands, and then hardly any."""
    return start_server(limits={"publishes_per_s": 5, "commands_per_s": 5})


def check_told(push: dict[str, object]) -> None:
    """A push says that it was too much, and when it would not be."""
    assert (push["type"], push["code"]) == ("error", "rate_limited")
    wait_ms = push["retry_after_ms"]
    assert isinstance(wait_ms, int)
    assert 0 < wait_ms <= 1000


def test_publishing_past_the_rate_is_refused_one_by_one(strict: Server, channel: str) -> None:
    with WebSocket(strict) as wire, WebSocket(strict) as other:
        for ref in range(200):
            wire.say(type="publish", ref=ref, channel=channel, data=ref)
        answers = [wire.read() for _ in range(200)]
        assert [answer["ref"] for answer in answers] == list(range(200))
        assert [answer["type"] for answer in answers[:5]] == ["published"] * 5
        refused = [answer for answer in answers if answer["type"] == "error"]
        assert len(refused) >= 100
        for answer in refused:
            check_told(answer)
        # What is counted is the connection: it goes on, and others have their own rate.
        assert wire.ask(type="ping")["type"] == "pong"
        assert other.ask(type="publish", channel=channel, data="other")["type"] == "published"


def test_commands_past_the_rate_are_refused_one_by_one(strict: Server) -> None:
    with WebSocket(strict) as wire, WebSocket(strict) as other:
        for ref in range(200):
            wire.say(type="ping", ref=ref)
        answers = [wire.read() for _ in range(200)]
        assert [answer["type"] for answer in answers[:5]] == ["pong"] * 5
        refused = [answer for answer in answers if answer["type"] == "error"]
        assert len(refused) >= 100
        for answer in refused:
            check_told(answer)
        assert other.ask(type="ping")["type"] == "pong"


def test_connection_past_the_rate_may_publish_again_when_it_was_told(strict: Server, channel: str) -> None:
    with WebSocket(strict) as wire:
        while (answer := wire.ask(type="publish", channel=channel, data=1))["type"] == "published":
            pass
        assert wire.is_silent(answer["retry_after_ms"] / 1000)
        assert wire.ask(type="publish", channel=channel, data=2)["type"] == "published"


def test_requests_past_the_rate_are_told_when_to_come_again(strict: Server, channel: str) -> None:
    with Http(strict) as http:
        while (answer := http.post("/v1/messages", {"channel": channel, "data": 1})).status == 200:
            pass
        assert (answer.status, answer.code) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1
        check_told({**answer.json(), "type": "error"})
    with Http(strict) as again:  # a new connection does not help: it is the address that is counted
        while (answer := again.post("/v1/messages", {"channel": channel, "data": 1})).status == 200:
            pass
        assert answer.status == 429
