"""The quick starts, as a newcomer would do them: each file saved as its page shows it, and used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.application.hosting import Client, Host
from tests.browser.conftest import WATCHDOG_MS, WHILE_AWAY, Complaints
from tests.docs.examples import file
from tests.ports import free_port
from tests.serving import ROOT, Server

QUICK_STARTS = ROOT / "docs" / "quick-starts.md"
GETTING_STARTED = ROOT / "docs" / "getting-started.md"
README = ROOT / "README.md"


@contextmanager
def folder_server(folder: Path) -> Iterator[str]:
    """Serve a folder as the page says: with http.server; give the origin of its pages."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().split(" port ")[1].split()[0]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def say(tab: Page, text: str) -> None:
    tab.get_by_label("Say something").fill(text)
    tab.get_by_role("button", name="Send").click()


@pytest.mark.parametrize("broker", ["memory", "sqlite"])
def test_two_windows_talk_over_a_restart(
    broker: str,
    tmp_path: Path,
    start_server: Callable[..., Server],
    complaints: Complaints,
    open_page: Callable[[], Page],
) -> None:
    port = free_port()
    page = file(QUICK_STARTS, "talk.html").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    (tmp_path / "talk.html").write_text(page)
    with folder_server(tmp_path) as origin:
        url = "memory://" if broker == "memory" else f"sqlite:///{tmp_path / 'talk.db'}"
        settings = {"server": {"port": port, "origins": [origin], "broker": url}, "limits": {"drain_s": 0.1}}
        server = start_server(**settings)
        tabs = [open_page(), open_page()]
        for tab in tabs:
            tab.goto(f"{origin}/talk.html")
            expect(tab.locator("#state")).to_have_text("connected websocket", timeout=WATCHDOG_MS)
        say(tabs[0], "hello")
        say(tabs[1], "<b>you too</b>")
        for tab in tabs:
            expect(tab.locator("li")).to_have_text(["hello", "<b>you too</b>"], timeout=WATCHDOG_MS)

        complaints.allow(*WHILE_AWAY, "WebSocket connection")
        assert server.stop() == 0
        for tab in tabs:
            expect(tab.locator("#state")).not_to_contain_text("connected websocket", timeout=WATCHDOG_MS)
        say(tabs[0], "while you were away")
        again = start_server(**settings)
        for tab in tabs:
            expect(tab.locator("li").last).to_have_text("while you were away", timeout=WATCHDOG_MS)
            expect(tab.get_by_text("while you were away")).to_have_count(1)
            expect(tab.get_by_text("something may be missing")).to_have_count(1 if broker == "memory" else 0)
        for tab in tabs:
            tab.goto("about:blank")
        assert again.stop() == 0


def test_page_of_an_origin_that_is_not_listed_is_refused(
    tmp_path: Path, start_server: Callable[..., Server], complaints: Complaints, open_page: Callable[[], Page]
) -> None:
    server = start_server()
    page = file(QUICK_STARTS, "talk.html").replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    (tmp_path / "talk.html").write_text(page)
    complaints.allow("403", "CORS", "net::ERR_FAILED", "WebSocket connection")
    with folder_server(tmp_path) as origin:
        tab = open_page()
        tab.goto(f"{origin}/talk.html")
        expect(tab.locator("#state")).to_have_text("disconnected ", timeout=WATCHDOG_MS)
        tab.goto("about:blank")


def test_shop_shows_its_orders(tmp_path: Path, open_page: Callable[[], Page]) -> None:
    (tmp_path / "shop.py").write_text(file(QUICK_STARTS, "shop.py"))
    with Host(tmp_path / "shop.py") as host, Client(host.url) as customer:
        customer.http.post("/orders", params={"item": "coffee"}).raise_for_status()
        tab = open_page()
        tab.goto(host.url)
        expect(tab.locator("li")).to_have_text(["coffee"], timeout=WATCHDOG_MS)
        customer.http.post("/orders", params={"item": "tea"}).raise_for_status()
        expect(tab.locator("li")).to_have_text(["coffee", "tea"], timeout=WATCHDOG_MS)
        tab.goto("about:blank")


@pytest.mark.parametrize(
    ("page", "name", "said"),
    [
        (README, "news.js", ["before", "hello from a page"]),
        (GETTING_STARTED, "events.js", ["{text: after}"]),
        (GETTING_STARTED, "reader.js", ["{text: before}", "{text: after}"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_script_says_what_it_reads(
    page: Path, name: str, said: list[str], start_server: Callable[..., Server], open_page: Callable[[], Page]
) -> None:
    server = start_server()
    server.publish("news", {"text": "before"})
    tab = open_page()
    heard: list[str] = []
    tab.on("console", lambda line: heard.append(line.text) if line.type == "log" else None)
    tab.goto(f"http://127.0.0.1:{server.port}/healthz")  # the page at / takes no scripts but its own
    with tab.expect_console_message(lambda line: said[-1] in line.text, timeout=WATCHDOG_MS):
        with tab.expect_response(lambda answer: "/v1/" in answer.url) if name == "events.js" else nullcontext():
            tab.add_script_tag(type="module", content=file(page, name))
        if name != "news.js":  # which publishes itself
            server.publish("news", {"text": "after"})
    assert [text in line for text, line in zip(said, heard, strict=False)] == [True] * len(said)
    tab.goto("about:blank")


def test_two_windows_of_the_page_of_the_server_talk(
    start_server: Callable[..., Server], open_page: Callable[[], Page]
) -> None:
    server = start_server()
    tabs = [open_page(), open_page()]
    for tab in tabs:
        tab.goto(f"http://127.0.0.1:{server.port}/")
        expect(tab.locator("#lanes")).to_contain_text("live", timeout=WATCHDOG_MS)
        expect(tab.locator("#lanes").get_by_text("live", exact=True)).to_have_count(4, timeout=WATCHDOG_MS)
    tabs[0].locator("#body").fill("one to the other")
    tabs[0].get_by_role("button", name="Publish").click()
    expect(tabs[1].locator("#lanes").get_by_text("one to the other")).to_have_count(4, timeout=WATCHDOG_MS)
    for tab in tabs:
        tab.goto("about:blank")
