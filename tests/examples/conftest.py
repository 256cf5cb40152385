"""The examples, in processes of their own, and browsers in front of their pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from tests.application.hosting import Host
from tests.browser.conftest import WATCHDOG_MS, Complaints, browser, complaints, context, page  # noqa: F401  # fixtures
from tests.browser.conftest import open_page as open_page
from tests.serving import ROOT

CONTRAST = (ROOT / "tests" / "browser" / "contrast.js").read_text()
EXAMPLES = ROOT / "examples"

PHONE: ViewportSize = {"width": 360, "height": 740}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what drives a browser."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture
def pages() -> Iterator[Host]:
    """Return a fresh server of all the examples' pages; asked for before a tab, so that it outlives that."""
    with Host(EXAMPLES / "pages.py") as host:
        yield host
        assert host.stop() in (0, -15)
        assert "Traceback" not in host.log


@pytest.fixture
def phone(browser: Browser, complaints: Complaints) -> Iterator[Page]:  # noqa: F811  # the fixtures
    """Return a tab as narrow as a phone's."""
    with browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True) as narrow:
        narrow.set_default_timeout(WATCHDOG_MS)
        tab = narrow.new_page()
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", complaints.hear)
        yield tab
    assert complaints == []


def check_layout(tab: Page) -> None:
    """See that nothing is wider than the window, and every control has a name and room, and text contrast."""
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    unnamed = tab.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea")].filter((each) => each.offsetParent
            && !(each.labels?.length || each.textContent.trim() || each.getAttribute("aria-label"))).map((e) => e.id)"""
    )
    assert unnamed == []
    small = tab.evaluate(
        """() => [...document.querySelectorAll("button, input:not([type=checkbox])")]
            .filter((each) => each.offsetParent && each.getBoundingClientRect().height < 40).map((each) => each.id)"""
    )
    assert small == []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert tab.evaluate(CONTRAST, 4.5) == []  # WCAG 2.2, 1.4.3
