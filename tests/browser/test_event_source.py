"""Chromium's EventSource: what it reads is what was published, and it resumes by itself where it was cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import WATCHDOG_MS, WHILE_AWAY, Complaints
from tests.serving import Server

PAYLOADS: dict[str, Any] = {
    "empty text": "",
    "CR": "a\rb\r",
    "LF": "a\nb\n",
    "CRLF": "a\r\nb\r\n\r\n",
    "all line ends": "\r\n\n\r\r\n",
    "NUL": "a\0b",
    "U+2028": "a\u2028b\u2029c\u0085d\u000bd\u000c",
    "BOM": "\ufeffa\ufeff",
    "what looks like fields": "data: x\nid: 7\n\nevent: gap\n: comment\nretry: 1\n\n",
    "leading space": " a",
    "colon": ":",
    "beyond the BMP": "\U0001f600\U0010ffff",
    "control characters": "".join(map(chr, range(32))),
    "line of 1 MiB": "x" * 1024 * 1024,
    "1 MiB of line ends": "\r\n" * 500 + "y\r" * 500_000,
    "1 MiB beyond ASCII": "\u2028é" * 200_000,
    "nothing": None,
    "empty object": {},
    "empty key": {"": ["", {"\r": "\n", "\ufeff": "\0"}]},
    "numbers": [0, -1, 1.5e300, True, False],
}

READ = """(address) => {
    window.events = [];
    window.opened = 0;
    window.source = new EventSource(address);
    source.onopen = () => { opened += 1; };
    const listen = (event) => events.push([event.type, event.data, event.lastEventId]);
    for (const name of ["message", "gap", "closing", "order"]) source.addEventListener(name, listen);
}"""


def read(page: Page, server: Server, path: str) -> None:
    """Open an EventSource in a page of the server, and wait until it is live."""
    page.goto(f"http://127.0.0.1:{server.port}/healthz")
    page.evaluate(READ, path)
    page.wait_for_function("() => opened === 1", timeout=WATCHDOG_MS)


def events(page: Page, count: int, kind: str = "message") -> list[list[str]]:
    """Wait for events of a kind; return them as type, data and last event id."""
    of_kind = f"events.filter(([type]) => type === '{kind}')"
    page.wait_for_function(f"() => {of_kind}.length >= {count}", timeout=WATCHDOG_MS)
    found: list[list[str]] = page.evaluate(f"() => {of_kind}")
    return found


@pytest.mark.parametrize("envelope", [0, 1])
def test_event_source_gives_back_what_was_published(page: Page, server: Server, channel: str, envelope: int) -> None:
    name = f"large:{channel}"
    read(page, server, f"/v1/events?channel={name}&envelope={envelope}")
    positions = [server.publish(name, data) for data in PAYLOADS.values()]
    read_back = events(page, len(PAYLOADS))
    assert [last_event_id for _, _, last_event_id in read_back] == positions
    texts = [data for _, data, _ in read_back]
    # The browser's own JSON.parse is what a page would use; what it gives is compared here.
    parsed = page.evaluate("(texts) => texts.map((text) => JSON.stringify(JSON.parse(text)))", texts)
    for label, text, again, data in zip(PAYLOADS, texts, parsed, PAYLOADS.values(), strict=True):
        for found in (json.loads(text), json.loads(again)):
            assert (found["data"] if envelope else found) == data, label


def test_event_source_reads_history_as_it_reads_live(page: Page, server: Server, channel: str) -> None:
    name = f"large:{channel}"
    for data in PAYLOADS.values():
        server.publish(name, data)
    read(page, server, f"/v1/events?channel={name}&since=earliest")
    found = [json.loads(data) for _, data, _ in events(page, len(PAYLOADS))]
    assert found == list(PAYLOADS.values())


def test_event_names_dispatch_and_envelopes_come_as_messages(page: Page, server: Server, channel: str) -> None:
    read(page, server, f"/v1/events?channel={channel}")
    position = server.publish(channel, 1, event="order")
    assert events(page, 1, "order") == [["order", "1", position]]
    page.evaluate("() => source.close()")
    read(page, server, f"/v1/events?channel={channel}&envelope=1&since=earliest")
    ((_, data, _),) = events(page, 1)
    assert json.loads(data)["event"] == "order"


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_event_source_resumes_by_itself_after_the_server_cut(
    page: Page, start_server: Callable[..., Server], channel: str, tmp_path: Path, complaints: Complaints, how: str
) -> None:
    complaints.allow(*WHILE_AWAY)
    settings: dict[str, dict[str, Any]] = {
        "server": {"broker": f"sqlite:///{tmp_path}/log.db"},
        "limits": {"sse_retry_ms": 50},
    }
    server = start_server(**settings)
    server.publish(channel, "before the page came")
    read(page, server, f"/v1/events?channel={channel}")
    sent = []
    for life in range(2):
        sent += [f"{life}.{number}" for number in range(5)]
        server.publish_all([{"channel": channel, "data": text} for text in sent[-5:]])
        events(page, len(sent))
        getattr(server, how)()
        server.wait()
        settings["server"]["port"] = server.port
        server = start_server(**settings)
        # Whether the browser is back by now or not, it is to have these.
        sent += [f"{life} while it was away {number}" for number in range(5)]
        server.publish_all([{"channel": channel, "data": text} for text in sent[-5:]])
    server.publish(channel, "end")
    assert [json.loads(data) for _, data, _ in events(page, len(sent) + 1)] == [*sent, "end"]
    assert page.evaluate("() => events.filter(([type]) => type === 'gap')") == []
    assert page.evaluate("() => events.filter(([type]) => type === 'closing').length") == (
        2 if how == "terminate" else 0
    )


def test_event_source_cut_before_its_first_message_misses_nothing(
    page: Page, start_server: Callable[..., Server], channel: str, tmp_path: Path, complaints: Complaints
) -> None:
    complaints.allow(*WHILE_AWAY)
    settings: dict[str, dict[str, Any]] = {
        "server": {"broker": f"sqlite:///{tmp_path}/log.db"},
        "limits": {"sse_retry_ms": 50},
    }
    server = start_server(**settings)
    read(page, server, f"/v1/events?channel={channel}")
    server.kill()
    server.wait()
    settings["server"]["port"] = server.port
    server = start_server(**settings)
    server.publish(channel, "while it was away")
    assert [data for _, data, _ in events(page, 1)] == ['"while it was away"']
