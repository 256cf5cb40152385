"""The JavaScript client against a real server: every feature over every transport."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.js.conftest import CLIENT
from tests.clients.js.driver import ClientError, Driver
from tests.serving import Server

TRANSPORTS = ("websocket", "sse", "longpoll", "poll")

FAST = {"pollMs": 50}

Connect = Callable[..., Driver]


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_reads_publishes_and_pages_back(server: Server, channel: str, connect: Connect, transport: str) -> None:
    before = [server.publish(channel, number) for number in range(5)]
    client = connect(url(server), transports=[transport], **FAST)
    client.do("subscribe", channel=channel, last=3)
    assert client.wait_messages(channel, 3) == [2, 3, 4]
    answers = client.do("publish_all", channel=channel, list=list(range(5, 300)))
    assert client.wait_messages(channel, 298) == list(range(2, 300))
    assert [answer["duplicate"] for answer in answers] == [False] * 295
    page = client.do("history", channel=channel, before=before[-1], limit=2)
    assert [(message["data"], message["position"]) for message in page["messages"]] == [(2, before[2]), (3, before[3])]
    assert [message["data"] for message in client.do("history", channel=channel, limit=2)["messages"]] == [298, 299]


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_publishes_past_the_rate_keep_their_order(
    start_server: Callable[..., Server], channel: str, connect: Connect, transport: str
) -> None:
    server = start_server(limits={"publishes_per_s": 500})
    client = connect(url(server), transports=[transport], **FAST)
    client.do("subscribe", channel=channel, since="earliest")
    client.do("publish_all", channel=channel, list=list(range(1000)))
    assert client.wait_messages(channel, 1000) == list(range(1000))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_publishes_with_conditions(server: Server, channel: str, connect: Connect, transport: str) -> None:
    client = connect(url(server), transports=[transport], **FAST)
    first = client.do("publish", channel=channel, data=1, id="one")
    assert client.do("publish", channel=channel, data=2, id="one") == {**first, "duplicate": True}
    client.do("publish", channel=channel, data=2, expect=first["position"])
    with pytest.raises(ClientError, match="conflict"):
        client.do("publish", channel=channel, data=3, expect=first["position"])
    with pytest.raises(ClientError, match="invalid_channel"):
        client.do("publish", channel="not a channel", data=3)
    with pytest.raises(ClientError, match="too_large"):
        client.do("publish", channel=f"tight:{channel}", data="x" * 100)
    with pytest.raises(ClientError, match="invalid_channel"):
        client.do("subscribe", channel="not a channel")
    # None of this has ended anything.
    client.do("subscribe", channel=channel, since="earliest")
    assert client.wait_messages(channel, 2) == [1, 2]


@pytest.mark.parametrize("transport", ["websocket", "sse", "longpoll"])
def test_ephemeral_messages_come_to_who_is_there(
    server: Server, connect: Connect, channel: str, transport: str
) -> None:
    client = connect(url(server), transports=[transport])
    client.do("subscribe", channel=channel)
    client.wait_connected(transport)
    for number in range(20):  # a long poll may be between two questions
        server.publish(channel, number, ephemeral=True)
        server.publish(channel, "end")
        client.wait_messages(channel, number + 1)
        if number in client.messages[channel]:
            return
    raise AssertionError(client.messages)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_channels_come_and_go_while_others_are_read(
    server: Server, channel: str, connect: Connect, transport: str
) -> None:
    client = connect(url(server), transports=[transport], **FAST)
    names = [f"{channel}-{number}" for number in range(8)]
    for round_, name in enumerate(names):
        for each in names:
            server.publish(each, f"before {round_}")
        client.do("subscribe", channel=name, since="earliest")
    for each in names:
        server.publish(each, "after")
    expected = [*(f"before {round_}" for round_ in range(8)), "after"]
    for each in names:
        assert client.wait_messages(each, 9) == expected


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_gap_is_told(server: Server, connect: Connect, channel: str, transport: str) -> None:
    name = f"short:{channel}"
    start = server.publish(name, 0)
    for number in range(1, 12):
        server.publish(name, number)
    client = connect(url(server), transports=[transport], **FAST)
    client.do("subscribe", channel=name, since=start)
    assert client.wait_messages(name, 5) == [7, 8, 9, 10, 11]
    assert [(gap["reason"], gap["channels"]) for gap in client.gaps] == [("trimmed", [name])]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_server_that_dies_and_comes_back_loses_and_doubles_nothing(
    start_server: Callable[..., Server], channel: str, connect: Connect, tmp_path: Path, transport: str, how: int
) -> None:
    settings: dict[str, Any] = {
        "server": {"broker": f"sqlite:///{tmp_path}/log.db"},
        "limits": {"sse_retry_ms": 50},
        "namespaces": [{"name": "default", "history_messages": 10_000}],
    }
    server = start_server(**settings)
    client = connect(url(server), transports=[transport], **FAST)
    client.do("subscribe", channel=channel)
    client.do("subscribe", channel=f"{channel}-mine")
    theirs, mine = 0, 0
    waiting = []
    for life in range(3):
        server.publish_all([{"channel": channel, "data": theirs + number} for number in range(200)])
        theirs += 200
        # These are on their way when it dies, or not yet begun.
        for _ in range(4):
            waiting.append(client.begin("publish_all", channel=f"{channel}-mine", list=list(range(mine, mine + 100))))
            mine += 100
        if life % 2:
            client.end(waiting.pop())
        (server.kill if how == signal.SIGKILL else server.terminate)()
        server.wait()
        waiting.append(client.begin("publish", channel=f"{channel}-mine", data=mine))
        mine += 1
        settings["server"]["port"] = server.port
        server = start_server(**settings)
        server.publish_all([{"channel": channel, "data": theirs + number} for number in range(50)])
        theirs += 50
    for each in waiting:
        client.end(each)
    assert client.wait_messages(channel, theirs) == list(range(theirs))
    assert client.wait_messages(f"{channel}-mine", mine) == list(range(mine))
    assert client.gaps == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_server_that_lost_its_log_is_told_by_a_gap(
    start_server: Callable[..., Server], channel: str, connect: Connect, transport: str
) -> None:
    settings: dict[str, Any] = {"limits": {"sse_retry_ms": 50}}
    server = start_server(**settings)
    client = connect(url(server), transports=[transport], **FAST)
    names = [channel, f"{channel}-quiet"]
    for name in names:
        client.do("subscribe", channel=name)
    server.publish(channel, "old")
    client.wait_messages(channel, 1)
    server.kill()
    server.wait()
    settings["server"] = {"port": server.port}
    server = start_server(**settings)
    server.publish(channel, "new")
    server.publish(names[1], "new too")
    assert client.wait_messages(channel, 2) == ["old", "new"]
    assert client.wait_messages(names[1], 1) == ["new too"]
    assert {gap["reason"] for gap in client.gaps} == {"epoch"}
    server.publish(channel, "newer")
    assert client.wait_messages(channel, 3)[-1] == "newer"


LIVE = """
const { Tellwire } = await import(process.argv[1]);
const client = new Tellwire(process.argv[2], { transports: [process.argv[3]] });
const subscription = client.subscribe("process");
await subscription.ready;
await client.publish("process", 1);
for await (const { data } of subscription) break;
client.close();
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_process_ends_when_its_client_is_closed(server: Server, transport: str) -> None:
    arguments = [(CLIENT / "src" / "tellwire.js").as_uri(), url(server), transport]
    command = ["node", "--experimental-websocket", "--no-warnings", "--input-type=module", "-e", LIVE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


ROUNDS = """
const { Tellwire } = await import(process.argv[1]);
const names = ["websocket", "sse", "longpoll", "poll"];
for (let round = 0; round < 1000; round += 1) {
  const client = new Tellwire(process.argv[2], { transports: [names[round % 4]] });
  const subscription = client.subscribe("rounds");
  client.publish("rounds", round, { ephemeral: true }).catch(() => {});
  client.presence("rounds");
  // Closed before, while and after it connects.
  const turns = round % 29;
  if (turns === 28) await subscription.ready;
  else for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  client.close();
}
for (let turn = 0; turn < 100; turn += 1) await new Promise((resolve) => setImmediate(resolve));
console.log(process.getActiveResourcesInfo().filter((name) => name === "Timeout").length, "timers");
"""


def test_a_thousand_rounds_leave_nothing_that_keeps_a_process(server: Server) -> None:
    # A connection that is left keeps it from ending; what nobody handles is told on standard error.
    arguments = [(CLIENT / "src" / "tellwire.js").as_uri(), url(server)]
    flags = ["--experimental-websocket", "--disable-warning=ExperimentalWarning", "--input-type=module"]
    done = subprocess.run(["node", *flags, "-e", ROUNDS, *arguments], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 timers\n", "")
