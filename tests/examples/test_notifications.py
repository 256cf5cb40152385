"""Unread notifications over EventSource alone: across reloads, tabs, cuts and another log."""

from __future__ import annotations

import httpx
from playwright.sync_api import Page, expect

from tests.application.hosting import Host
from tests.browser.conftest import WHILE_AWAY, Complaints
from tests.clients.js.proxy import Proxy
from tests.examples.conftest import check_layout
from tests.serving import WATCHDOG_S

INBOX = "inbox:ann"


def notify(host: Host, *texts: str) -> None:
    messages = [{"channel": INBOX, "data": {"text": text}} for text in texts]
    assert httpx.post(f"{host.url}/realtime/v1/messages", json=messages, timeout=WATCHDOG_S).status_code == 200


def expect_unread(page: Page, *texts: str) -> None:
    items = page.locator("#list li.unread")
    expect(items).to_have_count(len(texts))
    for item, text in zip(items.all(), reversed(texts), strict=True):
        expect(item).to_contain_text(text)
    expect(page).to_have_title(f"({len(texts)}) Notifications" if texts else "Notifications")
    if texts:
        expect(page.locator("#badge")).to_have_text(str(len(texts)))
    else:
        expect(page.locator("#badge")).to_be_hidden()


def open_inbox(page: Page, url: str) -> None:
    page.goto(f"{url}/notifications/")
    expect(page.locator("#state")).to_have_text("connected")


def test_unread_ones_are_there_after_a_reload(pages: Host, page: Page) -> None:
    notify(pages, "from before the first visit")
    open_inbox(page, pages.url)
    expect_unread(page)
    notify(pages, "<b>one</b>", "two")
    expect_unread(page, "<b>one</b>", "two")
    page.goto("about:blank")
    notify(pages, "three")
    open_inbox(page, pages.url)
    expect_unread(page, "<b>one</b>", "two", "three")
    page.get_by_role("button", name="Mark all as read").click()
    expect_unread(page)
    notify(pages, "four")
    page.reload()
    expect_unread(page, "four")


def test_what_is_read_in_one_tab_is_read_in_the_other(pages: Host, page: Page) -> None:
    open_inbox(page, pages.url)
    other = page.context.new_page()
    open_inbox(other, pages.url)
    page.get_by_label("Send one").fill("from the page")
    page.get_by_role("button", name="Send").click()
    expect_unread(page, "from the page")
    expect_unread(other, "from the page")
    other.get_by_role("button", name="Mark all as read").click()
    expect_unread(page)
    other.close()


def test_nothing_is_missing_or_twice_after_a_cut(pages: Host, page: Page, complaints: Complaints) -> None:
    complaints.allow(*WHILE_AWAY)
    with Proxy(pages.port) as proxy:
        open_inbox(page, f"http://127.0.0.1:{proxy.port}")
        notify(pages, "one")
        expect_unread(page, "one")
        # The browser comes back by itself after a cut; and the page, where the answer was no stream.
        for number, path in enumerate(("", "**/v1/events*")):
            if path:
                page.route(path, lambda route: route.fulfill(status=503))
            proxy.forbidden = {"/v1/events"}
            proxy.cut()
            expect(page.locator("#state")).to_contain_text("lost")
            notify(pages, f"while away {number}")
            proxy.forbidden = set()
            if path:
                page.unroute(path)
            expect_unread(page, "one", *(f"while away {each}" for each in range(number + 1)))
        page.goto("about:blank")


def test_another_log_is_told_of(pages: Host, page: Page) -> None:
    open_inbox(page, pages.url)
    page.evaluate(f"localStorage['read of {INBOX}'] = 'otherlog.17'")
    notify(pages, "one")
    page.reload()
    expect(page.locator("#note")).to_contain_text("no longer kept")
    expect(page.locator("#list li").first).to_contain_text("one")


def test_on_a_phone_everything_fits(pages: Host, phone: Page) -> None:
    open_inbox(phone, pages.url)
    notify(pages, "a" * 300, "short")
    expect_unread(phone, "a" * 300, "short")
    check_layout(phone)
