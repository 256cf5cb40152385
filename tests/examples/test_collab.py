"""Two people in one text: at once, without a connection, and after the first updates are no longer kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.application.hosting import Host
from tests.browser.conftest import WATCHDOG_MS, WHILE_AWAY, Complaints
from tests.examples.conftest import check_layout
from tests.serving import ROOT, WATCHDOG_S


@pytest.fixture(autouse=True)
def yjs() -> None:
    """Skip the tests where Yjs is not installed, but in CI let them fail."""
    if not (ROOT / "tests" / "node_modules" / "yjs").is_dir() and os.environ.get("CI") != "true":
        pytest.skip("Yjs is not installed: npm ci --prefix tests")


def open_text(page: Page, host: Host, name: str) -> None:
    page.goto(f"{host.url}/collab/")
    page.get_by_label("Name").fill(name)
    expect(page.get_by_label("Text", exact=True)).to_be_editable()


def text(page: Page) -> str:
    return page.get_by_label("Text", exact=True).input_value()


def type_at(page: Page, place: int, typed: str) -> None:
    """Put the caret at a place and type."""
    page.evaluate("(place) => { const area = document.querySelector('textarea'); area.focus(); "
                  "area.setSelectionRange(place, place); }", place)  # fmt: skip
    page.keyboard.type(typed)


def wait_same(*pages: Page, length: int) -> str:
    """Wait until all have a text of this length; return it: there has to be one only."""
    for page in pages:
        page.wait_for_function(
            "(length) => document.querySelector('textarea').value.length === length", arg=length, timeout=WATCHDOG_MS
        )
    texts = {text(page) for page in pages}
    assert len(texts) == 1, texts
    return texts.pop()


def updates(host: Host) -> list[dict[str, Any]]:
    url = f"{host.url}/realtime/v1/messages?channel=doc:notes&since=earliest&limit=10000"
    messages: list[dict[str, Any]] = httpx.get(url, timeout=WATCHDOG_S).json()["messages"]
    return messages


def test_two_write_at_once_and_converge(pages: Host, open_page: Callable[[], Page]) -> None:
    ann, bob = open_page(), open_page()
    open_text(ann, pages, "Ann")
    open_text(bob, pages, "Bob")
    type_at(ann, 0, "first\nlast")
    wait_same(ann, bob, length=10)
    # In turns, without waiting for each other, and both at the beginning.
    for number in range(20):
        type_at(ann, 0, f"a{number % 10}")
        type_at(bob, 0, f"b{number % 10}")
    both = wait_same(ann, bob, length=90)
    assert both.endswith("first\nlast")
    for number in range(10):
        assert both.count(f"a{number}") <= 2
    expect(ann.locator("#people")).to_contain_text("Bob · line 1")
    expect(ann.locator("#saved")).to_have_text("All changes are in the log")
    # Who comes later has it from the log, and is told who is here.
    late = open_page()
    open_text(late, pages, "<b>Cid</b>")
    assert wait_same(late, length=90) == both
    expect(late.locator("#people li")).to_have_count(3)
    expect(bob.locator("#people")).to_contain_text("<b>Cid</b>")
    late.goto("about:blank")
    expect(bob.locator("#people li")).to_have_count(2)


def test_caret_stays_where_it_is_in_the_text(pages: Host, open_page: Callable[[], Page]) -> None:
    ann, bob = open_page(), open_page()
    open_text(ann, pages, "Ann")
    open_text(bob, pages, "Bob")
    type_at(ann, 0, "one three")
    wait_same(ann, bob, length=9)
    type_at(bob, 4, "")
    type_at(ann, 0, "zero ")
    wait_same(ann, bob, length=14)
    bob.keyboard.type("two ")
    assert wait_same(ann, bob, length=18) == "zero one two three"
    # What is deleted before it, and around it.
    ann.evaluate("() => document.querySelector('textarea').setSelectionRange(0, 5)")
    ann.keyboard.press("Delete")
    wait_same(ann, bob, length=13)
    bob.keyboard.type("& ")
    assert wait_same(ann, bob, length=15) == "one two & three"


def test_who_was_offline_comes_back_with_what_was_written(
    pages: Host, open_page: Callable[[], Page], complaints: Complaints
) -> None:
    complaints.allow(*WHILE_AWAY, "WebSocket connection")
    ann, bob = open_page(), open_page()
    open_text(ann, pages, "Ann")
    open_text(bob, pages, "Bob")
    type_at(ann, 0, "middle")
    wait_same(ann, bob, length=6)
    bob.context.set_offline(True)
    expect(bob.locator("#state")).to_contain_text("no connection")
    type_at(bob, 6, " bob's end")
    type_at(ann, 0, "ann's beginning ")
    expect(bob.locator("#saved")).to_contain_text("not sent yet")
    assert (text(ann), text(bob)) == ("ann's beginning middle", "middle bob's end")
    bob.context.set_offline(False)
    assert wait_same(ann, bob, length=32) == "ann's beginning middle bob's end"
    expect(bob.locator("#saved")).to_have_text("All changes are in the log")
    expect(ann.locator("#people")).to_contain_text("Bob")


def test_whole_document_is_put_into_the_log_now_and_then(pages: Host, page: Page) -> None:
    open_text(page, pages, "Ann")
    type_at(page, 0, "x" * 450)
    wait_same(page, length=450)
    expect(page.locator("#saved")).to_have_text("All changes are in the log")
    kinds = [message["event"] for message in updates(pages)]
    assert kinds.count("update") == 450
    assert kinds.count("snapshot") == 2
    # The last snapshot and what follows it are the document: what a log that was trimmed still has.
    last = len(kinds) - 1 - kinds[::-1].index("snapshot")
    rebuilt = page.evaluate(
        """async (updates) => {
            const Y = await import("yjs");
            const doc = new Y.Doc();
            for (const each of updates) Y.applyUpdate(doc, Uint8Array.from(atob(each), (c) => c.charCodeAt(0)));
            return doc.getText("text").toString();
        }""",
        [message["data"]["$bytes"] for message in updates(pages)[last:]],
    )
    assert rebuilt == "x" * 450


def test_on_a_phone_everything_fits(pages: Host, phone: Page) -> None:
    open_text(phone, pages, "Ann")
    type_at(phone, 0, "long " * 50)
    expect(phone.locator("#saved")).to_have_text("All changes are in the log")
    check_layout(phone)
