"""Tokens and users that are revoked: at once, on all connections, for whoever comes, and after a restart."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tellwire.auth import Grants, Identity
from tellwire.errors import CloseCode
from tellwire.node import Caller, Node
from tellwire.protocol.encodings import lines
from tellwire.testing.doors import settle
from tellwire.testing.harness import on_loop
from tests.guarded import ALL, SECRET, bearer, someone, token
from tests.nodes import bench
from tests.readers import PUSHED, READERS, target
from tests.serving import Server
from tests.wires import Closed, Http, WebSocket

KEYS = {"token_key": SECRET, "token_leeway_s": 60.0}
"""With a generous clock, so that a token can be of the next second already."""


def revoke(server: Server, **order: str) -> None:
    with Http(server) as http:
        answer = http.post("/v1/admin/revoke", order, headers=[bearer(token("root", can={"admin": ["revoke"]}))])
        assert (answer.status, answer.json()) == (200, {})


def later(user: str, **claims: Any) -> str:
    """Make a token that was issued after any revocation so far."""
    return token(user, iat=int(time.time()) + 2, **claims)


class Party:
    """One connection over each transport, all with the same token."""

    def __init__(self, server: Server, channel: str, text: str, stack: contextlib.ExitStack) -> None:
        self.readers = [stack.enter_context(READERS[name](server, channel, token=text)) for name in PUSHED]
        self.poll = stack.enter_context(Http(server))
        self.poll.send_request("GET", target("/v1/messages", (channel,), {"token": text, "wait": 30}))

    def read_end(self) -> None:
        for reader in self.readers:
            closing = reader.read()
            assert (closing["type"], closing["code"]) == ("closing", 4502)
            with pytest.raises(Closed):
                reader.read()
        answer = self.poll.read_response()
        assert (answer.status, answer.code) == (401, "revoked")

    def read(self, data: Any) -> None:
        for reader in self.readers:
            assert reader.read_data(1) == [data]
        assert [message["data"] for message in self.poll.read_response().json()["messages"]] == [data]


def check_refused(server: Server, text: str) -> None:
    with Http(server) as http:
        for path in ("/v1/messages", "/v1/events", "/v1/stream", "/v1/presence"):
            answer = http.get(target(path, ("a",), {"token": text}))
            assert (answer.status, answer.code) == (401, "revoked")
        assert http.post("/v1/messages", {"channel": "a", "data": 1}, headers=[bearer(text)]).code == "revoked"
    for wire in (WebSocket(server, token=text), WebSocket(server, packed=True)):
        with wire:
            if wire.packed:
                wire.say(type="connect", token=text)
            assert wire.read()["code"] == "revoked"
            assert wire.read_close()[0] == 4502


def check_taken(server: Server, text: str) -> None:
    with Http(server) as http:
        assert http.get(target("/v1/messages", ("a",), {"token": text})).status == 200
    with WebSocket(server) as wire:
        assert wire.ask(type="connect", token=text)["type"] == "connected"


@pytest.mark.parametrize("kind", ["direct", "hypercorn"])
@pytest.mark.parametrize("what", ["user", "token_id"])
def test_revoking_ends_all_connections_and_nobody_elses(
    start_server: Callable[..., Server], kind: str, what: str, channel: str
) -> None:
    server = start_server(kind, auth=KEYS)
    before = int(time.time()) - 10
    with contextlib.ExitStack() as stack:
        gone = [Party(server, channel, token("ann", jti="first"), stack)]
        kept = [Party(server, channel, token("bob", jti="other"), stack)]
        # Another token of the same user: concerned where the user is.
        (gone if what == "user" else kept).append(Party(server, channel, token("ann", jti="second"), stack))
        revoke(server, **({"user": "ann"} if what == "user" else {"token_id": "first"}))
        for party in gone:
            party.read_end()
        check_refused(server, token("ann", jti="first", iat=before))
        check_taken(server, later("ann", jti="third"))
        with Http(server) as http:
            http.post("/v1/messages", {"channel": channel, "data": "for the others"}, headers=[bearer(later("eve"))])
        for party in kept:
            party.read("for the others")
        if what == "user":
            check_refused(server, token("ann", iat=None))  # it does not say when it was issued
        else:
            check_refused(server, later("someone else", jti="first"))


def test_revoking_ends_waiting_and_one_way_requests_of_presence(guarded: Server, channel: str) -> None:
    """A poll that entered is told, too; its membership lapses with its lease."""
    user = someone()
    with WebSocket(guarded, token=token()) as watcher, Http(guarded) as poll:
        watcher.ask(type="presence", channel=channel, watch=True)
        parameters = {"token": token(user, jti=user), "wait": 0.2, "presence": "enter", "session": "s"}
        poll.send_request("GET", target("/v1/messages", (channel,), {**parameters, "wait": 30}))
        assert watcher.read()["type"] == "join"
        revoke(guarded, token_id=user)
        first = poll.read_response()
        if first.status == 200:  # its own join was quicker
            first = poll.get(target("/v1/messages", (channel,), parameters))
        assert first.code == "revoked"


def test_refresh_with_a_revoked_token_leaves_the_connection_on(guarded: Server) -> None:
    user = someone()
    revoke(guarded, token_id=f"{user}-old")
    with WebSocket(guarded, token=token(user, jti=f"{user}-new")) as wire:
        assert wire.ask(type="refresh", token=token(user, jti=f"{user}-old"))["code"] == "revoked"
        assert wire.ask(type="ping")["type"] == "pong"
        revoke(guarded, token_id=f"{user}-new")
        assert wire.read()["code"] == 4502


@pytest.mark.parametrize("dies", [False, True], ids=["stopped", "killed"])
def test_what_was_revoked_stays_so_after_a_restart(
    start_server: Callable[..., Server], tmp_path: Path, dies: bool
) -> None:
    settings = {"server": {"broker": f"sqlite:///{tmp_path / 'log.db'}"}, "auth": KEYS}
    first = start_server(**settings)
    old = int(time.time()) - 30
    revoke(first, user="ann")
    revoke(first, token_id="stolen")
    if dies:
        first.kill()
        first.wait()
    else:
        first.stop()
    second = start_server(**settings)
    check_refused(second, token("ann", iat=old))
    check_refused(second, token("bob", jti="stolen"))
    check_taken(second, later("ann"))
    check_taken(second, token("bob", jti="his own", iat=old))
    with WebSocket(second, token=later("ann")) as wire:  # what is read again after a restart cuts nobody off
        assert wire.ask(type="ping")["type"] == "pong"
    second.stop()
    check_refused(start_server(**settings), token("ann", iat=old))


def test_only_who_may_can_revoke(guarded: Server) -> None:
    with Http(guarded) as http:
        for can in ({**ALL, "admin": ["disconnect", "publish"]}, {"admin": ["revoke2", "Revoke"]}):
            answer = http.post("/v1/admin/revoke", {"user": "ann"}, headers=[bearer(token(can=can))])
            assert answer.code == "forbidden"
        orders: list[Any] = [{}, {"user": "a", "token_id": "b"}, {"user": 1}, []]
        for order in orders:
            assert http.post("/v1/admin/revoke", order, headers=[bearer(token())]).code == "bad_request"


class SilentDoor:
    """A door that notes with what it was closed."""

    hears = False

    def __init__(self) -> None:
        self.writable = True
        self.closed_with: CloseCode | None = None

    def write(self, batch: object) -> None:
        """Take it."""

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        self.closed_with = code


def found(token_id: str, issued_at: float) -> Caller:
    """Return somebody of whom it was found out just now who they are."""
    identity = Identity(user="ann", token_id=token_id, issued_at=issued_at, grants=Grants.ALL)
    return Caller(identity, "fake", "")


async def end_of(node: Node, caller: Caller) -> CloseCode | None:
    """Let somebody in; return what they are closed with at once."""
    door = SilentDoor()
    subscriber = node.admit(door, lines(chunked=False), caller)
    await settle()
    node.dismiss(subscriber)
    return door.closed_with


@on_loop
@pytest.mark.parametrize("order", [{"user": "ann"}, {"token_id": "t"}])
async def test_who_is_on_the_way_in_is_revoked_too(order: dict[str, str]) -> None:
    """Between the check of a token and the connection's beginning the log may have to be read."""
    async with bench() as node:
        await node.control.open()
        now = time.time()
        early, newer = found("t", now), found("u", now + 60)
        await node.control.revoke(**order)
        assert await end_of(node, early) is CloseCode.REVOKED
        assert await end_of(node, newer) is None
        # Whom the application lets in now, it lets in whatever was revoked before.
        assert await end_of(node, found("t", time.time())) is None
        node.control.close()
