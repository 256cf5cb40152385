"""Commands of one connection: in the order in which they came, whatever has to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving import Server
from tests.wires import WebSocket


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def logged_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on each broker: one that answers at once, and one whose every append waits for a disk."""
    path = tmp_path_factory.mktemp("conversation") / "log.db"
    broker = "memory://" if request.param == "memory" else f"sqlite:///{path}"
    server = Server(
        server={"broker": broker}, limits={"drain_s": 0.1, "in_flight_max": 8, "channels_per_connection": 5}
    )
    yield server
    server.close()


def test_publishes_side_by_side_take_their_places_in_order(logged_server: Server, channel: str) -> None:
    """More than may be in flight, in one segment."""
    with WebSocket(logged_server) as wire:
        for number in range(200):
            wire.say(type="publish", ref=number, channel=channel, data=number)
        answers = {(answer := wire.read())["ref"]: answer for _ in range(200)}
        seqs = [int(answers[ref]["position"].split(".")[1]) for ref in range(200)]
        assert seqs == sorted(set(seqs))


def test_subscribe_waits_for_publishes_before_it(logged_server: Server, channel: str) -> None:
    with WebSocket(logged_server) as wire:
        for number in range(20):
            wire.say(type="publish", ref=number, channel=channel, data=number)
        wire.say(type="subscribe", ref="sub", channel=channel)
        wire.say(type="publish", ref="after", channel=channel, data="after")
        wire.say(type="ping", ref="end")
        pushes = [wire.read() for _ in range(24)]
    refs = [push["ref"] for push in pushes if "ref" in push]
    # Answers to publishes may overtake each other, and nothing else may.
    assert sorted(refs[:20]) == list(range(20))
    assert refs[20:] == ["sub", "after", "end"]
    assert [push["data"] for push in pushes if push["type"] == "message"] == ["after"]


def test_command_that_fails_does_not_stop_those_behind_it(logged_server: Server, channel: str) -> None:
    with WebSocket(logged_server) as wire:
        wire.say(type="publish", ref=1, channel=channel, data=1)
        wire.say(type="publish", ref=2, channel="..", data=1)
        wire.say(type="subscribe", ref=3, channel=channel, since="nonsense")
        wire.say(type="dance", ref=4)
        wire.say(type="publish", ref=5, channel=channel, data=1, expect="zzzzzzzz.9")
        wire.say(type="ping", ref=6)
        answers = {(push := wire.read())["ref"]: push for _ in range(6)}
    assert [answers[ref].get("code") for ref in range(1, 7)] == [
        None, "invalid_channel", "invalid_cursor", "unknown_command", "conflict", None,
    ]  # fmt: skip


def test_connection_reads_as_many_channels_as_it_may(logged_server: Server, channel: str) -> None:
    with WebSocket(logged_server) as wire:
        for number in range(5):
            assert wire.ask(type="subscribe", channel=f"{channel}-{number}")["type"] == "subscribed"
        assert wire.ask(type="subscribe", channel=channel)["code"] == "too_many_channels"
        wire.ask(type="unsubscribe", channel=f"{channel}-0")
        assert wire.ask(type="subscribe", channel=channel)["type"] == "subscribed"


def test_connection_that_goes_in_the_middle_takes_no_publish_back(
    start_server: Callable[..., Server], channel: str, tmp_path: Path
) -> None:
    server = start_server(server={"broker": f"sqlite:///{tmp_path / 'log.db'}"})
    with WebSocket(server) as reader:
        reader.ask(type="subscribe", channel=channel)
        with WebSocket(server) as wire:
            for number in range(50):
                wire.say(type="publish", channel=channel, data=number)
        assert [reader.read()["data"] for _ in range(50)] == list(range(50))
