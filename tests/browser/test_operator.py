"""The operator's view of the page at ``/``: what is open, who lags, and what can be done about it."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Locator, Page, expect

from tellwire.auth.making import make_token
from tests.browser.conftest import WHILE_AWAY, Complaints
from tests.browser.lanes import Console
from tests.serving import Server
from tests.wires import Http

CONTRAST = Path(__file__).with_name("contrast.js").read_text()

KEY = "a secret of the tests, at least thirty-two bytes long"

NASTY = "<img src=x onerror=\"document.title='owned'\">"


def look(page: Page) -> None:
    """Show the operator's view."""
    page.get_by_role("tab", name="Operator").click()
    expect(page.locator("#node")).to_contain_text("version")


def rows(page: Page, table: str = "connections") -> Locator:
    return page.locator(f"#{table} tbody tr")


@pytest.fixture
def patient(start_server: Callable[..., Server]) -> Server:
    """Return a server that does not take a reader for dead while the test looks at it."""
    return start_server(limits={"heartbeat_s": 600.0}, namespaces=[{"name": "large", "message_max_bytes": 2_000_000}])


@pytest.fixture
def laggard(patient: Server, channel: str) -> Iterator[Http]:
    """Return a reader that takes nothing, of a channel that has had more than fits into its socket."""
    with Http(patient, receive_buffer=4096) as http, Http(patient) as operator:
        http.send_request("GET", f"/v1/events?channel=large:{channel}&session={secrets.token_hex(8)}")
        http.read_head()
        for _ in range(30):
            patient.publish(f"large:{channel}", "x" * 1_500_000)
            if operator.get("/v1/admin/stats").json()["lagging"]:
                break
        yield http


def test_lagging_reader_is_first_and_is_disconnected(patient: Server, page: Page, channel: str, laggard: Http) -> None:
    Console(page, patient, channel)
    look(page)
    first = rows(page).first
    expect(first).to_have_class(re.compile("is-bad"))
    expect(first).to_contain_text(f"large:{channel}")
    expect(first.locator("th")).to_have_text(re.compile(r"^[1-9]\d*$"))
    expect(page.locator("#lagging-count")).to_have_text("1")
    expect(rows(page, "channels").filter(has_text=f"large:{channel}")).to_have_class(re.compile("is-bad"))
    page.get_by_label("Only this channel").fill(f"large:{channel}")
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(rows(page)).to_have_count(1)
    rows(page).get_by_role("button", name="Disconnect").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Disconnect client ")
    dialog.get_by_role("button", name="Leave it").click()
    expect(dialog).to_be_hidden()
    expect(rows(page)).to_have_count(1)
    rows(page).get_by_role("button", name="Disconnect").click()
    dialog.get_by_label("Reason").fill("too slow")
    dialog.get_by_role("button", name="Disconnect").click()
    expect(dialog).to_be_hidden()
    page.mouse.move(0, 0)
    page.get_by_label("Only this user").focus()
    expect(page.locator("#connections")).to_contain_text("No connection fits.")
    expect(page.locator("#lagging-count")).to_have_text("0")
    page.get_by_role("button", name="Show all").click()
    expect(rows(page).filter(has_text="(this page)").first).to_be_visible()
    assert b"too slow" in laggard.read_to_end()


def test_connections_and_rates_are_live(
    page: Page, server: Server, channel: str, open_page: Callable[[], Page]
) -> None:
    Console(page, server, channel)
    look(page)
    page.get_by_label("Only this channel").fill(channel)
    page.keyboard.press("Enter")
    expect(page.locator("#open-kinds")).to_contain_text("WebSocket")
    expect(rows(page).filter(has_text="(this page)")).to_have_count(3)  # a poll that does not wait is over at once
    expect(rows(page, "channels").locator("bdi")).to_have_text([channel, "3", "1", "1", "0"])
    other = open_page()
    Console(other, server, channel)
    expect(rows(page)).to_have_count(6)
    expect(rows(page, "channels").locator("bdi")).to_have_text([channel, "6", "2", "2", "0"])
    before = page.locator("#published-total").inner_text()
    other.get_by_role("button", name="4 a second").click()
    expect(page.locator("#published-rate")).to_have_text(re.compile(r"^[1-9]"))
    expect(page.locator("#delivered-rate")).to_have_text(re.compile(r"^[1-9]"))
    expect(page.locator("#published-total")).not_to_have_text(before)
    assert page.locator("#published-line polyline").get_attribute("points")
    other.close()
    expect(rows(page)).to_have_count(3)


