"""Tokens on the page at ``/``: asked for, kept in the tab, over, and of too little use."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tellwire.auth.making import make_token
from tests.application.hosting import Host
from tests.browser.conftest import Complaints
from tests.browser.lanes import LANES, Console
from tests.serving import Server

KEY = "a secret of the tests, at least thirty-two bytes long"

EVERYTHING = {"subscribe": ["*"], "publish": ["*"], "presence": ["*"], "admin": ["*"]}


@pytest.fixture
def closed(start_server: Callable[..., Server]) -> Server:
    """Return a server that asks for tokens, and whose clock is exact."""
    return start_server(auth={"token_key": KEY, "token_leeway_s": 0})


def token(lasts_s: float = 600, **claims: Any) -> str:
    return make_token({"sub": "ann", "can": EVERYTHING, **claims}, KEY.encode(), lasts_s)


def use(page: Page, text: str) -> None:
    page.get_by_label("Token (JWT)").fill(text)
    page.get_by_role("button", name="Use it").click()


def expect_live(page: Page) -> None:
    expect(page.locator("[data-lane][data-state=live]")).to_have_count(len(LANES))


def test_open_server_wants_no_token(page: Page, server: Server, channel: str) -> None:
    Console(page, server, channel)
    expect(page.locator("#sign-in")).to_be_hidden()
    expect(page.get_by_role("tab", name="Operator")).to_be_visible()


def test_token_is_asked_for_used_on_all_lanes_and_kept_over_a_reload(
    closed: Server, page: Page, channel: str, complaints: Complaints
) -> None:
    complaints.allow("401")
    page.goto(f"http://127.0.0.1:{closed.port}/#{channel}")
    why = page.locator("#token-why")
    expect(why).to_have_text("This server wants a token.")
    expect(page.get_by_role("tab")).to_have_count(0)
    use(page, "no token at all")
    expect(why).to_contain_text("That is not a token: ")
    use(page, token() + "x")
    expect(why).to_have_text("This server wants a token, and does not take this one.")
    use(page, f'  "{token()}"\n')
    expect_live(page)
    expect(page.locator("#sign-in")).to_be_hidden()
    expect(page.locator("#identity")).to_contain_text("Signed in as ann until ")
    expect(page.locator("[data-me=true] .name")).to_have_text("ann")
    expect(page.get_by_role("tab", name="Operator")).to_be_visible()
    page.get_by_role("button", name="Publish", exact=True).click()
    for key in LANES:
        expect(page.locator(f"[data-lane={key}]")).to_have_attribute("data-received", "1")
    complaints.allow()
    page.reload()
    expect_live(page)
    assert page.evaluate("() => localStorage.length") == 0
    assert token().split(".")[0] not in page.url
    complaints.allow("401")
    page.get_by_role("button", name="Token", exact=True).click()
    page.get_by_role("button", name="Forget it").click()
    expect(page.locator("[data-lane][data-state=failed]")).to_have_count(len(LANES))
    expect(why).to_have_text("This server wants a token.")
    assert page.evaluate("() => sessionStorage.getItem('tellwire.token')") is None


def test_token_that_is_over_is_replaced_and_nothing_is_lost(
    closed: Server, open_page: Callable[[], Page], channel: str, complaints: Complaints
) -> None:
    complaints.allow("401")
    page, other = open_page(), open_page()
    for each in (other, page):
        each.goto(f"http://127.0.0.1:{closed.port}/#{channel}")
    use(other, token())
    expect_live(other)
    lasts_s, have_begun = 2.0, False
    while not have_begun:  # else it was over before they did
        lasts_s *= 2
        use(page, token(lasts_s))
        expect(page.locator("#token-why")).to_contain_text("Your token has expired.")
        have_begun = page.locator("[data-part=cursor]", has_text=re.compile(r"\.\d")).count() == len(LANES)
    expect(page.locator("[data-lane][data-state=failed]")).to_have_count(len(LANES))
    other.get_by_label("Messages in a burst").fill("20")
    other.get_by_role("button", name="Burst of").click()
    expect(other.locator("[data-lane=poll]")).to_have_attribute("data-received", "20")
    use(page, token())
    expect_live(page)
    for key in LANES:
        lane = page.locator(f"[data-lane={key}]")
        expect(lane).to_have_attribute("data-received", "20")
        expect(lane).to_have_attribute("data-lost", "0")
    expect(page.locator("#sign-in")).to_be_hidden()


def test_token_of_little_use_reads_and_says_what_it_may_not(
    closed: Server, page: Page, channel: str, complaints: Complaints
) -> None:
    complaints.allow("401", "403")
    page.goto(f"http://127.0.0.1:{closed.port}/#{channel}")
    use(page, token(can={"subscribe": [channel]}))
    expect_live(page)
    expect(page.locator("#here-count")).to_have_text("This token may not see who is in this channel.")
    expect(page.get_by_label("Your name")).to_be_hidden()
    expect(page.get_by_role("tab")).to_have_count(0)
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.locator("#complaint")).to_contain_text("Not published: ")
    page.get_by_role("textbox", name="Channel").fill("other")
    page.get_by_role("button", name="Open", exact=True).click()
    expect(page.locator("#complaint")).to_contain_text("Cannot read other: ")


def test_token_of_another_user_makes_another_member(
    closed: Server, page: Page, channel: str, complaints: Complaints
) -> None:
    complaints.allow("401")
    page.goto(f"http://127.0.0.1:{closed.port}/#{channel}")
    use(page, token())
    expect_live(page)
    expect(page.locator("[data-me=true] .name")).to_have_text("ann")
    page.get_by_role("button", name="Token", exact=True).click()
    use(page, token(sub="bo", info={"name": "Bo of Info"}))
    expect(page.locator("#identity")).to_contain_text("Signed in as bo")
    expect(page.locator("[data-me=true] .name")).to_have_text("Bo of Info")
    expect(page.locator("[data-me=true] .aside")).to_have_text("you")
    expect(page.locator("#members li")).to_have_count(1)  # the other one has left


def test_page_under_a_prefix_of_an_application_works_as_at_the_root(
    browser: Browser, channel: str, complaints: Complaints
) -> None:
    with Host(Path(__file__).with_name("mounted_app.py")) as host, browser.new_context() as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        complaints.allow("401")
        page.on("console", complaints.hear)
        page.goto(f"{host.url}/inside/realtime/#{channel}")
        use(page, token())
        expect_live(page)
        expect(page.locator("[data-me=true] .name")).to_have_text("ann")
        page.get_by_role("button", name="Publish", exact=True).click()
        for key in LANES:
            expect(page.locator(f"[data-lane={key}]")).to_have_attribute("data-received", "1")
        page.get_by_role("tab", name="Operator").click()
        expect(page.locator("#connections tbody tr").filter(has_text="(this page)")).to_have_count(3)
    assert complaints == []
