"""The operators' commands: what they print, for people and for programs, and what they refuse."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.cli.commands import Running, run
from tests.guarded import SECRET, token
from tests.readers import LineReader, SocketReader
from tests.serving import SHARED, WATCHDOG_S, Server
from tests.wires import WebSocket

OPS = token("ops", can={"admin": ["*"]})


@pytest.fixture(scope="module")
def guarded_node() -> Iterator[Server]:
    server = Server(**{**SHARED, "server": {"node_name": "web-1"}, "auth": {"token_key": SECRET}})
    yield server
    server.close()


def ask(server: Server, *args: str, status: int = 0, text: str = OPS) -> str:
    """Run a command against a server; return what it printed, or what it said was wrong."""
    done = run(*args, TELLWIRE_URL=f"http://127.0.0.1:{server.port}", TELLWIRE_TOKEN=text)
    assert done.returncode == status, done
    return done.stderr if status else done.stdout


def test_tables_tell_of_nodes_channels_and_connections(guarded_node: Server) -> None:
    with (
        SocketReader(guarded_node, "listed:a", token=token("ann")),
        LineReader(guarded_node, "listed:a", "listed:b", token=token("[red]eve")),
    ):
        heading, row = ask(guarded_node, "nodes").splitlines()
        assert heading.split() == ["NODE", "STATE", "UP", "CONN", "CHANNELS", "IN/s", "OUT/s", "LAGGING", "LAG"]
        assert row.split()[:2] == ["web-1", "ready"]
        heading, *rows = ask(guarded_node, "channels", "listed:").splitlines()
        assert [line.split()[0] for line in rows] == ["listed:a", "listed:b"]
        heading, *rows = ask(guarded_node, "connections", "--channel", "listed:a").splitlines()
        assert sorted(line.split()[1] for line in rows) == ["[red]eve", "ann"], "a name does nothing here"
        assert len(ask(guarded_node, "connections", "--channel", "listed:a", "--limit", "1").splitlines()) == 2
        answer = json.loads(ask(guarded_node, "connections", "--user", "ann", "--json"))
        assert [each["channels"] for each in answer["connections"]] == [["listed:a"]]
    assert ask(guarded_node, "channels", "nothing:") == "no channels\n"


def test_members_are_shown_and_taken_out(guarded_node: Server) -> None:
    with WebSocket(guarded_node) as wire:
        wire.ask(type="connect", token=token("eve"), session="eve")
        wire.ask(type="subscribe", channel="den")
        wire.ask(type="presence", channel="den", enter=True, state="typing")
        _, row = ask(guarded_node, "presence", "den").splitlines()
        assert (row.split()[1:3], row.split()[-1]) == (["eve", "web-1"], "typing")
        assert ask(guarded_node, "unsubscribe", "den", "--user", "eve") == "1 reading ended\n"
        assert wire.read()["type"] == "unsubscribed"
        assert ask(guarded_node, "presence", "den") == "no members\n"
        done = json.loads(ask(guarded_node, "disconnect", "--user", "eve", "--stay-away", "--json"))
        assert done == {"connections": 1, "unanswered": []}
        assert wire.read()["code"] == 4501


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("disconnect",), 2, "say whom: --user or --client"),
        (("unsubscribe", "den", "--user", "a", "--client", "b"), 2, "say whom"),
        (("nodes", "--url", "http://127.0.0.1:1"), 1, "no answer from http://127.0.0.1:1"),
        (("connections", "--node", "web-9"), 1, "no node is called 'web-9'; there are web-1"),
        (("presence", "$nodes"), 1, "$nodes"),
        (("drain", "--node", "web-9"), 1, "no node is called 'web-9'"),
        (("drain", "--node", "a", "--pid", "77"), 2, "exclude each other"),
        (("drain", "--pid", "999999999"), 1, "process 999999999 is not there"),
        (("top", "--url", "http://127.0.0.1:1"), 1, "no answer from http://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_is_said(guarded_node: Server, args: tuple[str, ...], status: int, says: str) -> None:
    assert says in ask(guarded_node, *args, status=status)


def test_who_may_not_is_told_so(guarded_node: Server) -> None:
    text = token("ann", can={"admin": ["nodes"]})
    assert "web-1" in ask(guarded_node, "nodes", text=text)
    for args in (("channels",), ("connections",), ("presence", "den"), ("drain",), ("disconnect", "--user", "a")):
        assert "you may not do this as an operator" in ask(guarded_node, *args, status=1, text=text)


def test_drain_waits_until_the_server_has_ended(start_server: Callable[..., Server]) -> None:
    server = start_server(server={"node_name": "web-1"})
    with SocketReader(server, "news") as reader:
        done = run("drain", "--url", f"http://127.0.0.1:{server.port}")
        assert done.returncode == 0, done
        lines = done.stdout.splitlines()
        assert (lines[0], lines[-1]) == ("draining: web-1", "done")
        assert reader.read()["code"] == 1012
    assert server.wait() == 0


def test_drain_by_process(start: Callable[..., Running]) -> None:
    serving = start("serve", "--port", "0", "--drain-s", "0.1")
    serving.lines(7)
    done = run("drain", "--pid", str(serving.process.pid))
    assert (done.returncode, done.stdout) == (0, f"draining: process {serving.process.pid}\ndone\n"), done
    assert serving.process.wait(WATCHDOG_S) == 0


def test_drain_of_a_process_that_is_no_server_is_refused() -> None:
    sleeping = subprocess.Popen(["sleep", "60"])
    try:
        done = run("drain", "--pid", str(sleeping.pid))
        assert done.returncode == 1
        assert f"process {sleeping.pid} is not there, or is no Tellwire server of yours" in done.stderr
        assert sleeping.poll() is None
    finally:
        sleeping.kill()
        sleeping.wait()


@pytest.mark.parametrize(
    ("command", "args", "says"),
    [
        (
            "serve",
            ("--workers", "4"),
            "4 workers need a log that they share, and memory:// is one process's own",
        ),
        ("check-config", ("--workers", "2", "--broker", "sqlite:///log.db"), "sqlite:// is one process's own"),
        ("check-config", ("--workers", "0"), "--workers: workers takes a whole number from 1 to 1024, not '0'"),
        ("check-config", ("--node-name", "a b"), "--node-name: 'a b' is no name for a node"),
    ],
)
def test_workers_that_cannot_be_are_refused(command: str, args: tuple[str, ...], says: str) -> None:
    done = run(command, *args)
    assert done.returncode == 1
    assert says in done.stderr


def test_workers_without_their_broker_end_with_its_error() -> None:
    done = run("serve", "--port", "0", "--workers", "2", "--broker", "redis://127.0.0.1:1?timeout=1")
    assert done.returncode == 1
    assert "the server could not start: worker" in done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
