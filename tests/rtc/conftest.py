"""Servers that take data channels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guarded import SECRET
from tests.serving import SHARED, Server

RTC = {"rtc": True, "rtc_offers_per_caller_s": 500.0, "rtc_offers_per_s": 500.0, "rtc_open_s": 60.0, "rtc_ping_s": 30.0}
"""Many tests of one address make many offers, and a peer that a test keeps busy is no dead one."""


@pytest.fixture(scope="session")
def rtc_server() -> Iterator[Server]:
    """A server for everybody; tests keep apart by their channels."""
    namespaces = [*SHARED["namespaces"], {"name": "large", "message_max_bytes": 1_000_000}]
    server = Server(rtc=RTC, namespaces=namespaces, limits={"drain_s": 0.1})
    yield server
    server.close()


@pytest.fixture(scope="session")
def guarded_rtc_server() -> Iterator[Server]:
    """A server that asks for tokens."""
    server = Server(
        rtc=RTC,
        auth={"token_key": SECRET, "token_leeway_s": 0.0},
        limits={"drain_s": 0.1, "presence_grace_s": 0.1},
        server={"origins": ["https://friend.example"]},
    )
    yield server
    server.close()
