"""A game over two wires: moves on both, and a coin that one player gets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import httpx
from playwright.sync_api import Page, WebSocketRoute, expect

from tests.application.hosting import Host
from tests.browser.conftest import Complaints
from tests.examples.conftest import check_layout
from tests.examples.media import browser  # noqa: F401  # a fixture
from tests.serving import WATCHDOG_S


def coins(host: Host) -> list[str]:
    page = httpx.get(
        f"{host.url}/realtime/v1/messages?channel=room:game-coins&since=earliest", timeout=WATCHDOG_S
    ).json()
    return [message["data"]["by"] for message in page["messages"]]


def test_moves_come_over_both_wires_and_one_gets_the_coin(
    pages: Host, open_page: Callable[[], Page], complaints: Complaints
) -> None:
    complaints.allow("willReadFrequently")  # of a canvas that only this test reads
    ann, bob = open_page(), open_page()
    # Neither they nor the next coin begin where a coin is.
    ann.add_init_script("Math.random = () => 0.2")
    bob.add_init_script("Math.random = () => 0.8")
    for page in (ann, bob):
        page.goto(f"{pages.url}/game/")
        expect(page.locator("#state")).to_have_text("connected over both")
    for name in ("webrtc", "websocket"):
        board = ann.locator(f"#{name}")
        board.hover(position={"x": 20, "y": 20})
        expect(ann.locator(f"#{name}-latency")).to_have_text(re.compile(r"p50 [\d.]+ ms, p99 [\d.]+ ms"))
    # Two players on both boards, where the other one stands still.
    for page in (ann, bob):
        page.wait_for_function(
            """() => ["webrtc", "websocket"].every((name) => {
                const canvas = document.getElementById(name);
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                const colors = new Set();
                for (let at = 0; at < data.length; at += 4) {
                    if (data[at + 3] === 255) colors.add(`${data[at]} ${data[at + 1]} ${data[at + 2]}`);
                }
                return colors.size >= 3;
            })"""
        )
    check_layout(ann)
    assert coins(pages) == []
    board = ann.locator("#websocket")
    box = board.bounding_box()
    assert box is not None
    board.hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
    expect(ann.locator("#scores")).to_have_text("You 1")
    expect(bob.locator("#scores")).to_have_text("Player 1")
    assert len(coins(pages)) == 1


def test_first_coin_too_is_had_once(pages: Host, open_page: Callable[[], Page]) -> None:
    ann = open_page()
    ann.add_init_script("Math.random = () => 0.2")

    def hold(wire: WebSocketRoute) -> None:
        """Keep from the page who has the coin: its own answer comes long before."""
        server = wire.connect_to_server()

        def pass_on(text: str | bytes) -> None:
            push = json.loads(text)
            if (push["type"], push.get("channel")) != ("message", "room:game-coins"):
                wire.send(text)

        server.on_message(pass_on)

    ann.route_web_socket("**/v1/ws*", hold)
    ann.goto(f"{pages.url}/game/")
    expect(ann.locator("#state")).to_have_text("connected over both")
    box = ann.locator("#websocket").bounding_box()
    assert box is not None
    for step in range(20):
        ann.locator("#websocket").hover(position={"x": box["width"] / 2 + step % 2, "y": box["height"] / 2})
        expect(ann.locator("#websocket-latency")).to_have_text(re.compile(r"p50 [\d.]+ ms"))
    assert len(coins(pages)) == 1
