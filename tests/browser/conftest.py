"""Debian's chromium, driven by Playwright.

Its driver keeps an event loop in the thread of the tests, so the browser lives for one module only: tests of other
modules in this process may then run loops of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

ARGUMENTS = [
    "--no-sandbox",  # chromium has none for root, which CI is
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",
    "--host-resolver-rules=MAP plain.test 127.0.0.1",
]

PLAIN = "plain.test"
"""The loopback under a name that browsers do not trust: a page from there over plain HTTP is no secure context."""

WATCHDOG_MS = 60_000
"""Milliseconds after which something that should happen is taken to have failed; no test measures a time."""

expect.set_options(timeout=WATCHDOG_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what drives a browser."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """Run a browser, with `more` arguments; without one the tests are skipped, but in CI they fail."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        sentence = "there is no chromium here: install it with `sudo apt-get install chromium`"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS, *more], timeout=2 * WATCHDOG_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a browser."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Return a window of a desktop, with nothing from the tests before."""
    with browser.new_context(viewport={"width": 1440, "height": 900}, ignore_https_errors=True) as context:
        context.set_default_timeout(WATCHDOG_MS)
        yield context


WHILE_AWAY = ("net::ERR_", "503")
"""What a browser says of a server that is stopped, or just about to stop or start."""


class Complaints(list[str]):
    """What the browser says is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self._allowed: tuple[str, ...] = ()

    def allow(self, *texts: str) -> None:
        """Let pass, from now on, what has one of these texts in it."""
        self._allowed = texts

    def hear(self, line: ConsoleMessage) -> None:
        """Note a line of the browser's console."""
        is_favicon = line.location["url"].endswith("/favicon.ico")  # asked for where a page names no picture
        is_allowed = any(text in line.text for text in self._allowed)
        if line.type in ("error", "warning") and not is_favicon and not is_allowed:
            self.append(line.text)


@pytest.fixture
def complaints() -> Complaints:
    return Complaints()


@pytest.fixture
def page(context: BrowserContext, complaints: Complaints) -> Iterator[Page]:
    """Return a tab; at the end nothing may have gone wrong in it: no exception, no error, no breach of the policy."""
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", complaints.hear)
    yield page
    page.close()
    assert complaints == []


@pytest.fixture
def open_page(browser: Browser, complaints: Complaints) -> Iterator[Callable[[], Page]]:
    """Open tabs of people that know nothing of each other, watched as `page` is."""
    contexts: list[BrowserContext] = []

    def open_() -> Page:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(WATCHDOG_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", complaints.hear)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
