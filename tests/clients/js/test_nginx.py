"""The JavaScript client behind a real nginx: what does not get through is left for what does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Complaints
from tests.clients.js.driver import Driver
from tests.clients.js.test_browser import open_client, wait_connected, wait_messages
from tests.nginx import BARE, CHUNKED, DEAF, DOCUMENTED, FORBIDDING, Through, through
from tests.serving import Server

__all__ = ["through"]

CASES = [
    pytest.param(BARE, "sse", id="bare"),
    pytest.param(FORBIDDING, "sse", id="forbidding"),
    pytest.param(DEAF, "longpoll", id="deaf"),
    pytest.param(CHUNKED, "sse", id="chunked"),
    pytest.param(DOCUMENTED, "websocket", id="documented"),
]

# No better transport is to be tried again while the tests look, since none would get through.
OPTIONS = {"longPollMs": 1000, "upgradeAfterMs": 600_000}


def patience(location: str) -> int:
    """Return for how many milliseconds a transport is tried: only what a proxy holds back has to be given up."""
    return 5_000 if location == DEAF else 60_000


@pytest.mark.parametrize(("location", "transport"), CASES)
def test_is_live_over_the_first_that_gets_through(
    server: Server, through: Through, connect: Callable[..., Driver], channel: str, location: str, transport: str
) -> None:
    nginx = through(server, location)
    client = connect(f"http://127.0.0.1:{nginx.port}", **OPTIONS, tryTimeoutMs=patience(location))
    client.do("subscribe", channel=channel)
    first = client.wait_for("state", lambda event: event["state"] != "connecting")
    assert (first["state"], first.get("transport")) == ("connected", transport)
    for number in range(0, 20, 2):
        server.publish(channel, number)
        client.do("publish", channel=channel, data=number + 1)
        assert client.wait_messages(channel, number + 2) == list(range(number + 2))
    assert client.gaps == []


@pytest.mark.parametrize(("location", "transport"), CASES)
def test_is_live_over_the_first_that_gets_through_in_a_browser(
    page: Page,
    server: Server,
    through: Through,
    channel: str,
    complaints: Complaints,
    location: str,
    transport: str,
) -> None:
    complaints.allow("WebSocket connection")
    nginx = through(server, location)
    open_client(page, nginx, [channel], **OPTIONS, tryTimeoutMs=patience(location))
    wait_connected(page, transport)
    states = page.evaluate("() => states.map(({ state, transport }) => [state, transport])")
    assert states == [["connecting", None], ["connected", transport]]
    for number in range(0, 20, 2):
        server.publish(channel, number)
        page.evaluate("([channel, data]) => client.publish(channel, data)", [channel, number + 1])
        wait_messages(page, channel, list(range(number + 2)))
    assert page.evaluate("() => gaps") == []
    page.evaluate("() => client.close()")


def test_a_stream_that_stops_when_the_backlog_has_filled_the_proxys_buffers_is_left(
    start_server: Callable[..., Server], through: Through, connect: Callable[..., Driver], channel: str
) -> None:
    server = start_server(limits={"heartbeat_s": 0.4})
    # So much that nginx passes full buffers on, and the stream seems to be live; the rest of it waits in the last one.
    backlog = [f"{number} {'x' * 1000}" for number in range(200)]
    server.publish_all([{"channel": channel, "data": data} for data in backlog])
    nginx = through(server, DEAF)
    client = connect(f"http://127.0.0.1:{nginx.port}", **OPTIONS, tryTimeoutMs=patience(DEAF), heartbeatMs=400)
    client.do("subscribe", channel=channel, since="earliest")
    client.wait_connected("longpoll")
    server.publish(channel, "last")
    assert client.wait_messages(channel, 201) == [*backlog, "last"]
    assert client.gaps == []
