"""Who is here, over every transport: in by any of them, seen on all of them, out exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tellwire.node.callers import client_name
from tests.guarded import GUARDED, SECRET, bearer, someone, token
from tests.readers import READERS, Reader
from tests.serving import Server
from tests.wires import Http, WebSocket

KINDS = ("direct", "hypercorn")

NODE_LEASE_S = 8.0
"""Long enough for who comes back to a server that was started again to do so, on a machine that is busy."""


def post(server: Server, text: str, **body: Any) -> dict[str, Any]:
    with Http(server) as http:
        answer = http.post("/v1/presence", body, headers=[bearer(text)])
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.json()
        return found


def look(server: Server, channel: str) -> dict[str, Any]:
    with Http(server) as http:
        found: dict[str, Any] = http.get(f"/v1/presence?channel={channel}&token={token()}").json()
        return found


def told(push: dict[str, Any]) -> tuple[str, str, Any]:
    """Return what a push tells: what happened, to whom, and their state."""
    return push["type"], push["member"]["client"], push["member"].get("state")


class Watchers:
    """One watcher over each transport."""

    def __init__(self, server: Server, channel: str, stack: contextlib.ExitStack, **parameters: Any) -> None:
        self.by_name: dict[str, Reader] = {
            name: stack.enter_context(reader(server, channel, token=token(), presence="watch", **parameters))
            for name, reader in READERS.items()
        }

    def read(self, count: int) -> list[dict[str, Any]]:
        """Read so many pushes; each watcher has to get the same."""
        seen = {name: [reader.read() for _ in range(count)] for name, reader in self.by_name.items()}
        first = seen["websocket"]
        assert all(pushes == first for pushes in seen.values()), seen
        return first

    def read_to(self, clients: int, *, here: int) -> dict[str, Any]:
        """Read on while `here` members become `clients`; return the last push.

        A large channel is counted a second after a change: whoever is slow may be told of what is between, too.
        """
        push: dict[str, Any] = {}
        while here != clients:
            (push,) = self.read(1)
            assert push["type"] in ("count", "leave"), push
            here = push["clients"] if push["type"] == "count" else here - 1
        return push


@pytest.mark.parametrize("kind", KINDS)
def test_everybody_is_told_once_and_in_order(patient_servers: Callable[[str], Server], kind: str, channel: str) -> None:
    server = patient_servers(kind)
    user, others = someone(), someone()
    text = token(user, info={"name": "Ann"})
    client, second = client_name(user, "s"), client_name(others, "s2")
    with contextlib.ExitStack() as stack:
        watchers = Watchers(server, channel, stack)
        with WebSocket(server, packed=True, token=text) as wire:
            assert wire.ask(type="connect", session="s")["client"] == client
            entered = wire.ask(type="presence", channel=channel, enter=True)
            (member,) = entered["members"]
            at = member["entered"]
            assert member == {"client": client, "user": user, "info": {"name": "Ann"}, "entered": at}
            assert (entered["clients"], entered["users"]) == (1, 1)
            assert entered["client"] == client
            for state in ({"typing": True}, {"typing": True}, {"typing": False}, None):
                wire.ask(type="presence", channel=channel, enter=True, state=state)
            wire.ask(type="presence", channel=channel, enter=True)  # a state that is left out stays
            post(server, token(others), channel=channel, session="s2", enter=True, state=1)
            found = look(server, channel)
            assert [each["client"] for each in found["members"]] == [client, second]
            assert (found["clients"], found["users"], found["client"]) == (2, 2, "")
            assert wire.ask(type="presence", channel=channel, enter=False)["clients"] == 1
            wire.ask(type="presence", channel=channel, enter=False)  # twice is once
        post(server, token(others), channel=channel, session="s2", enter=False)
        pushes = watchers.read(7)
        assert [told(push) for push in pushes] == [
            ("join", client, None),
            ("update", client, {"typing": True}),
            ("update", client, {"typing": False}),
            ("update", client, None),
            ("join", second, 1),
            ("leave", client, None),
            ("leave", second, None),
        ]
        assert pushes[0]["member"] == member
        assert [push["member"]["entered"] for push in pushes[1:4]] == [at] * 3  # as it was, whatever is new
        assert pushes[5]["member"] == {"client": client, "user": user}
        assert [push["seq"] for push in pushes] == sorted({push["seq"] for push in pushes})
        with WebSocket(server, token=token()) as wire:
            wire.ask(type="publish", channel=channel, data="end")
        assert watchers.read(1)[0]["data"] == "end"  # and nothing else in between


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_reading_enters_and_its_end_leaves(
    guarded_servers: Callable[[str], Server], kind: str, name: str, channel: str
) -> None:
    """A stream holds the membership itself, a poll by its lease."""
    server = guarded_servers(kind)
    user = someone()
    client = client_name(user, "s")
    with READERS["websocket"](server, channel, token=token(), presence="watch") as watcher:
        with READERS[name](server, channel, token=token(user), session="s", presence="enter"):
            assert told(watcher.read()) == ("join", client, None)
        assert told(watcher.read()) == ("leave", client, None)


def test_two_connections_are_one_member(guarded: Server, channel: str) -> None:
    user = someone()
    client = client_name(user, "s")
    parameters: dict[str, Any] = {"token": token(user), "session": "s", "presence": "enter"}
    with READERS["websocket"](guarded, channel, token=token(), presence="watch") as watcher:
        with READERS["sse"](guarded, channel, **parameters):
            with READERS["stream"](guarded, channel, **parameters):
                pass
            with READERS["sse"](guarded, channel, **{**parameters, "session": "s2"}):
                assert look(guarded, channel)["users"] == 1
            assert told(watcher.read()) == ("join", client, None)
            assert told(watcher.read())[:2] == ("join", client_name(user, "s2"))
            assert told(watcher.read())[:2] == ("leave", client_name(user, "s2"))
            assert look(guarded, channel)["clients"] == 1
        assert told(watcher.read()) == ("leave", client, None)


@pytest.mark.parametrize("second", READERS)
def test_changing_wires_is_neither_a_leave_nor_a_join(
    start_server: Callable[..., Server], second: str, channel: str
) -> None:
    server = start_server(auth={"token_key": SECRET}, limits={"presence_grace_s": 60})
    user = someone()
    parameters: dict[str, Any] = {"token": token(user), "session": "s", "presence": "enter"}
    with READERS["websocket"](server, channel, token=token(), presence="watch") as watcher:
        for first in ("websocket", "sse"):
            with READERS[first](server, channel, **parameters):
                pass
            with READERS[second](server, channel, **parameters):
                assert look(server, channel)["clients"] == 1
        post(server, token(user), channel=channel, session="s", enter=False)
        assert [watcher.read()["type"] for _ in range(2)] == ["join", "leave"]


@pytest.mark.parametrize("name", READERS)
def test_watcher_that_comes_back_is_told_of_what_it_missed(patient: Server, name: str, channel: str) -> None:
    user = someone()
    client = client_name(user, "s")
    with READERS[name](patient, channel, token=token(), presence="watch") as watcher:
        post(patient, token(user), channel=channel, session="s", enter=True)
        assert told(watcher.read()) == ("join", client, None)
        cursor = watcher.cursor
    post(patient, token(user), channel=channel, session="s", enter=True, state=1)
    post(patient, token(user), channel=channel, session="s", enter=False)
    for other in READERS.values():
        with other(patient, channel, token=token(), presence="watch", since=cursor) as watcher:
            assert [told(watcher.read()) for _ in range(2)] == [("update", client, 1), ("leave", client, None)]


def test_large_channels_are_counted(guarded: Server, channel: str) -> None:
    """More than three are a crowd here: watchers are told how many there are, and lists are empty-handed."""
    crowd = f"crowd:{channel}"
    with contextlib.ExitStack() as stack:
        watchers = Watchers(guarded, crowd, stack)
        wires = []
        for _ in range(5):
            wires.append(stack.enter_context(WebSocket(guarded, token=token(someone()))))
            answer = wires[-1].ask(type="presence", channel=crowd, enter=True)
        assert (answer["members"], answer["clients"], answer["users"]) == (None, 5, 5)
        assert [push["type"] for push in watchers.read(3)] == ["join"] * 3
        push = watchers.read_to(5, here=3)
        assert (push["type"], push["clients"], push["users"]) == ("count", 5, 5)
        for wire in wires[:3]:
            wire.ask(type="presence", channel=crowd, enter=False)
        watchers.read_to(2, here=5)
        assert len(look(guarded, crowd)["members"]) == 2
        wires[3].ask(type="presence", channel=crowd, enter=False)
        assert watchers.read(1)[0]["type"] == "leave"


@pytest.mark.parametrize("dies", [True, False], ids=["killed", "stopped"])
def test_server_that_comes_back_tells_only_of_who_does_not(
    start_server: Callable[..., Server], tmp_path: Path, dies: bool, channel: str
) -> None:
    limits = {**GUARDED["limits"], "presence_lease_s": 300.0}
    settings = {"auth": {"token_key": SECRET}, "server": {"broker": f"sqlite:///{tmp_path / 'log.db'}"}}
    # The lease of the first lasts until the second is there, and then no longer than the second's own.
    first = start_server(**settings, limits={**limits, "node_lease_s": 120.0})
    users = [someone() for _ in range(4)]
    stayed, gone = users[:2], users[2:]
    with contextlib.ExitStack() as stack:
        watcher = READERS["websocket"](first, channel, token=token(), presence="watch")
        stack.callback(watcher.close)
        for number, user in enumerate(users):
            if number % 2:
                post(first, token(user), channel=channel, session="s", enter=True, state=number)
            else:
                reader = READERS["sse"](first, channel, token=token(user), session="s", presence="enter")
                stack.callback(reader.close)
            assert told(watcher.read())[:2] == ("join", client_name(user, "s"))
        cursor = watcher.cursor
        if dies:
            first.kill()
            first.wait()
        else:
            first.stop()
    second = start_server(**settings, limits={**limits, "node_lease_s": NODE_LEASE_S})
    with contextlib.ExitStack() as stack:
        for user in stayed:
            stack.enter_context(READERS["stream"](second, channel, token=token(user), session="s", presence="enter"))
        watcher = stack.enter_context(READERS["sse"](second, channel, token=token(), presence="watch", since=cursor))
        left = [watcher.read() for _ in gone]
        assert {told(push)[:2] for push in left} == {("leave", client_name(user, "s")) for user in gone}
        found = look(second, channel)
        assert {each["client"] for each in found["members"]} == {client_name(user, "s") for user in stayed}
        assert [each["state"] for each in found["members"] if "state" in each] == [1]
        with Http(second) as http:
            http.post("/v1/messages", {"channel": channel, "data": "end"}, headers=[bearer(token())])
        assert watcher.read()["data"] == "end"  # nothing else was told
