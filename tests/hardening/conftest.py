"""Beside every abuse stands an honest client, and it must not notice."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.readers import EventReader, SocketReader
from tests.serving import Server


@pytest.fixture(autouse=True)
def honest_clients(server: Server) -> Iterator[None]:
    """Readers that were there before the abuse, and get everything in order after it; the server has not failed."""
    channel = f"honest-{secrets.token_hex(6)}"
    logged = len(server.log)
    with SocketReader(server, channel) as socket, EventReader(server, channel) as events:
        server.publish(channel, "before")
        yield
        server.publish_all([{"channel": channel, "data": number} for number in range(20)])
        for reader in (socket, events):
            assert reader.read_data(21) == ["before", *range(20)]
    assert "Traceback" not in server.log[logged:]
