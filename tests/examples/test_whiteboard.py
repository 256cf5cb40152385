"""A board that two people draw on: pointers that are gone with them, lines that stay."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from playwright.sync_api import Page, WebSocket, expect

from tests.application.hosting import Host
from tests.examples.conftest import check_layout
from tests.serving import WATCHDOG_S


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


def show_pointer(page: Page, to: Page, name: str, *places: tuple[float, float]) -> None:
    """Move the pointer until another page has it at the last of the places; it is gone there when it rests."""
    there = """([name, x, y]) => {
        const [pointer, ...others] = document.querySelectorAll(".pointer");
        const { width, height } = document.querySelector("canvas").getBoundingClientRect();
        const [px, py] = (pointer?.style.translate ?? "").split(" ").map(parseFloat);
        const isNear = Math.abs(px - x * width) < 3 && Math.abs(py - y * height) < 3;
        return isNear && pointer.textContent === name && others.length === 0;
    }"""
    while not to.evaluate(there, [name, *places[-1]]):
        move(page, *places)


def log(host: Host) -> list[str]:
    page = httpx.get(f"{host.url}/realtime/v1/messages?channel=room:board&since=earliest", timeout=WATCHDOG_S).json()
    return [message["event"] for message in page["messages"]]


def test_pointers_are_shared_and_lines_stay(pages: Host, open_page: Callable[[], Page]) -> None:
    ann, bob = open_page(), open_page()
    open_board(ann, pages, "Ann")
    open_board(bob, pages, "<i>Bob</i>")
    board = bob.locator("canvas")
    show_pointer(ann, bob, "Ann", (0.1, 0.1), (0.75, 0.5))
    assert log(pages) == []  # a pointer leaves nothing behind
    move(ann, (0.2, 0.2), (0.6, 0.6), (0.8, 0.3), draw=True)
    expect(board).to_have_attribute("aria-label", "Whiteboard with 1 lines")
    assert log(pages) == ["line"]
    bob.wait_for_function(
        "() => new Uint32Array(document.querySelector('canvas').getContext('2d')"
        ".getImageData(0, 0, 1600, 1200).data.buffer).some((pixel) => pixel)"
    )
    show_pointer(bob, ann, "<i>Bob</i>", (0.3, 0.3), (0.5, 0.5))
    move(bob, (0.5, 0.5), (0.4, 0.7), draw=True)
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
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: frames.append(str(frame))))
    page.reload()
    expect(page.locator("#state")).to_have_text("connected")
    # A thousand moves within one frame; the last of them is told.
    with sockets[-1].expect_event("framesent", lambda frame: '"pointer"' in str(frame)):
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
