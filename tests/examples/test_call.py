"""A call: pictures that move, a screen that comes and goes, and somebody who reloads."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, Route, expect

from tests.application.hosting import Host
from tests.examples.conftest import check_layout
from tests.examples.media import browser  # noqa: F401  # a fixture


def join(page: Page, host: Host, name: str) -> None:
    page.goto(f"{host.url}/call/")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_role("button", name="Leave")).to_be_visible()


def wait_moving(page: Page, caption: str) -> None:
    """Wait until the picture with a caption has had some frames."""
    page.wait_for_function(
        """(caption) => {
            const all = [...document.querySelectorAll("figure")];
            const mine = all.find((each) => each.querySelector("figcaption").textContent === caption);
            return mine?.querySelector("video").getVideoPlaybackQuality().totalVideoFrames > 5;
        }""",
        arg=caption,
    )


def test_two_see_each_other_and_a_screen(pages: Host, open_page: Callable[[], Page]) -> None:
    ann, bob = open_page(), open_page()
    join(ann, pages, "<b>Ann</b>")
    join(bob, pages, "Bob")
    wait_moving(ann, "Bob")
    wait_moving(bob, "<b>Ann</b>")
    expect(bob.locator("#state")).to_have_text("<b>Ann</b> is connected")
    ann.get_by_role("button", name="Share screen").click()
    wait_moving(bob, "<b>Ann</b>: screen")
    check_layout(bob)
    ann.get_by_role("button", name="Share screen").click()
    expect(bob.locator("figure.screen")).to_have_count(0)
    ann.get_by_role("button", name="Mute").click()
    assert ann.evaluate("document.querySelector('figure.mine video').srcObject.getAudioTracks()[0].enabled") is False
    # Who comes back is seen again, once.
    bob.reload()
    join(bob, pages, "Bob")
    wait_moving(ann, "Bob")
    expect(ann.locator("figure")).to_have_count(2)
    bob.get_by_role("button", name="Leave").click()
    expect(ann.locator("figure")).to_have_count(1)
    expect(bob.locator("figure")).to_have_count(0)
    expect(ann.locator("#state")).to_have_text("nobody else is here yet")


def test_nothing_is_lost_by_joining_too_early(pages: Host, open_page: Callable[[], Page]) -> None:
    page = open_page()
    held: list[Route] = []
    page.route("**/client/room/room.js", lambda route: held.append(route))
    with page.expect_request("**/client/room/room.js"):
        page.goto(f"{pages.url}/call/")
    page.get_by_label("Name").fill("Ann")
    page.get_by_label("Name").press("Enter")
    expect(page.get_by_role("button", name="Join")).to_be_disabled()
    assert page.url == f"{pages.url}/call/"
    for each in held:
        each.continue_()
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_role("button", name="Leave")).to_be_visible()
    expect(page.get_by_label("Name")).to_have_value("Ann")
