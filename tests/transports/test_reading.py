"""What every way of reading promises, over each of them and under each server."""

from __future__ import annotations

import json
import select
from typing import Any

import pytest

from tests.readers import PUSHED, READERS, LongPollReader, Reader, ShortPollReader, target
from tests.serving import Server
from tests.wires import Http

EVERY = pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
WAITING = {name: READERS[name] for name in (*PUSHED, "longpoll")}


@EVERY
def test_reader_gets_what_is_published_after_it_came(any_server: Server, channel: str, reader: type[Reader]) -> None:
    any_server.publish(channel, "before")
    with reader(any_server, channel) as reading:
        position = any_server.publish(channel, {"n": 1}, id="one", event="made", key="k")
        (message,) = reading.read_messages(1)
    time = message.pop("time")
    assert 1_600_000_000_000 < time < 10_000_000_000_000
    assert message == {
        "type": "message",
        "channel": channel,
        "seq": int(position.split(".")[1]),
        "id": "one",
        "event": "made",
        "key": "k",
        "data": {"n": 1},
    }


@EVERY
def test_reader_goes_on_from_its_cursor_over_any_other_transport(
    any_server: Server, channel: str, reader: type[Reader]
) -> None:
    with reader(any_server, channel) as first:
        any_server.publish_all([{"channel": channel, "data": number} for number in range(3)])
        assert first.read_data(3) == [0, 1, 2]
        cursor = first.cursor
    any_server.publish_all([{"channel": channel, "data": number} for number in range(3, 6)])
    for other in READERS.values():
        with other(any_server, channel, since=cursor) as second:
            assert second.read_data(3) == [3, 4, 5]


@EVERY
@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("since", "earliest", [0, 1, 2, 3, 4, 5]),
        ("since", "position", [4, 5]),
        ("since", "integer", [4, 5]),
        ("last", 2, [4, 5]),
        ("last", 100, [0, 1, 2, 3, 4, 5]),
        ("last", 0, []),
        ("since", "now", []),
    ],
)
def test_reader_begins_where_it_asks_to(
    any_server: Server, channel: str, reader: type[Reader], parameter: str, value: Any, expected: list[int]
) -> None:
    positions = any_server.publish_all([{"channel": channel, "data": number} for number in range(6)])
    value = {"position": positions[3], "integer": positions[3].split(".")[1]}.get(value, value)
    with reader(any_server, channel, **{parameter: value}) as reading:
        any_server.publish(channel, "end")
        assert reading.read_data(len(expected) + 1) == [*expected, "end"]


@EVERY
def test_reader_is_told_of_what_was_trimmed(any_server: Server, channel: str, reader: type[Reader]) -> None:
    name = f"short:{channel}"
    positions = any_server.publish_all([{"channel": name, "data": number} for number in range(20)])
    with reader(any_server, name, since=positions[3]) as reading:
        gap = reading.read_gap()
        assert gap["reason"] == "trimmed"
        assert gap["channels"] == [name]
        assert gap["from"] == positions[3]
        epoch, to = gap["to"].split(".")
        assert epoch == positions[3].split(".")[0]
        messages = reading.read_messages(5)
        assert [message["data"] for message in messages] == [15, 16, 17, 18, 19]
        assert messages[0]["seq"] == int(to) + 1


@EVERY
@pytest.mark.parametrize("foreign", ["zzzzzzzz.5", "ahead", "zzzzzzzz.1,yyyyyyyy.2"])
def test_reader_with_a_cursor_of_another_log_is_told(
    any_server: Server, channel: str, reader: type[Reader], foreign: str
) -> None:
    positions = any_server.publish_all([{"channel": channel, "data": number} for number in range(3)])
    if foreign == "ahead":
        foreign = positions[0].split(".")[0] + ".999999999"
    with reader(any_server, channel, since=foreign) as reading:
        gap = reading.read_gap()
        assert gap["reason"] == "epoch"
        assert gap["to"].split(".")[0] == positions[0].split(".")[0]
        assert reading.read_data(3) == [0, 1, 2]
        any_server.publish(channel, 3)
        assert reading.read_data(1) == [3]


@EVERY
def test_reader_may_go_on_from_the_newest_after_a_gap(any_server: Server, channel: str, reader: type[Reader]) -> None:
    name = f"short:{channel}"
    positions = any_server.publish_all([{"channel": name, "data": number} for number in range(20)])
    with reader(any_server, name, since=positions[0], on_gap="newest") as reading:
        gap = reading.read_gap()
        assert gap["from"] == positions[0]
        assert int(gap["to"].split(".")[1]) >= int(positions[-1].split(".")[1])
        any_server.publish(name, "next")
        assert reading.read_data(1) == ["next"]


