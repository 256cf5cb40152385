"""The page /doctor as a test drives it."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import WATCHDOG_MS

CHECKS = ("poll", "longpoll", "sse", "ndjson", "websocket")


class Doctor:
    """The page of a server at a port, which may be a proxy's, opened and not yet begun."""

    def __init__(self, page: Page, port: int, channel: str, path: str = "doctor", host: str = "127.0.0.1") -> None:
        self.page = page
        self.channel = channel
        page.goto(f"http://{host}:{port}/{path}")
        page.get_by_label("Channel to publish to").fill(channel)

    def begin(self) -> None:
        self.page.get_by_role("button", name="Examine").click()

    def examine(self) -> None:
        """Examine, to the verdict."""
        self.begin()
        self.expect_done()

    def expect_done(self) -> None:
        expect(self.page.locator("#report-panel")).to_be_visible(timeout=WATCHDOG_MS)
        expect(self.page.get_by_role("button", name="Examine")).to_be_enabled()

    def check(self, key: str) -> Locator:
        return self.page.locator(f"[data-check={key}]")

    def states(self) -> dict[str, str | None]:
        return {key: self.check(key).get_attribute("data-state") for key in CHECKS}

    def changes(self) -> list[str | None]:
        sections = self.page.locator("[data-change]")
        return [sections.nth(index).get_attribute("data-change") for index in range(sections.count())]

    @property
    def verdict(self) -> Locator:
        return self.page.locator("#verdict-title")

    @property
    def best(self) -> str | None:
        return self.page.locator("#verdict-panel").get_attribute("data-best")

    def report(self) -> str:
        return self.page.locator("#report").input_value()

    def watch(self, seconds: int) -> None:
        """Watch idle connections, to the end."""
        self.page.get_by_label("Seconds").fill(str(seconds))
        self.page.get_by_role("button", name="Watch").click()
        expect(self.page.get_by_role("button", name="Stop")).to_be_visible()
        expect(self.page.get_by_role("button", name="Stop")).to_be_hidden(timeout=WATCHDOG_MS)
