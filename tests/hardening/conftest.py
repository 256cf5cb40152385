"""Beside every abuse stands an honest client, and it must not notice."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.readers import EventReader, SocketReader
from tests.serving import Server


@pytest.fixture(autouse=True)
def honest_clients(server: Server) -> Iterator[None]:
    """Readers that were there before the abuse, and get everything in order after it; the server has not failed."""
    channel = f"honest-{secrets.token_hex(6)}"
    logged = len(server.log)
    with SocketReader(server, channel) as socket, EventReader(server, channel) as events, ThreadPoolExecutor(1) as pool:
        server.publish(channel, "before")
        heard = pool.submit(socket.read_data, 21)  # from here on, so that pings are answered however long this takes
        yield
        server.publish_all([{"channel": channel, "data": number} for number in range(20)])
        for data in (heard.result(), events.read_data(21)):
            assert data == ["before", *range(20)]
    assert "Traceback" not in server.log[logged:]
