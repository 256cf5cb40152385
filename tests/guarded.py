"""Servers that ask for tokens, and tokens for them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from types import TracebackType
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

PATIENT: dict[str, Any] = {**GUARDED, "limits": {**GUARDED["limits"], "presence_lease_s": 60.0}}
"""The same, where whoever entered by a request is a member still when the next one comes, however slow the machine."""


def token(user: str | None = "ann", *, expires_in_s: float | None = 3600.0, key: str = SECRET, **claims: Any) -> str:
    """Make a token; it may do everything where ``can`` is not given."""
    now = time.time()
    fields: dict[str, Any] = {"iat": int(now), "can": ALL, **claims}
    if user is not None:
        fields["sub"] = user
    if expires_in_s is not None:
        fields["exp"] = now + expires_in_s
    return jwt.encode({name: value for name, value in fields.items() if value is not None}, key, "HS256")


class Ending:
    """A token that ends soon, for who has to be in before: ``with ending as text``.

    What is raised within is passed over where the token was over by then: who was too slow for it takes a longer one.
    So within is only what has to be done before the end.
    """

    def __init__(self, user: str | None, seconds: float, claims: dict[str, Any], *, is_last: bool) -> None:
        self.over_at = time.time() + seconds
        self.text = token(user, expires_in_s=seconds, **claims)
        self._is_last = is_last

    def __enter__(self) -> str:
        return self.text

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> bool:
        return isinstance(exc, Exception) and time.time() >= self.over_at and not self._is_last


def endings(user: str | None = "ann", *, seconds: float = 1.5, **claims: Any) -> Iterator[Ending]:
    """Give tokens that end soon, each later than the one before, until the loop is broken: somebody has come in."""
    for attempt in range(4):
        yield Ending(user, seconds * 4**attempt, claims, is_last=attempt == 3)


def bearer(text: str) -> tuple[str, str]:
    """Return the header field with a token."""
    return "Authorization", f"Bearer {text}"


def someone() -> str:
    """Return the name of a user that no other test knows."""
    return f"user-{secrets.token_hex(4)}"


def servers_by_kind(settings: dict[str, Any]) -> Iterator[Callable[[str], Server]]:
    """Give servers by kind, started when first asked for; they end when the next is asked for of this iterator."""
    servers: dict[str, Server] = {}

    def get(kind: str) -> Server:
        if kind not in servers:
            servers[kind] = Server(kind, **settings)
        return servers[kind]

    yield get
    for each in servers.values():
        each.close()


@pytest.fixture(scope="session")
def guarded_servers() -> Iterator[Callable[[str], Server]]:
    """The shared servers that ask for tokens, by kind, started when first asked for."""
    yield from servers_by_kind(GUARDED)


@pytest.fixture(scope="session")
def patient_servers() -> Iterator[Callable[[str], Server]]:
    """Those on which no lease of a member runs out while a test goes on."""
    yield from servers_by_kind(PATIENT)


@pytest.fixture(scope="session")
def guarded(guarded_servers: Callable[[str], Server]) -> Server:
    """Tellwire's own server, asking for tokens, shared by all tests."""
    return guarded_servers("direct")


@pytest.fixture(scope="session")
def patient(patient_servers: Callable[[str], Server]) -> Server:
    """Tellwire's own server, on which no lease of a member runs out while a test goes on."""
    return patient_servers("direct")
