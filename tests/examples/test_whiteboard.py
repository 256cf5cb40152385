"""A board that two people draw on: pointers that are gone with them, lines that stay."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from playwright.sync_api import Page, expect

from tests.application.hosting import Host
from tests.examples.conftest import check_layout


def open_board(page: Page, host: Host, name: str) -> None:
    page.goto(f"{host.url}/whiteboard/")
    page.get_by_label("Name").fill(name)
    expect(page.locator("#state")).to_have_text("connected")


def move(page: Page, *places: tuple[float, float], draw: bool = False) -> None:
    """Move the pointer through places, each from 0 to 1 over the board's width and height."""
    box = page.locator("canvas").bounding_box()
    assert box is not None
    for number, (x, y) in enumerate(places):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        if draw and number == 0:
            page.mouse.down()
    if draw:
        page.mouse.up()


def drawn(page: Page) -> int:
    """Count the pixels that have a colour."""
    count: int = page.evaluate(
        """() => { const { width, height } = document.querySelector("canvas");
        const { data } = document.querySelector("canvas").getContext("2d").getImageData(0, 0, width, height);
        let count = 0; for (let each = 3; each < data.length; each += 4) count += data[each] > 0; return count; }"""
    )
    return count


def log(host: Host) -> list[str]:
    page = httpx.get(f"{host.url}/realtime/v1/messages?channel=room:board&since=earliest").json()
    return [message["event"] for message in page["messages"]]


def test_pointers_are_shared_and_lines_stay(pages: Host, open_page: Callable[[], Page]) -> None:
    ann, bob = open_page(), open_page()
    open_board(ann, pages, "Ann")
    open_board(bob, pages, "<i>Bob</i>")
    board = bob.locator("canvas")
    move(ann, (0.1, 0.1), (0.75, 0.5))
    expect(bob.locator(".pointer")).to_have_text("Ann")
    box, pointer = board.bounding_box(), bob.locator(".pointer")
    assert box is not None
    bob.wait_for_function(
        "([x, y]) => { const [px, py] = document.querySelector('.pointer').style.translate.split(' ').map(parseFloat);"
        " return Math.abs(px - x) < 3 && Math.abs(py - y) < 3; }",
        arg=[0.75 * box["width"], 0.5 * box["height"]],
    )
    expect(pointer).to_have_count(1)
    assert log(pages) == []  # a pointer leaves nothing behind
    move(ann, (0.2, 0.2), (0.6, 0.6), (0.8, 0.3), draw=True)
    expect(board).to_have_attribute("aria-label", "Whiteboard with 1 lines")
    assert log(pages) == ["line"]
    bob.wait_for_function(
        "() => new Uint32Array(document.querySelector('canvas').getContext('2d')"
        ".getImageData(0, 0, 1600, 1200).data.buffer).some((pixel) => pixel)"
    )
    move(bob, (0.5, 0.5), (0.4, 0.7), draw=True)
    expect(ann.locator(".pointer")).to_have_text("<i>Bob</i>")
    expect(ann.locator("canvas")).to_have_attribute("aria-label", "Whiteboard with 2 lines")
    # Who comes later sees what was drawn, and nobody's pointer who is still.
    late = open_page()
    open_board(late, pages, "Cid")
    expect(late.locator("canvas")).to_have_attribute("aria-label", "Whiteboard with 2 lines")
    assert drawn(late) > 0
    expect(late.locator(".pointer")).to_have_count(0)
    # A pointer that is still is taken away.
    expect(ann.locator(".pointer")).to_have_count(0)
    late.get_by_role("button", name="Wipe").click()
    for each in (ann, bob, late):
        expect(each.locator("canvas")).to_have_attribute("aria-label", "Whiteboard, empty")


def test_fast_pointer_is_told_of_once_a_frame_at_most(pages: Host, page: Page) -> None:
    open_board(page, pages, "Ann")
    frames: list[str] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: frames.append(str(frame))))
    page.reload()
    expect(page.locator("#state")).to_have_text("connected")
    # A thousand moves within one frame; the last of them is told.
    page.evaluate(
        """() => new Promise((done) => requestAnimationFrame(() => {
            const canvas = document.querySelector("canvas");
            const { left, top } = canvas.getBoundingClientRect();
            for (let each = 0; each < 1000; each += 1) {
                const place = { clientX: left + each / 10, clientY: top + 10, isPrimary: true, pointerId: 1 };
                canvas.dispatchEvent(new PointerEvent("pointermove", place));
            }
            requestAnimationFrame(() => requestAnimationFrame(done));
        }))"""
    )
    told = [frame for frame in frames if '"pointer"' in frame]
    assert 1 <= len(told) <= 2


def test_on_a_phone_everything_fits(pages: Host, phone: Page) -> None:
    open_board(phone, pages, "Ann")
    check_layout(phone)
    expect(phone.locator("canvas")).to_be_in_viewport(ratio=1)
