"""Data channels to the server, from a real browser's stack (spec, section 17)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import WATCHDOG_MS, chromium
from tests.serving import Server

OPEN = """
async () => {
  const peer = new RTCPeerConnection();
  const reliable = peer.createDataChannel("tellwire", { protocol: "tellwire.v1.json" });
  const unreliable = peer.createDataChannel("tellwire.unreliable", { ordered: false, maxRetransmits: 0 });
  const state = { had: [], lost: [], pushes: [], closed: false, parts: [] };
  Object.assign(window, { peer, reliable, unreliable, state });
  reliable.binaryType = "arraybuffer";
  const opened = new Promise((done) => { reliable.onopen = done; });
  const take = (text) => {
    const push = JSON.parse(text);
    if (push.type === "message") state.had.push(push.data);
    else if (push.type !== "heartbeat") state.pushes.push(push);
  };
  reliable.onmessage = ({ data }) => {
    if (typeof data === "string") return take(data);
    const bytes = new Uint8Array(data);
    state.parts.push(bytes.slice(1));
    if (bytes[0] === 0) take(new TextDecoder().decode(join(state.parts.splice(0))));
  };
  const join = (parts) => {
    const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
    return whole;
  };
  reliable.onclose = () => { state.closed = true; };
  unreliable.onmessage = ({ data }) => state.lost.push(JSON.parse(data).data);
  await peer.setLocalDescription();
  const answer = await fetch("/v1/rtc", {
    method: "POST", headers: { "Content-Type": "application/sdp" }, body: peer.localDescription.sdp,
  });
  if (answer.status !== 201) throw new Error(await answer.text());
  state.location = answer.headers.get("Location");
  await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  await opened;
  reliable.send(JSON.stringify({ type: "connect", ref: 1 }));
  return peer.sctp.maxMessageSize;
}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(rtc={"rtc": True}, namespaces=[{"name": "large", "message_max_bytes": 1_000_000}])
    yield server
    server.close()


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    """A tab on the server's own page that may find peers on this machine, which a page with a camera may."""
    with chromium("--allow-loopback-in-peer-connection") as browser:
        context = browser.new_context(permissions=["camera", "microphone"])
        context.set_default_timeout(WATCHDOG_MS)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/healthz")
        yield page
        context.close()


def _say(page: Page, **command: Any) -> None:
    page.evaluate("(command) => reliable.send(JSON.stringify(command))", command)


def test_chromium_reads_publishes_and_ends(server: Server, page: Page) -> None:
    assert page.evaluate(OPEN) == 65_536
    for number in range(100):
        server.publish("page", number)
    _say(page, type="subscribe", channel="page", since="earliest", ref=2)
    page.wait_for_function("() => state.had.length === 100")
    for number in range(100, 150):
        server.publish("page", number)
    for number in range(10):
        _say(page, type="publish", channel="page", data=f"mine {number}", ref=number + 10)
    page.wait_for_function("() => state.had.length === 160")
    had = page.evaluate("() => state.had")
    assert had[:150] == list(range(150))
    assert had[150:] == [f"mine {number}" for number in range(10)]

    # What may be lost goes over the other channel, both ways.
    server.publish("page", "from the server", ephemeral=True)
    page.wait_for_function("() => state.lost.length === 1")
    page.evaluate(
        "() => unreliable.send(JSON.stringify({type: 'publish', channel: 'page', data: 'own', ephemeral: true}))"
    )
    page.wait_for_function("() => state.lost.length === 2")
    assert page.evaluate("() => state.lost") == ["from the server", "own"]

    # More than one message of a data channel holds comes in parts.
    _say(page, type="subscribe", channel="large:page", ref=3)
    page.wait_for_function("() => state.pushes.some((push) => push.ref === 3)")
    server.publish("large:page", "x" * 300_000)
    page.wait_for_function("() => state.had.length === 161")
    assert page.evaluate("() => state.had.at(-1).length") == 300_000

    # Ended from outside, it is told why.
    page.evaluate("() => fetch(state.location, { method: 'DELETE' })")
    page.wait_for_function("() => state.closed")
    assert page.evaluate("() => state.pushes.at(-1).code") == 1000


def test_chromium_that_goes_away_is_let_go_of(server: Server, page: Page) -> None:
    page.evaluate(OPEN)
    _say(page, type="presence", channel="room", enter=True, ref=2)
    page.wait_for_function("() => state.pushes.some((push) => push.type === 'presence')")
    page.evaluate("() => peer.close()")
    page.wait_for_function(
        """async () => {
          const answer = await fetch("/v1/presence?channel=room");
          return (await answer.json()).members.length === 0;
        }"""
    )
