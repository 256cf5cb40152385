"""The JavaScript client in Chromium: every transport, a server that dies, and what a page goes through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Page, Route

from tests.browser.conftest import WATCHDOG_MS, WHILE_AWAY, Complaints
from tests.clients.js.conftest import CLIENT
from tests.clients.js.proxy import Proxy
from tests.serving import Server


class Reachable(Protocol):
    """A server, or what stands before one."""

    @property
    def port(self) -> int: ...


TRANSPORTS = ("websocket", "sse", "longpoll", "poll")

OPEN = """async ([options, channels]) => {
    const { Tellwire } = await import("/client/tellwire.js");
    window.states = [];
    window.had = {};
    window.gaps = [];
    window.client = new Tellwire("/", options);
    client.on("state", (state) => states.push({ ...state, code: state.error?.code }));
    await Promise.all(channels.map((channel) => {
        had[channel] = [];
        const subscription = client.subscribe(channel, {
            since: "earliest",
            onMessage: ({ data }) => had[channel].push(data),
            onGap: (gap) => gaps.push(gap),
        });
        return subscription.ready;
    }));
}"""


def load(page: Page, server: Reachable) -> None:
    """Open a page of the server's origin from which the client can be imported."""

    def give(route: Route) -> None:
        path = CLIENT / "src" / route.request.url.partition("/client/")[2]
        route.fulfill(path=path, content_type="text/javascript")

    page.route("**/client/**", give)
    page.goto(f"http://127.0.0.1:{server.port}/healthz")


def open_client(page: Page, server: Reachable, channels: list[str], **options: Any) -> None:
    """Load a page with a client that reads the channels from their beginning."""
    load(page, server)
    page.evaluate(OPEN, [{"pollMs": 50, **options}, channels])


def wait_messages(page: Page, channel: str, expected: list[Any]) -> None:
    """Wait for as many messages; they have to be these."""
    script = "([channel, count]) => had[channel].length >= count"
    page.wait_for_function(script, arg=[channel, len(expected)], timeout=WATCHDOG_MS)
    assert page.evaluate("(channel) => had[channel]", channel) == expected


