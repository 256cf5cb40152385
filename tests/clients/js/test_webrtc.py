"""The JavaScript client over data channels to the server, in Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import WATCHDOG_MS, WHILE_AWAY, Complaints, chromium
from tests.clients.js.proxy import Proxy
from tests.clients.js.test_browser import OPEN, check_two_pages, load, open_client, wait_connected, wait_messages
from tests.serving import Server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a browser that gives data channels the addresses of this machine."""
    with chromium("--allow-loopback-in-peer-connection") as browser:
        yield browser


@pytest.fixture
def server(start_server: Callable[..., Server], tmp_path: Path) -> Server:
    return start_server(
        rtc={"rtc": True},
        server={"broker": f"sqlite:///{tmp_path}/log.db"},
        limits={"sse_retry_ms": 50},
        namespaces=[{"name": "default", "message_max_bytes": 400_000}],
    )


def test_reads_and_publishes_over_data_channels(page: Page, server: Server, channel: str) -> None:
    server.publish(channel, "before")
    open_client(page, server, [channel], transports=["webrtc"])
    wait_connected(page, "webrtc")
    server.publish(channel, "after")
    answer = page.evaluate("(channel) => client.publish(channel, 'mine', { id: 'x' })", channel)
    assert answer["duplicate"] is False
    assert page.evaluate("(channel) => client.publish(channel, 'mine', { id: 'x' })", channel)["duplicate"] is True
    wait_messages(page, channel, ["before", "after", "mine"])
    # More than a message on a data channel holds, both ways and not only in ASCII.
    long = "ü€" * 40_000
    page.evaluate("([channel, data]) => client.publish(channel, data)", [channel, long])
    wait_messages(page, channel, ["before", "after", "mine", long])
    code = page.evaluate(
        "(channel) => client.publish(channel, 1, { expect: 'x.1' }).catch(({ code }) => code)", channel
    )
    assert code == "conflict"
    page.evaluate("() => client.close()")


def test_presence_and_signals_over_data_channels(page: Page, server: Server, channel: str) -> None:
    check_two_pages(page, server, channel, transports=["webrtc"])


def test_what_may_be_lost_comes_beside_and_in_order(page: Page, server: Server, channel: str) -> None:
    load(page, server)
    page.evaluate(
        """async (channel) => {
            const { Tellwire } = await import("/client/tellwire.js");
            window.client = new Tellwire("/", { transports: ["webrtc"] });
            window.seen = [];
            window.spare = [];
            await client.subscribe(channel, { unreliable: true, onMessage: ({ data }) => seen.push(data) }).ready;
            await client.subscribe(`${channel}-moves`, { onMessage: ({ data }) => spare.push(data) }).ready;
        }""",
        channel,
    )
    wait_connected(page, "webrtc")
    for number in range(50):
        server.publish(channel, number)
    page.wait_for_function("() => seen.at(-1) === 49", timeout=WATCHDOG_MS)
    seen = page.evaluate("() => seen")
    assert seen == sorted(set(seen))
    # Nothing is promised of an ephemeral message but that it comes at most once; so it is said until it was heard.
    page.evaluate(
        """async (channel) => {
            for (let number = 0; spare.length === 0; number += 1) {
                const { position } = await client.publish(`${channel}-moves`, number, { ephemeral: true });
                if (position !== null) throw new Error("it has a place in the log");
                await new Promise(requestAnimationFrame);
            }
        }""",
        channel,
    )
    page.evaluate("() => client.close()")


def test_server_that_dies_and_comes_back_loses_and_doubles_nothing(
    page: Page,
    start_server: Callable[..., Server],
    server: Server,
    channel: str,
    tmp_path: Path,
    complaints: Complaints,
) -> None:
    complaints.allow(*WHILE_AWAY)
    mine = f"{channel}-mine"
    # The server's silence is what tells: nobody closes a connection of a process that was killed.
    settings: dict[str, Any] = {
        "rtc": {"rtc": True, "rtc_ping_s": 0.4},
        "server": {"broker": f"sqlite:///{tmp_path}/log.db", "port": server.port},
    }
    server.kill()
    server.wait()
    server = start_server(**settings)
    open_client(page, server, [channel, mine], transports=["webrtc"])
    publish = """([channel, from]) => {
        window.answers ??= [];
        for (let number = from; number < from + 50; number += 1) answers.push(client.publish(channel, number));
    }"""
    server.publish_all([{"channel": channel, "data": number} for number in range(50)])
    page.evaluate(publish, [mine, 0])
    server.kill()
    server.wait()
    page.evaluate(publish, [mine, 50])
    server = start_server(**settings)
    server.publish_all([{"channel": channel, "data": 50 + number} for number in range(50)])
    page.evaluate("() => Promise.all(answers)")
    wait_messages(page, channel, list(range(100)))
    wait_messages(page, mine, list(range(100)))
    assert page.evaluate("() => gaps") == []
    page.evaluate("() => client.close()")


@pytest.mark.parametrize("other", ["websocket", "sse", "longpoll", "poll"])
def test_goes_to_other_transports_and_back(
    page: Page, server: Server, channel: str, complaints: Complaints, other: str
) -> None:
    complaints.allow(*WHILE_AWAY)
    mine = f"{channel}-mine"
    sent = 0

    def flow() -> None:
        nonlocal sent
        numbers = list(range(sent, sent + 40))
        sent += 40
        page.evaluate("([channel, all]) => all.forEach((data) => client.publish(channel, data))", [mine, numbers])
        server.publish_all([{"channel": channel, "data": number} for number in numbers])

    with Proxy(server.port) as proxy:
        proxy.forbidden = {"/v1/rtc"}
        options = {"transports": ["webrtc", other], "upgradeAfterMs": 300, "longPollMs": 1000, "pollMs": 50}
        open_client(page, proxy, [channel, mine], **options)
        wait_connected(page, other)
        flow()
        proxy.forbidden = set()
        flow()
        wait_connected(page, "webrtc")
        flow()
        # The server ends all data channels, and takes no more of them.
        proxy.forbidden = {"/v1/rtc"}
        ended = page.evaluate(
            """() => new Promise((resolve) => {
                client.on("state", ({ state }) => state === "disconnected" && resolve(true));
                dispatchEvent(new Event("offline"));
                dispatchEvent(new Event("online"));
            })"""
        )
        assert ended
        flow()
        wait_connected(page, other)
        flow()
        for name in (channel, mine):
            wait_messages(page, name, list(range(sent)))
        assert page.evaluate("() => gaps") == []
        page.evaluate("() => client.close()")


def test_a_server_without_data_channels_is_reached_otherwise(
    page: Page, start_server: Callable[..., Server], channel: str, complaints: Complaints
) -> None:
    complaints.allow("404")
    server = start_server()
    load(page, server)
    page.evaluate(OPEN, [{"transports": ["webrtc", "websocket"]}, [channel]])
    wait_connected(page, "websocket")
    page.evaluate("() => client.close()")
