"""pub, sub, tail and history against a real server."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tellwire import __version__
from tellwire.cli.client import shown
from tests.cli.commands import Running, run
from tests.serving import Server
from tests.wires import Http

Start = Callable[..., Running]


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def kept(server: Server, channel: str) -> list[dict[str, Any]]:
    http = Http(server)
    try:
        messages: list[dict[str, Any]] = http.request(
            "GET", f"/v1/messages?channel={channel}&since=earliest&wait=0"
        ).json()["messages"]
    finally:
        http.close()
    return messages


@pytest.mark.parametrize(
    ("args", "data"),
    [
        (["hello"], "hello"),
        (['{"a": [1, 2.50]}'], {"a": [1, 2.5]}),
        (["42"], 42),
        (["--text", "42"], "42"),
        (["--json", '"42"'], "42"),
        (["NaN"], "NaN"),
        (["{not json"], "{not json"),
        ([""], ""),
        (["--", "-1"], -1),
        (["grüße 💥"], "grüße 💥"),
    ],
)
def test_pub_publishes(server: Server, channel: str, args: list[str], data: Any) -> None:
    done = run("pub", "--url", url(server), *args[:-1], channel, args[-1])
    assert (done.returncode, done.stderr) == (0, "")
    assert [message["data"] for message in kept(server, channel)] == [data]


def test_pub_prints_the_position(server: Server, channel: str) -> None:
    done = run("pub", channel, '{"x": 1}', "--url", url(server), "--event", "tick", "--key", "k")
    assert (done.returncode, done.stderr) == (0, "")
    (message,) = kept(server, channel)
    assert done.stdout.strip().endswith(f".{message['seq']}")
    assert (message["data"], message["event"], message["key"]) == ({"x": 1}, "tick", "k")


def test_pub_sends_json_as_it_was_typed(server: Server, channel: str) -> None:
    run("pub", channel, '{"price": 1.10, "big": 12345678901234567890123}', TELLWIRE_URL=url(server))
    http = Http(server)
    answer = http.request("GET", f"/v1/messages?channel={channel}&since=earliest&wait=0")
    http.close()
    assert b'{"price": 1.10, "big": 12345678901234567890123}' in answer.body


def test_pub_publishes_every_line_of_standard_input(server: Server, channel: str) -> None:
    done = run("pub", channel, "-", stdin="one\r\n2\n\n{}\nlast", TELLWIRE_URL=url(server))
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 5
    assert [message["data"] for message in kept(server, channel)] == ["one", 2, "", {}, "last"]


def test_pub_publishes_what_is_not_utf8_with_replacements(server: Server, channel: str) -> None:
    assert run("pub", channel, "-", stdin=b"a\xffb\n", TELLWIRE_URL=url(server)).returncode == 0
    assert [message["data"] for message in kept(server, channel)] == ["a\ufffdb"]


def test_pub_with_an_id_is_there_once(server: Server, channel: str) -> None:
    first = run("pub", channel, "x", "--id", "one", TELLWIRE_URL=url(server))
    second = run("pub", channel, "x", "--id", "one", TELLWIRE_URL=url(server))
    assert first.stdout == second.stdout
    assert "was there already" in second.stderr
    assert len(kept(server, channel)) == 1


def test_pub_of_an_ephemeral_message_has_no_position(server: Server, channel: str) -> None:
    assert run("pub", channel, "x", "--ephemeral", TELLWIRE_URL=url(server)).stdout == "-\n"
    assert kept(server, channel) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["no such name", "x"], "is not a channel name"),
        (["--json", "news", "{"], "this is not JSON"),
        (["--id", "a", "news", "-"], "--id names one message"),
        (["tight:a", "x" * 100], "64"),
        (["news", "x", "--url", "localhost:8000"], "'localhost:8000' is not the address of a server"),
    ],
)
def test_pub_that_cannot_be_says_why(server: Server, args: list[str], says: str) -> None:
    done = run("pub", *args, TELLWIRE_URL=url(server))
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_pub_tries_again_under_the_same_id(start_server: Callable[..., Server], channel: str, start: Start) -> None:
    server = start_server()
    port = server.port
    server.stop()
    publishing = start("pub", channel, "x", TELLWIRE_URL=f"http://127.0.0.1:{port}")
    assert "trying again in" in publishing.err.readline()
    server = start_server(server={"port": port})
    (position,) = publishing.lines(1)
    assert publishing.process.wait(60) == 0
    (message,) = kept(server, channel)
    assert position.endswith(f".{message['seq']}")


def test_sub_prints_data_one_per_line(server: Server, channel: str, start: Start) -> None:
    for data in ("text", {"a": 1}, "two\nlines", 7, None):
        server.publish(channel, data)
    reading = start("sub", channel, "--since", "earliest", TELLWIRE_URL=url(server))
    assert reading.lines(5) == ["text", '{"a": 1}', '"two\\nlines"', "7", "null"]
    server.publish(channel, "live")
    assert reading.lines(1) == ["live"]


def test_sub_without_more_begins_now(server: Server, channel: str, start: Start) -> None:
    server.publish(channel, "old")
    reading = start("sub", channel, TELLWIRE_URL=url(server))
    count = 0
    # There is no sign that it reads but the first message that it prints.
    first: list[str] = []
    thread = threading.Thread(target=lambda: first.extend(reading.lines(1)))
    thread.start()
    while thread.is_alive():
        server.publish(channel, count)
        count += 1
        thread.join(0.02)
    begin = int(first[0])
    assert reading.lines(count - begin - 1) == [str(number) for number in range(begin + 1, count)]


def test_sub_prints_whole_messages_of_several_channels_in_order(server: Server, channel: str, start: Start) -> None:
    other = f"{channel}-b"
    for number in range(6):
        server.publish(other if number % 2 else channel, number)
    reading = start("sub", channel, other, "--since", "earliest", "--envelope", TELLWIRE_URL=url(server))
    messages = [json.loads(line) for line in reading.lines(6)]
    assert [message["data"] for message in messages] == list(range(6))
    assert [message["channel"] for message in messages] == [channel, other] * 3
    assert messages == sorted(messages, key=lambda message: message["seq"])


def test_sub_says_what_may_be_missing(server: Server, channel: str, start: Start) -> None:
    channel = f"short:{channel}"
    first = server.publish(channel, 0)
    for number in range(1, 8):
        server.publish(channel, number)
    reading = start("sub", channel, "--since", first, TELLWIRE_URL=url(server))
    assert reading.lines(5) == ["3", "4", "5", "6", "7"]
    assert reading.err.readline().startswith("gap (trimmed): between ")


def test_sub_goes_on_after_the_server_was_killed(
    start_server: Callable[..., Server], tmp_path: Path, channel: str, start: Start
) -> None:
    settings = {"broker": f"sqlite:///{tmp_path}/log.db"}
    server = start_server(server=settings)
    reading = start("sub", channel, "--since", "earliest", TELLWIRE_URL=url(server))
    server.publish(channel, 1)
    server.publish(channel, 2)
    assert reading.lines(2) == ["1", "2"]
    server.kill()
    server.wait()
    assert "connecting again in" in reading.err.readline()
    server = start_server(server={"port": server.port, **settings})
    server.publish(channel, 3)
    assert reading.lines(1) == ["3"]
    assert reading.end(signal.SIGINT) == 130
    assert "Traceback" not in reading.err.read()


def test_sub_goes_on_elsewhere_when_the_server_drains(
    start_server: Callable[..., Server], channel: str, start: Start
) -> None:
    server = start_server()
    reading = start("sub", channel, "--since", "earliest", TELLWIRE_URL=url(server))
    server.publish(channel, 1)
    assert reading.lines(1) == ["1"]
    assert server.stop() == 0
    assert "connecting again in" in reading.err.readline()
    server = start_server(server={"port": server.port})
    server.publish(channel, 2)
    assert reading.lines(1) == ["2"]
    reading.end(signal.SIGTERM)
    # The memory broker's log is gone with its server: that is said.
    assert "gap (epoch)" in reading.err.read()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["sub", "bad name"], "is not a channel name"),
        (["sub", "news", "--since", "yesterday"], "yesterday"),
        (["sub", "news", "--since", "now", "--last", "3"], "exclude each other"),
        (["sub"], "Missing argument"),
        (["history", "bad name"], "is not a channel name"),
        (["history", "news", "--before", "???"], "???"),
        (["sub", "news", "--url", "ftp://x"], "'ftp://x' is not the address of a server"),
        (["sub", "news", "--url", "http://[x"], "'http://[x' is not the address of a server"),
    ],
)
def test_reading_that_cannot_be_says_why(server: Server, args: list[str], says: str) -> None:
    done = run(*args, TELLWIRE_URL=url(server))
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_tail_prints_the_newest_then_follows(server: Server, channel: str, start: Start) -> None:
    for number in range(20):
        server.publish(channel, number)
    reading = start("tail", "-n", "3", channel, TELLWIRE_URL=url(server))
    assert reading.lines(3) == ["17", "18", "19"]
    server.publish(channel, 20)
    assert reading.lines(1) == ["20"]
    assert start("tail", channel, TELLWIRE_URL=url(server)).lines(10)[0] == "11"


def test_reader_whose_output_closes_ends_quietly(server: Server, channel: str, start: Start) -> None:
    server.publish(channel, 0)
    reading = start("sub", channel, "--since", "earliest", TELLWIRE_URL=url(server))
    reading.lines(1)
    reading.out.close()
    while reading.process.poll() is None:
        server.publish(channel, "x")
        with contextlib.suppress(subprocess.TimeoutExpired):  # not more than it is given all of, however slow it is
            reading.process.wait(0.02)
    assert reading.process.returncode == 141
    assert reading.err.read() == ""


def test_history_prints_the_newest_oldest_first(server: Server, channel: str) -> None:
    for number in range(10):
        server.publish(channel, number)
    done = run("history", channel, "--limit", "4", TELLWIRE_URL=url(server))
    assert done.stdout.split() == ["6", "7", "8", "9"]


def test_history_pages_back_over_everything_kept(server: Server, channel: str) -> None:
    count = 1234
    server.publish_all([{"channel": channel, "data": number} for number in range(count)])
    done = run("history", channel, "--limit", "5000", TELLWIRE_URL=url(server))
    assert done.stdout.split() == [str(number) for number in range(count)]


def test_history_before_a_position(server: Server, channel: str) -> None:
    positions = [server.publish(channel, number) for number in range(5)]
    done = run("history", channel, "--before", positions[3], "--envelope", TELLWIRE_URL=url(server))
    assert [json.loads(line)["data"] for line in done.stdout.splitlines()] == [0, 1, 2]


def test_history_of_an_empty_channel_is_empty(server: Server, channel: str) -> None:
    done = run("history", channel, TELLWIRE_URL=url(server))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_history_without_a_server_says_so() -> None:
    done = run("history", "news", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "no answer from http://127.0.0.1:1" in done.stderr


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("plain", "plain"),
        ("tab\there", "tab\there"),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        ("c1 \x9b31m", '"c1 \\u009b31m"'),
        ("two\u2028lines", '"two\\u2028lines"'),
        ("\ud800", '"\\ud800"'),
        ({"a": "\x7f"}, '{"a": "\\u007f"}'),
        (["ü"], '["ü"]'),
        (True, "true"),
    ],
)
def test_what_is_printed_is_one_harmless_line(value: object, line: str) -> None:
    assert shown(value) == line
    assert "\n" not in shown(value)


def test_address_of_a_websocket_is_understood(server: Server, channel: str) -> None:
    assert run("pub", channel, "x", "--url", f"ws://127.0.0.1:{server.port}").returncode == 0
    assert [message["data"] for message in kept(server, channel)] == ["x"]


def test_version_is_printed() -> None:
    assert run("version").stdout == f"tellwire {__version__}\n"


KEY = "a secret that is long enough for HS256"


def test_commands_say_who_they_are(start_server: Callable[..., Server]) -> None:
    server = start_server(auth={"token_key": KEY})
    may = run(
        "token", "--user", "ann", "--subscribe", "news", "--publish", "news", TELLWIRE_TOKEN_KEY=KEY
    ).stdout.strip()
    where = ("--url", url(server))
    assert run("pub", "news", "1", *where, TELLWIRE_TOKEN=may).returncode == 0
    assert run("history", "news", *where, "--token", may).stdout == "1\n"
    for command in (("pub", "news", "2"), ("history", "news"), ("sub", "news")):
        without = run(*command, *where)
        assert without.returncode == 1
        assert "this server wants a token" in without.stderr
        elsewhere = run(command[0], "other", *command[2:], *where, TELLWIRE_TOKEN=may)
        assert elsewhere.returncode == 1
        assert "you may not" in elsewhere.stderr
        assert may not in elsewhere.stderr
    assert run("pub", "news", "2", *where, "--token", "a b").returncode == 2