def wait_connected(page: Page, transport: str) -> None:
    page.wait_for_function(
        "(name) => client.state.state === 'connected' && client.state.transport === name",
        arg=transport,
        timeout=WATCHDOG_MS,
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_server_that_dies_and_comes_back_loses_and_doubles_nothing(
    page: Page,
    start_server: Callable[..., Server],
    channel: str,
    tmp_path: Path,
    complaints: Complaints,
    transport: str,
) -> None:
    complaints.allow(*WHILE_AWAY, "WebSocket connection")
    settings: dict[str, Any] = {
        "server": {"broker": f"sqlite:///{tmp_path}/log.db"},
        "limits": {"sse_retry_ms": 50},
    }
    server = start_server(**settings)
    mine = f"{channel}-mine"
    open_client(page, server, [channel, mine], transports=[transport])
    publish = """([channel, from]) => {
        window.answers ??= [];
        for (let number = from; number < from + 50; number += 1) answers.push(client.publish(channel, number));
    }"""
    theirs = 0
    for life in range(2):
        server.publish_all([{"channel": channel, "data": theirs + number} for number in range(50)])
        theirs += 50
        page.evaluate(publish, [mine, life * 100])
        server.kill()
        server.wait()
        page.evaluate(publish, [mine, life * 100 + 50])
        settings["server"]["port"] = server.port
        server = start_server(**settings)
        server.publish_all([{"channel": channel, "data": theirs + number} for number in range(50)])
        theirs += 50
    page.evaluate("() => Promise.all(answers)")
    wait_messages(page, channel, list(range(theirs)))
    wait_messages(page, mine, list(range(200)))
    assert page.evaluate("() => gaps") == []
    page.evaluate("() => client.close()")


def test_falls_back_from_transport_to_transport_and_remembers(
    page: Page, server: Server, channel: str, complaints: Complaints
) -> None:
    complaints.allow(*WHILE_AWAY, "WebSocket connection")
    with Proxy(server.port) as proxy:
        # What is forbidden fails at once; what is only slow is not to be left for what is worse.
        options = {"tryTimeoutMs": WATCHDOG_MS, "longPollMs": 1000, "upgradeAfterMs": 600_000}
        open_client(page, proxy, [channel], **options)
        sent: list[int] = []
        for transport, forbidden in (
            ("websocket", set[str]()),
            ("sse", {"/v1/ws"}),
            ("longpoll", {"/v1/ws", "/v1/events"}),
        ):
            proxy.forbidden = forbidden
            if forbidden:
                proxy.cut()
            wait_connected(page, transport)
            sent += [len(sent), len(sent) + 1]
            server.publish(channel, sent[-2])
            page.evaluate("([channel, data]) => client.publish(channel, data)", [channel, sent[-1]])
            wait_messages(page, channel, sent)
        # After a reload what worked comes first, though the best is let through again.
        proxy.forbidden = set()
        page.reload()
        page.evaluate(OPEN, [options, [channel]])
        wait_connected(page, "longpoll")
        wait_messages(page, channel, sent)
        page.evaluate("() => client.close()")


@pytest.mark.parametrize("count", [84, pytest.param(560, marks=pytest.mark.soak)])
def test_nothing_is_lost_or_doubled_on_a_bad_line(
    page: Page, start_server: Callable[..., Server], channel: str, complaints: Complaints, count: int
) -> None:
    complaints.allow(*WHILE_AWAY, "WebSocket connection")
    server = start_server(
        limits={"heartbeat_s": 1, "sse_retry_ms": 50},
        namespaces=[{"name": "default", "history_messages": 20_000}],
    )
    mine = f"{channel}-mine"
    sent = 0

    def flow() -> None:
        nonlocal sent
        numbers = list(range(sent, sent + count))
        sent += count
        page.evaluate("([channel, all]) => all.forEach((data) => client.publish(channel, data))", [mine, numbers])
        server.publish_all([{"channel": channel, "data": number} for number in numbers])

    with Proxy(server.port) as proxy:
        options = {"tryTimeoutMs": 3000, "longPollMs": 1000, "upgradeAfterMs": 600_000, "outboxMaxMessages": 20_000}
        open_client(page, proxy, [channel, mine], **options)
        # It is not to wait for longer and longer.
        page.evaluate(
            """() => client.on("state", ({ state }) => {
                if (state === "disconnected") setTimeout(() => dispatchEvent(new Event("online")), 50);
            })"""
        )
        for transport, forbidden in (
            ("websocket", set[str]()),
            ("sse", {"/v1/ws"}),
            ("longpoll", {"/v1/ws", "/v1/events"}),
        ):
            proxy.forbidden = forbidden
            proxy.damages, proxy.is_torn = 2, True
            if forbidden:
                proxy.cut()
            flow()
            flow()
            wait_messages(page, channel, list(range(sent)))
            wait_messages(page, mine, list(range(sent)))
            proxy.damages, proxy.is_torn = 0, False
            # What was damaged may have had it look elsewhere: only what is forbidden is never used.
            flow()
            wait_messages(page, channel, list(range(sent)))
            wait_messages(page, mine, list(range(sent)))
            assert page.evaluate("() => client.state.transport") not in TRANSPORTS[: TRANSPORTS.index(transport)]
        assert page.evaluate("() => gaps") == []
        page.evaluate("() => client.close()")


def test_a_reload_keeps_the_client_id(page: Page, server: Server, channel: str) -> None:
    open_client(page, server, [channel], transports=["websocket"])
    first = page.evaluate("() => client.client")
    page.reload()
    page.evaluate(OPEN, [{}, [channel]])
    assert page.evaluate("() => client.client") == first
    page.evaluate("() => client.close()")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_offline_and_online_again(
    page: Page, server: Server, channel: str, complaints: Complaints, transport: str
) -> None:
    complaints.allow(*WHILE_AWAY, "WebSocket connection")
    open_client(page, server, [channel], transports=[transport])
    page.context.set_offline(True)
    page.wait_for_function("() => client.state.state === 'disconnected'", timeout=WATCHDOG_MS)
    server.publish(channel, "theirs")
    page.evaluate("(channel) => void (window.answer = client.publish(channel, 'mine'))", channel)
    page.context.set_offline(False)
    page.evaluate("() => answer")
    wait_messages(page, channel, ["theirs", "mine"])
    page.evaluate("() => client.close()")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_page_that_was_put_away_goes_on(page: Page, server: Server, channel: str, transport: str) -> None:
    open_client(page, server, [channel], transports=[transport])
    # As for the way back, where the browser keeps the page.
    page.evaluate("() => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert page.evaluate("() => client.state.state") == "disconnected"
    server.publish(channel, "while it was away")
    page.evaluate("() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    wait_messages(page, channel, ["while it was away"])
    page.evaluate("() => client.close()")


def check_two_pages(page: Page, server: Server, channel: str, **options: Any) -> None:
    """Have two pages of one browser see each other, and one say something to the other alone."""
    other = page.context.new_page()
    for each in (page, other):
        open_client(each, server, [channel], **options)
        each.evaluate(
            """async (channel) => {
                window.signals = [];
                client.on("signal", ({ data }) => signals.push(data));
                window.room = client.presence(channel);
                await room.enter({ name: String(Math.random()) });
            }""",
            channel,
        )
    for each in (page, other):
        each.wait_for_function("() => room.members.size === 2", timeout=WATCHDOG_MS)
    other.evaluate(
        """(channel) => {
            const [to] = [...room.members.keys()].filter((client_) => client_ !== client.client);
            return client.send(channel, to, "only for you");
        }""",
        channel,
    )
    page.wait_for_function("() => signals.length === 1", timeout=WATCHDOG_MS)
    other.evaluate("() => client.close()")
    page.wait_for_function("() => room.members.size === 1", timeout=WATCHDOG_MS)
    page.evaluate("() => client.close()")
    other.close()


def test_two_pages_talk_and_see_each_other(page: Page, server: Server, channel: str) -> None:
    check_two_pages(page, server, channel)


def test_runs_in_a_worker(page: Page, server: Server, channel: str) -> None:
    load(page, server)
    page.evaluate(
        """(channel) => {
            const code = `
                const { Tellwire } = await import("${location.origin}/client/tellwire.js");
                const client = new Tellwire("${location.origin}");
                for await (const { data } of client.subscribe("${channel}", { since: "earliest" })) postMessage(data);
            `;
            window.had = [];
            const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
            const worker = new Worker(address, { type: "module" });
            worker.onmessage = ({ data }) => had.push(data);
        }""",
        channel,
    )
    server.publish(channel, 1)
    server.publish(channel, 2)
    page.wait_for_function("() => had.length === 2", timeout=WATCHDOG_MS)
    assert page.evaluate("() => had") == [1, 2]


def test_an_error_of_a_listener_is_the_pages_and_stops_nothing(
    page: Page, server: Server, channel: str, complaints: Complaints
) -> None:
    open_client(page, server, [channel])
    page.evaluate("() => client.on('state', () => { throw new Error('of the page'); })")
    with page.expect_event("pageerror", lambda error: "of the page" in str(error)):
        page.evaluate("() => client.close()")
    page.wait_for_function("() => client.state.state === 'closed'")
    assert [text for text in complaints if "of the page" in text]
    complaints.clear()
