"""The page as a test drives it: its four lanes, what they show, and what the log says they should."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import WATCHDOG_MS
from tests.serving import Server
from tests.wires import Http

LANES = ("poll", "longpoll", "sse", "websocket")

ROWS_MAX = 200
"""Rows that a lane keeps on the page."""


class Console:
    """The page of a server, open at a channel."""

    def __init__(self, page: Page, server: Server, channel: str, scheme: str = "http") -> None:
        self.page = page
        self.server = server
        self.channel = channel
        page.goto(f"{scheme}://127.0.0.1:{server.port}/#{channel}")
        self.expect_live()

    def lane(self, key: str) -> Locator:
        return self.page.locator(f"[data-lane={key}]")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def cut(self, key: str, seconds: str = "60") -> None:
        """Cut a lane; the test resumes it itself, long before the time is over."""
        self.page.get_by_label("A cut lasts").select_option(seconds)
        self.lane(key).get_by_role("button", name="Cut").click()
        expect(self.lane(key)).to_have_attribute("data-state", "cut")

    def resume(self, key: str) -> None:
        self.lane(key).get_by_role("button", name="Reconnect").click()

    def publish(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.button("Publish").click()

    def expect_live(self) -> None:
        expect(self.page.locator("[data-lane][data-state=live]")).to_have_count(len(LANES), timeout=WATCHDOG_MS)

    def expect(self, key: str, **figures: int | str) -> None:
        """Wait until a lane's figures are these; a text is a regular expression."""
        for name, figure in figures.items():
            pattern = re.compile(f"^(?:{figure})$")
            expect(self.lane(key)).to_have_attribute(f"data-{name}", pattern, timeout=WATCHDOG_MS)

    def expect_all(self, received: int, *keys: str) -> None:
        """Wait until each lane has had that many messages, in order, none lost and none twice."""
        for key in keys or LANES:
            self.expect(key, received=received, pending=0)
            self.expect(key, lost=0, twice=0, disordered=0, told=0, count=received)
            text = f"{received:,} in order, 0 lost, 0 twice"
            expect(self.lane(key).get_by_text(text, exact=True)).to_be_visible()

    def rows(self, key: str) -> list[int]:
        """The numbers of the messages that a lane shows, oldest first."""
        rows = self.lane(key).locator("[data-seq]")
        seqs: list[int] = rows.evaluate_all("rows => rows.map((row) => Number(row.dataset.seq))")
        return seqs[::-1]

    def log(self) -> list[int]:
        """The numbers of the messages that the channel's log has, asked without the page."""
        with Http(self.server) as http:
            answer = http.get(f"/v1/messages?channel={self.channel}&since=earliest&limit=10000").json()
        return [message["seq"] for message in answer["messages"]]

    def check_rows(self) -> None:
        """Compare what is on the page, not what the page says of itself, with the log."""
        log = self.log()[-ROWS_MAX:]
        for key in LANES:
            assert self.rows(key) == log, key
