"""A device whose pictures a page shows: before it comes, while it is there, and when it comes back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from playwright.sync_api import Page, expect

from tests.application.hosting import Host
from tests.examples.conftest import EXAMPLES, check_layout
from tests.examples.media import browser  # noqa: F401  # a fixture
from tests.serving import ROOT, WATCHDOG_S


@contextmanager
def device(host: Host, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Run the device until the block ends."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "camera" / "device.py"), "--url", f"{host.url}/realtime", *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "the camera is there\n"
        yield process
    finally:
        process.kill()
        process.wait(WATCHDOG_S)
        process.stdout.close()


def wait_moving(page: Page) -> None:
    page.wait_for_function(
        "(from) => document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames > from + 5",
        arg=page.evaluate("document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames"),
    )


def test_a_page_sees_what_the_device_sees(pages: Host, open_page: Callable[[], Page]) -> None:
    page = open_page()
    page.goto(f"{pages.url}/camera/")
    expect(page.locator("#state")).to_have_text("no camera is here yet")
    check_layout(page)
    with device(pages):
        expect(page.locator("#state")).to_have_text("live")
        wait_moving(page)


def test_one_too_many_is_told_and_rubbish_harms_nobody(pages: Host, open_page: Callable[[], Page]) -> None:
    first, second = open_page(), open_page()
    with device(pages, "--viewers", "1") as process:
        first.goto(f"{pages.url}/camera/")
        expect(first.locator("#state")).to_have_text("live")
        second.goto(f"{pages.url}/camera/")
        expect(second.locator("#state")).to_have_text("the device has all the viewers that it takes")
        with httpx.Client(base_url=f"{pages.url}/realtime/v1", timeout=WATCHDOG_S) as ask:
            ask.post("/presence", json={"channel": "room:camera", "session": "a stranger", "enter": True})
            members = ask.get("/presence", params={"channel": "room:camera"}).json()["members"]
            (camera,) = [each["client"] for each in members if (each.get("state") or {}).get("camera")]
            for rubbish in ("v=0", 7, "x" * 30_000, None):
                body = {
                    "channel": "room:camera",
                    "session": "a stranger",
                    "to": camera,
                    "event": "offer",
                    "data": rubbish,
                }
                assert ask.post("/send", json=body).status_code == 200
        wait_moving(first)
        assert process.poll() is None
