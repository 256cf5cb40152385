"""The page that ``tellwire compare --html`` writes, in chromium."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tellwire.compare.comparison import Comparison
from tellwire.compare.options import Options
from tellwire.compare.page import write_page
from tests.compare.known_server import KnownServer, VirtualClock, VirtualLoop

HOSTILE = "</script><img src=x onerror=\"document.title='broken'\"><!-- {{report.js}} & <b>"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Return a run, made in a thread of its own: the browser's loop has this one."""

    async def run() -> dict[str, Any]:
        async with KnownServer(open_s=0.01, deliver_s=0.02) as server:
            keys = ("poll", "sse", "websocket", "ndjson")
            given = Options(transports=keys, seconds=0.2, readers=(1, 4), tries=2, idle=0, poll_s=0.1)
            comparison = Comparison(given, url=server.url, clock=VirtualClock())
            await comparison.run()
            return comparison.found

    def measure() -> dict[str, Any]:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(run())

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(measure).result()


def opened(page: Page, found: dict[str, Any], folder: Path) -> list[str]:
    """Open the report; return what the browser complains of, and what it asks the network for."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    path = folder / "report.html"
    path.write_text(write_page(found), encoding="utf-8")
    page.on("request", lambda request: None if request.url == path.as_uri() else complaints.append(request.url[:80]))
    page.goto(path.as_uri())
    return complaints


@pytest.mark.parametrize("width", [1280, 360])
def test_plots_are_drawn_and_nothing_is_asked_for(
    found: dict[str, Any], page: Page, tmp_path: Path, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    complaints = opened(page, found, tmp_path)
    for plot in ("latency", "distribution", "weight", "overhead", "begin"):
        assert page.locator(f"#{plot} svg").count() == 1
    assert page.locator("#distribution path.series").count() == 3
    assert page.locator("#memory .none").inner_text() == "Nothing of it was measured."
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#table tbody tr").count() == 4
    assert [each for each in complaints if not each.startswith("data:")] == []


def test_transport_can_be_left_out(found: dict[str, Any], page: Page, tmp_path: Path) -> None:
    opened(page, found, tmp_path)
    page.get_by_role("button", name="Short polling").click()
    assert page.locator("#distribution path.series").count() == 2
    assert page.get_by_role("button", name="Short polling").get_attribute("aria-pressed") == "false"


def test_what_was_measured_is_never_markup(found: dict[str, Any], page: Page, tmp_path: Path) -> None:
    hostile = json.loads(json.dumps(found))
    hostile["machine"]["cpu"] = hostile["version"] = hostile["says"] = HOSTILE
    hostile["ended"] = "lost"
    hostile["unknown"] = [HOSTILE]
    hostile["fallback"] = {"transport": HOSTILE, "live_ms": 1, "says": HOSTILE}
    for wire in hostile["transports"].values():
        wire["title"] = wire["says"] = HOSTILE
    hostile["transports"][HOSTILE] = {"title": HOSTILE, "status": HOSTILE, "says": HOSTILE}
    complaints = opened(page, hostile, tmp_path)
    assert page.title() == "Transports compared"
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("#ended").inner_text()
    assert page.locator("#legend button").first.inner_text() == HOSTILE
    assert [each for each in complaints if not each.startswith("data:")] == []
