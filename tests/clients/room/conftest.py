"""Pages in a room: each in a window of its own, with a camera and a microphone that Chromium makes up."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.conftest import WATCHDOG_MS, chromium
from tests.serving import Server

FLAGS = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--auto-accept-this-tab-capture",
    "--allow-loopback-in-peer-connection",  # where there is no other address
)

OPEN = """async ([channel, options, join, transports, url]) => {
    const { Tellwire } = await import("/client/tellwire.js");
    window.client = new Tellwire(url, { pollMs: 100, ...(transports ? { transports } : {}) });
    window.room = await client.room(channel, options);
    Object.assign(window, { heard: [], paths: [], errors: [], came: [], left: [], frames: {}, files: [] });
    room.on("error", ({ code, message }) => errors.push(`${code}: ${message}`));
    room.on("path", ({ path }) => paths.push(path));
    room.on("peerleft", ({ client }) => left.push(client));
    room.on("peer", (peer) => {
        came.push(peer.client);
        room.dataChannel(peer).on("message", (data) => heard.push(data));
        room.dataChannel(peer, { unreliable: true }).on("message", (data) => heard.push(`unreliable ${data}`));
    });
    room.onTrack(({ track, stream, kind }) => {
        if (track.kind !== "video") return;
        const video = document.createElement("video");
        Object.assign(video, { muted: true, autoplay: true, srcObject: new MediaStream([track]) });
        document.body.append(video);
        frames[kind] = 0;
        const count = () => { frames[kind] += 1; video.requestVideoFrameCallback(count); };
        video.requestVideoFrameCallback(count);
    });
    window.hex = async (blob) => {
        const digest = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
        return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
    };
    room.on("file", (file) => files.push(file));
    window.peer = () => [...room.peers.values()][0];
    await room.join(join);
}"""

HOLD = """() => {
    const gate = new Promise((resolve) => { window.letGo = resolve; });
    File.prototype.slice = function (...at) {
        const part = Blob.prototype.slice.apply(this, at);
        return at[0] < this.size / 2 ? part : { arrayBuffer: () => gate.then(() => part.arrayBuffer()) };
    };
}"""
"""The second half of each file is read when the test lets it go: what happens before that, happens in the middle."""


class Person:
    """A page in a room."""

    def __init__(self, page: Page, port: int, channel: str) -> None:
        self.page = page
        self.port = port
        self.channel = channel
        self.how: list[Any] = []

    def join(
        self, join: dict[str, Any] | None = None, *, transports: list[str] | None = None, url: str = "/", **options: Any
    ) -> None:
        """Enter the room; `options` are those of the room."""
        self.how = [self.channel, options, join or {}, transports, url]
        self.page.goto(f"http://127.0.0.1:{self.port}/healthz")
        self.run(OPEN, self.how)

    def reload(self) -> None:
        """Load the page anew, and enter again."""
        self.page.reload()
        self.run(OPEN, self.how)

    def run(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def wait(self, condition: str, argument: Any = None) -> None:
        """Wait until an expression is true; `x` is the argument."""
        try:
            self.page.wait_for_function(f"(x) => {condition}", arg=argument, timeout=WATCHDOG_MS)
        except Exception:
            seen = "() => ({ paths, heard, errors, frames, path: peer()?.path, state: peer()?.pc?.connectionState })"
            pytest.fail(f"{condition}: {self.run(seen)}")

    def wait_path(self, path: str) -> None:
        self.wait("peer()?.path === x", path)

    def say(self, text: str) -> None:
        self.run("(text) => room.dataChannel(peer()).send(text)", text)

    def wait_heard(self, text: str) -> None:
        self.wait("heard.includes(x)", text)

    @property
    def errors(self) -> list[str]:
        found: list[str] = self.run("() => errors")
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a browser with devices, and ways to itself."""
    with chromium(*FLAGS) as browser:
        yield browser


@pytest.fixture
def room() -> str:
    return f"room-{secrets.token_hex(6)}"


@pytest.fixture
def someone(browser: Browser, server: Server, room: str) -> Iterator[Callable[..., Person]]:
    """Open pages of people that know nothing of each other; none of them may throw."""
    contexts: list[BrowserContext] = []
    thrown: list[str] = []

    def open_(at: Server | None = None, *, channel: str = room) -> Person:
        context = browser.new_context(permissions=["camera", "microphone"])
        context.set_default_timeout(WATCHDOG_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: thrown.append(f"{error}\n{error.stack}"))
        return Person(page, (at or server).port, channel)

    yield open_
    for context in contexts:
        context.close()
    assert thrown == []


@pytest.fixture
def pair(someone: Callable[..., Person]) -> Callable[..., tuple[Person, Person]]:
    """Open two pages in the room; the first is there before the second."""

    def open_(*joins: dict[str, Any], **options: Any) -> tuple[Person, Person]:
        first, second = someone(), someone()
        for person, join in zip((first, second), joins or ({}, {}), strict=True):
            person.join(join, **options)
        return first, second

    return open_
