"""Two people in a room: what they say, that they are there and type, and what was said before."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.application.hosting import Host
from tests.browser.conftest import WHILE_AWAY, Complaints
from tests.examples.conftest import check_layout

EVIL = '<img src=x onerror="document.title=1"> &amp; <b>bold</b>'


def enter(page: Page, host: Host, name: str) -> None:
    page.goto(f"{host.url}/chat/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Name").press("Tab")
    expect(page.locator("#people")).to_contain_text(f"{name} (you)")


def say(page: Page, text: str) -> None:
    page.locator("#text").fill(text)
    page.locator("#text").press("Enter")


def said(page: Page) -> list[str]:
    return page.locator("#messages .said").all_text_contents()


def test_two_people_talk(pages: Host, open_page: Callable[[], Page]) -> None:
    ann, bob = open_page(), open_page()
    enter(ann, pages, "Ann")
    enter(bob, pages, "Bob")
    expect(ann.locator("#people")).to_contain_text("Bob")
    while bob.locator("#typing").text_content() != "Ann is typing …":  # as long as she does
        ann.locator("#text").press("h")
    say(ann, "hello")
    expect(bob.locator("#typing")).to_have_text("")
    expect(bob.locator("#messages li")).to_have_count(1)
    expect(bob.locator("#messages .person")).to_have_text("Ann")
    say(bob, EVIL)
    expect(ann.locator("#messages li")).to_have_count(2)
    assert said(ann) == said(bob) == ["hello", EVIL]
    assert ann.title() == "Chat"
    expect(ann.locator("#messages li.mine .said")).to_have_text("hello")
    expect(bob.locator("#messages li.mine .said")).to_have_text(EVIL)
    bob.close()
    expect(ann.locator("#people")).not_to_contain_text("Bob")
    # What was said is still there, and mine is still mine.
    ann.reload()
    expect(ann.locator("#messages li")).to_have_count(2)
    expect(ann.locator("#messages li.mine .said")).to_have_text("hello")


def test_longer_past_comes_page_by_page(pages: Host, page: Page) -> None:
    page.goto(f"{pages.url}/chat/")
    publish = """async () => {
        const messages = Array.from({ length: 120 }, (_, number) => ({
            channel: "room:lobby", data: { author: `a${number % 3}`, name: `A${number % 3}`, text: String(number) },
        }));
        const answer = await fetch("/realtime/v1/messages", { method: "POST", body: JSON.stringify(messages) });
        return answer.status;
    }"""
    assert page.evaluate(publish) == 200
    page.reload()
    expect(page.locator("#messages li")).to_have_count(50)
    assert said(page) == [str(number) for number in range(70, 120)]
    page.get_by_role("button", name="Earlier messages").click()
    expect(page.locator("#messages li")).to_have_count(100)
    page.get_by_role("button", name="Earlier messages").click()
    expect(page.locator("#messages li")).to_have_count(120)
    assert said(page) == [str(number) for number in range(120)]
    expect(page.locator("#earlier")).to_be_hidden()


def test_what_is_said_without_a_connection_is_said_once(
    pages: Host, page: Page, open_page: Callable[[], Page], complaints: Complaints
) -> None:
    complaints.allow(*WHILE_AWAY, "WebSocket connection")
    bob = open_page()
    enter(bob, pages, "Bob")
    enter(page, pages, "Ann")
    page.context.set_offline(True)
    say(page, "one")
    say(page, "two")
    expect(page.locator("#messages li.waiting")).to_have_count(2)
    page.context.set_offline(False)
    expect(page.locator("#messages li.waiting")).to_have_count(0)
    expect(bob.locator("#messages li")).to_have_count(2)
    assert said(page) == said(bob) == ["one", "two"]


def test_on_a_phone_everything_fits(pages: Host, phone: Page) -> None:
    enter(phone, pages, "Somebody with a longish name")
    say(phone, "a" * 300)
    say(phone, "many words " * 60)
    expect(phone.locator("#messages li:not(.waiting)")).to_have_count(2)
    check_layout(phone)
    expect(phone.locator("#text")).to_be_in_viewport(ratio=1)
    expect(phone.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
