"""The end of each connection is told once: also of those that a killed process had."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.application.hosting import Client, Host

APP = Path(__file__).parent / "leaving_app.py"


MEMBERSHIP = {"channel": "news", "session": "of this test", "enter": True}


def come(host: Host, stack: ExitStack, user: str) -> None:
    """Connect as a user: those with an even number over WebSocket, the others over SSE."""
    client = stack.enter_context(Client(host.url))
    if int(user[1:]) % 2:
        stack.enter_context(client.events("news", user=user))
    else:
        socket = stack.enter_context(client.socket(f"user={user}"))
        socket.ask("subscribe", channel="news")
    # Written to the same file after the note of the connection, hence answered when that is in it.
    entered = client.http.post(f"/realtime/v1/presence?user={user}", json=MEMBERSHIP)
    assert entered.status_code == 200, entered.text


@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn"])
def test_connections_of_a_killed_process_are_told_of_once(tmp_path: Path, kind: str) -> None:
    log = str(tmp_path / "log")
    users = [f"u{number}" for number in range(8)]
    with ExitStack() as stack, Host(APP, kind, log) as host:
        with ExitStack() as early:
            come(host, early, "u100")
        assert host.read_line().startswith("u100|websocket|a life|")
        for user in users:
            come(host, stack, user)
        assert host.kill() == []
    with ExitStack() as stack, Host(APP, kind, log) as host:
        come(host, stack, "u8")
        told = sorted(host.read_line() for _ in users)
        wires = {user: "sse" if int(user[1:]) % 2 else "websocket" for user in users}
        assert told == [f"{user}|{wire}|a life|None|its node died" for user, wire in wires.items()]
        with ExitStack() as late:
            come(host, late, "u9")
        assert host.read_line().startswith("u9|sse|")
        (last,) = host.terminate()
        assert last.startswith("u8|websocket|")
    with Host(APP, kind, log) as host:
        with ExitStack() as late:
            come(host, late, "u10")
        assert host.read_line().startswith("u10|websocket|")
        assert host.terminate() == []
