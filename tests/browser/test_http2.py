"""What HTTP/2 brings to a browser: more streams in a tab than the six connections that HTTP/1.1 has for an origin.

Over HTTP/1.1 the seventh EventSource of an origin waits until another one ends, in every tab together. That is the
browser's rule, so nothing asserts it here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import WATCHDOG_MS
from tests.browser.lanes import LANES, Console
from tests.serving import SHARED, Certificate, Server
from tests.wires import Http

STREAMS = 10


@pytest.fixture(scope="module")
def secure_server(certificate: Certificate) -> Iterator[Server]:
    server = Server(**{**SHARED, "server": certificate.settings})
    yield server
    server.close()


def publish(server: Server, certificate: Certificate, messages: list[dict[str, object]]) -> None:
    with Http(server, context=certificate.client_context()) as http:
        assert http.post("/v1/messages", messages).status == 200


def test_ten_event_streams_in_one_tab_are_live_at_once(
    page: Page, secure_server: Server, certificate: Certificate, channel: str
) -> None:
    page.goto(f"https://127.0.0.1:{secure_server.port}/healthz")
    page.evaluate(
        """([channel, count]) => {
            window.events = [];
            window.sources = Array.from({ length: count }, (_, number) => {
                const source = new EventSource(`/v1/events?channel=${channel}-${number}`);
                source.onmessage = (event) => events.push([number, JSON.parse(event.data)]);
                return source;
            });
        }""",
        [channel, STREAMS],
    )
    page.wait_for_function("() => sources.every((source) => source.readyState === 1)", timeout=WATCHDOG_MS)
    for word in ("first", "second"):
        batch: list[dict[str, object]] = [
            {"channel": f"{channel}-{number}", "data": f"{word} {number}"} for number in range(STREAMS)
        ]
        publish(secure_server, certificate, batch)
    page.wait_for_function(f"() => events.length >= {2 * STREAMS}", timeout=WATCHDOG_MS)
    found = page.evaluate("() => events")
    assert sorted(found) == sorted(
        [number, f"{word} {number}"] for number in range(STREAMS) for word in ("first", "second")
    )
    assert page.evaluate("() => sources.every((source) => source.readyState === 1)")
    # Beside them the tab can still ask for something, over the same protocol.
    protocol = page.evaluate("""async () => {
        await (await fetch("/readyz")).text();
        for (;;) {
            const entries = performance.getEntriesByType("resource");
            const entry = entries.find((each) => each.name.endsWith("/readyz"));
            if (entry) return entry.nextHopProtocol;
            await new Promise(requestAnimationFrame); // it is kept after the answer has been told
        }
    }""")
    assert protocol == "h2"


def test_lanes_of_the_page_work_over_tls(
    page: Page, secure_server: Server, certificate: Certificate, channel: str
) -> None:
    console = Console(page, secure_server, channel, scheme="https")
    console.cut("longpoll")
    console.publish("from the page")
    publish(secure_server, certificate, [{"channel": channel, "data": number} for number in range(20)])
    console.expect_all(21, "poll", "sse", "websocket")
    console.resume("longpoll")
    console.expect_all(21)
    rows = [console.rows(key) for key in LANES]
    assert rows == [rows[0]] * len(LANES)
    expect(page.locator("#verdict")).to_contain_text("All four agree")