def test_page_that_is_not_looked_at_asks_nothing(page: Page, server: Server, channel: str) -> None:
    Console(page, server, channel)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/admin/" in request.url else None)
    look(page)
    with page.expect_request(re.compile("/v1/admin/channels")):
        pass
    page.get_by_role("tab", name="Operator").press("ArrowLeft")
    expect(page.get_by_role("tab", name="Channel")).to_be_focused()
    expect(page.locator("#operator")).to_be_hidden()
    with page.expect_response(re.compile("/v1/messages.*wait=0")):
        pass
    asked.clear()
    for _ in range(2):  # this one asks once a second, as the view would
        with page.expect_response(re.compile("/v1/messages.*wait=0")):
            pass
    assert asked == []
    page.get_by_role("tab", name="Channel").press("ArrowRight")
    with page.expect_request(re.compile("/v1/admin/stats")):
        pass
    page.reload()
    expect(page.locator("#operator")).to_be_visible()


def test_server_that_goes_away_is_said_and_comes_back(
    start_server: Callable[..., Server], page: Page, channel: str, complaints: Complaints
) -> None:
    complaints.allow(*WHILE_AWAY)
    server = start_server()
    Console(page, server, channel)
    look(page)
    expect(rows(page)).to_have_count(3)
    server.kill()
    server.wait()
    alert = page.locator("#operator-complaint")
    expect(alert).to_contain_text("What is below is old: the server cannot be reached. Trying again in ")
    start_server(server={"port": server.port})
    expect(alert).to_be_empty(timeout=60_000)
    expect(rows(page).first).to_be_visible()


def test_user_is_revoked_and_asked_for_another_token(
    start_server: Callable[..., Server], open_page: Callable[[], Page], channel: str, complaints: Complaints
) -> None:
    complaints.allow("401")
    server = start_server(auth={"token_key": KEY})
    everything = {"subscribe": ["*"], "publish": ["*"], "presence": ["*"]}

    def sign_in(page: Page, user: str, **can: list[str]) -> None:
        page.goto(f"http://127.0.0.1:{server.port}/#{channel}")
        page.get_by_label("Token (JWT)").fill(make_token({"sub": user, "can": everything | can}, KEY.encode(), 600))
        page.keyboard.press("Enter")
        expect(page.locator("[data-lane][data-state=live]")).to_have_count(4)

    nasty, operator = open_page(), open_page()
    sign_in(operator, "ops", admin=["*"])
    complaints.allow("401", "403")  # whether it may look is asked of the server
    sign_in(nasty, NASTY)
    expect(nasty.get_by_role("tab")).to_have_count(0)
    look(operator)
    expect(rows(operator).filter(has_text=NASTY)).to_have_count(3)
    operator.get_by_label("Only this user").fill(NASTY)
    operator.keyboard.press("Enter")
    expect(rows(operator)).to_have_count(3)
    rows(operator).get_by_role("button", name="Revoke").first.click()
    dialog = operator.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Revoke the tokens of {NASTY}?")
    assert operator.locator("#operator img, dialog img").count() == 0
    dialog.get_by_role("button", name="Revoke").click()
    expect(nasty.locator("#token-why")).to_have_text("Your token was revoked. Put in another one.")
    expect(nasty.locator("[data-lane][data-state=failed]")).to_have_count(4)
    operator.mouse.move(0, 0)
    operator.get_by_label("Only this user").focus()
    expect(operator.locator("#connections")).to_contain_text("No connection fits.")
    assert "owned" not in operator.title()


def test_view_fits_and_has_contrast(patient: Server, page: Page, channel: str, laggard: Http) -> None:
    Console(page, patient, channel)
    look(page)
    expect(rows(page).first).to_have_class(re.compile("is-bad"))
    schemes: list[Literal["light", "dark"]] = ["light", "dark"]
    for scheme, width in itertools.product(schemes, (360, 768, 1440)):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # colours change at once
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        token = page.get_by_role("button", name="Token", exact=True)
        token.click()
        assert page.evaluate(CONTRAST, 4.5) == []
        token.click()
        rows(page).get_by_role("button", name="Disconnect").first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert page.evaluate(CONTRAST, 4.5) == []
        nameless = page.evaluate("""() => [...document.querySelectorAll("button, input, [role=tab]")]
            .filter((each) => !(each.getAttribute("aria-label") || each.labels?.[0]?.textContent.trim()
                || each.textContent.trim())).map((each) => each.outerHTML)""")
        assert nameless == []
        assert page.evaluate("() => document.activeElement.id") == "confirm-no"
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
