"""Servers that ask for tokens, and tokens for them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest

from tests.serving import SHARED, Server

SECRET = "a secret of the tests that is long enough"

ALL: dict[str, list[str]] = {name: ["*"] for name in ("subscribe", "publish", "presence", "call", "admin")}

GUARDED: dict[str, Any] = {
    "limits": {"drain_s": 0.1, "presence_grace_s": 0.2, "presence_lease_s": 0.5, "call_timeout_s": 5.0},
    "auth": {"token_key": SECRET, "token_leeway_s": 0.0, "jsonp": True},
    "namespaces": [*SHARED["namespaces"], {"name": "crowd", "presence_max_members": 3}],
    "handlers": "tests.handlers",
}
"""A server that asks for tokens, with short leases and procedures to call."""


def token(user: str | None = "ann", *, expires_in_s: float | None = 3600.0, key: str = SECRET, **claims: Any) -> str:
    """Make a token; it may do everything where ``can`` is not given."""
    now = time.time()
    fields: dict[str, Any] = {"iat": int(now), "can": ALL, **claims}
    if user is not None:
        fields["sub"] = user
    if expires_in_s is not None:
        fields["exp"] = now + expires_in_s
    return jwt.encode({name: value for name, value in fields.items() if value is not None}, key, "HS256")


def bearer(text: str) -> tuple[str, str]:
    """Return the header field with a token."""
    return "Authorization", f"Bearer {text}"


def someone() -> str:
    """Return the name of a user that no other test knows."""
    return f"user-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def guarded_servers() -> Iterator[Callable[[str], Server]]:
    """The shared servers that ask for tokens, by kind, started when first asked for."""
    servers: dict[str, Server] = {}

    def get(kind: str) -> Server:
        if kind not in servers:
            servers[kind] = Server(kind, **GUARDED)
        return servers[kind]

    yield get
    for each in servers.values():
        each.close()


@pytest.fixture(scope="session")
def guarded(guarded_servers: Callable[[str], Server]) -> Server:
    """Tellwire's own server, asking for tokens, shared by all tests."""
    return guarded_servers("direct")