@EVERY
def test_reader_of_several_channels_gets_them_in_order(any_server: Server, channel: str, reader: type[Reader]) -> None:
    channels = [f"{channel}-{letter}" for letter in "abc"]
    with reader(any_server, *channels) as reading:
        published = [(channels[number % 3], number) for number in range(60)]
        for start in range(0, 60, 7):
            batch = published[start : start + 7]
            any_server.publish_all([{"channel": name, "data": number} for name, number in batch])
        messages = reading.read_messages(60)
    assert [(message["channel"], message["data"]) for message in messages] == published
    seqs = [message["seq"] for message in messages]
    assert seqs == sorted(set(seqs))


@EVERY
def test_reader_does_not_get_its_own_session_back(any_server: Server, channel: str, reader: type[Reader]) -> None:
    with reader(any_server, channel, session="mine") as mine, reader(any_server, channel, session="other") as other:
        any_server.publish(channel, 1, echo=False, session="mine")
        any_server.publish(channel, 2, session="mine")
        any_server.publish(channel, 3, echo=False, session="other")
        assert mine.read_data(2) == [2, 3]
        assert other.read_data(2) == [1, 2]


@EVERY
def test_reader_that_catches_up_does_not_get_its_own_session_back(
    any_server: Server, channel: str, reader: type[Reader]
) -> None:
    start = any_server.publish(channel, 0)
    any_server.publish(channel, 1, echo=False, session="mine")
    any_server.publish(channel, 2)
    with reader(any_server, channel, session="mine", since=start) as mine:
        assert mine.read_data(1) == [2]


@pytest.mark.parametrize("reader", WAITING.values(), ids=WAITING.keys())
@pytest.mark.parametrize("by", ["message", "namespace"])
def test_ephemeral_message_reaches_who_is_there(
    any_server: Server, channel: str, reader: type[Reader], by: str
) -> None:
    name, fields = (f"fleeting:{channel}", {}) if by == "namespace" else (channel, {"ephemeral": True})
    first = any_server.publish(channel, "log")
    with reader(any_server, name) as reading:
        if isinstance(reading, LongPollReader):
            wire = reading.wire
            wire.send_request("GET", target("/v1/messages", (name,), {"since": reading.cursor, "wait": 30}))
            # Nobody is told that a poll waits: say it again until it has heard.
            while not select.select([wire.socket], [], [], 0.01)[0]:
                assert any_server.publish(name, "now", **fields) == ""
            page = wire.read_response().json()
            assert page["cursor"] == reading.cursor
            message = page["messages"][0]
        else:
            assert any_server.publish(name, "now", **fields) == ""
            (message,) = reading.read_messages(1)
            assert reading.cursor.split(".")[0] == first.split(".")[0]
    assert message["data"] == "now"
    assert message["ephemeral"] is True
    assert "seq" not in message
    with ShortPollReader(any_server, name, since=first) as later:
        any_server.publish(channel, "end")
        with ShortPollReader(any_server, name, channel, since=first) as both:
            assert [m["data"] for m in both.read_messages(1)] == ["end"]
        assert not later.pushes


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "", "\r\n\0\u2028\ufeff😀", [], {}, [[{"a": [1]}]], 2**53])
def test_json_comes_back_as_it_was_on_every_wire(server: Server, channel: str, value: Any) -> None:
    server.publish(channel, value)
    for reader in READERS.values():
        with reader(server, channel, since="earliest") as reading:
            (read,) = reading.read_data(1)
            assert read == value
            assert type(read) is type(value)


def test_json_data_is_kept_as_it_was_written(server: Server, channel: str) -> None:
    """Numbers that a decoder would change, and the order and spaces of an object, stay."""
    text = b'{"b": 1.10,  "a": 12345678901234567890123, "e": 1E2}'
    with Http(server) as http:
        http.request("POST", "/v1/messages", body=b'{"channel":"%b","data":%b}' % (channel.encode(), text))
        for path in ("/v1/messages", "/v1/events", "/v1/stream"):
            with Http(server) as reading:
                reading.send_request("GET", target(path, (channel,), {"since": "earliest"}))
                reading.read_until(text)
    assert json.loads(text)["a"] == 12345678901234567890123
