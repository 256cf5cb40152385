"""``GET /v1/ice-servers`` on real servers: who is told of a relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tellwire.auth import Identity
from tellwire.brokers.memory import MemoryBroker
from tellwire.ice import IceServers, IceSettings
from tellwire.node import OPEN, OPEN_TO_ALL, Node
from tellwire.transports.ice import ice_servers
from tests.guarded import GUARDED, bearer, token
from tests.serving import SHARED, Server
from tests.wires import Http

ICE = {
    "ice_stun_urls": ["stun:t.example:3478"],
    "ice_turn_urls": ["turn:t.example:3478"],
    "ice_turn_secret": "a secret of the tests",
}
STUN = {"urls": ["stun:t.example:3478"]}


def ask(server: Server, text: str | None = None) -> Any:
    with Http(server) as http:
        answer = http.request("GET", "/v1/ice-servers", headers=[bearer(text)] if text else [])
    assert answer.status == 200, answer
    return answer.json()


@pytest.mark.parametrize("kind", ["direct", "hypercorn"])
def test_known_users_get_credentials_and_others_do_not(start_server: Callable[..., Server], kind: str) -> None:
    auth = {**GUARDED["auth"], "anonymous_subscribe": ["*"]}
    server = start_server(kind, **{**GUARDED, "auth": auth, "ice": ICE})
    told = ask(server, token("ann"))
    stun, turn = told["ice_servers"]
    assert stun == STUN
    assert turn["username"].endswith(":ann")
    assert set(turn) == {"urls", "username", "credential"}
    assert 0 < told["expires_in_ms"] <= 600_000
    assert ask(server) == {"ice_servers": [STUN], "expires_in_ms": None}
    assert ask(server, token(None)) == {"ice_servers": [STUN], "expires_in_ms": None}
    # No longer than the token.
    assert ask(server, token("ann", expires_in_s=30.0))["expires_in_ms"] <= 30_000


def test_without_a_token_where_one_is_needed_there_is_nothing(start_server: Callable[..., Server]) -> None:
    server = start_server(**{**GUARDED, "ice": ICE})
    with Http(server) as http:
        answer = http.request("GET", "/v1/ice-servers")
        assert (answer.status, answer.code) == (401, "unauthorized")
        answer = http.request("GET", "/v1/ice-servers", headers=[("Origin", "https://evil.example")])
        assert answer.code == "forbidden_origin"
        assert http.request("POST", "/v1/ice-servers", body=b"{}").code == "method_not_allowed"


async def count(everyone: Identity | None) -> int:
    node = Node(MemoryBroker(), ice=IceServers(msgspec.convert(ICE, IceSettings)))
    servers, _ = ice_servers(node, everyone)
    return len(servers)


def test_a_relay_is_for_everybody_only_where_all_are_on_this_machine(start_server: Callable[..., Server]) -> None:
    assert len(ask(start_server(**{**SHARED, "ice": ICE}))["ice_servers"]) == 2
    assert [asyncio.run(count(each)) for each in (OPEN, OPEN_TO_ALL, Identity(), None)] == [2, 1, 1, 1]


def test_nothing_is_told_where_nothing_is_set(server: Server) -> None:
    assert ask(server) == {"ice_servers": [], "expires_in_ms": None}


def test_asking_is_limited_as_all_requests_are(start_server: Callable[..., Server]) -> None:
    server = start_server(**{**SHARED, "limits": {"drain_s": 0.1, "commands_per_s": 2}, "ice": ICE})
    with Http(server) as http:
        codes = set()
        while 429 not in codes:
            codes.add(http.request("GET", "/v1/ice-servers").status)
    assert codes == {200, 429}
