"""Sound, pictures and screens: what one page sends is counted where it arrives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.room.conftest import Person

Pair = Callable[..., tuple[Person, Person]]

HEARS = """async () => {
    let packets = 0;
    for (const entry of (await peer().pc.getStats()).values()) {
        if (entry.type === "inbound-rtp" && entry.kind === "audio") packets += entry.packetsReceived;
    }
    return packets > 10;
}"""


def share_screen(person: Person) -> None:
    """Share the tab; a browser wants a click for it."""
    person.run(
        """() => {
            const button = document.createElement("button");
            button.textContent = "share";
            button.onclick = () => { window.shared = room.shareScreen({ preferCurrentTab: true }); };
            document.body.replaceChildren(button);
        }"""
    )
    person.page.get_by_text("share").click()
    person.run("() => shared")


def test_camera_and_microphone_arrive_both_ways(pair: Pair) -> None:
    first, second = pair({"audio": True, "video": True}, {"audio": True, "video": True})
    for each in (first, second):
        each.wait("frames.camera > 10")
        each.page.wait_for_function(HEARS)
        assert each.run("() => [...peer().tracks.keys()].map(({ kind }) => kind).sort()") == ["audio", "video"]
    assert first.errors == second.errors == []


def test_only_one_has_a_camera(pair: Pair) -> None:
    first, second = pair({"video": True}, {})
    second.wait("frames.camera > 10")
    assert first.run("() => peer().tracks.size") == 0


def test_tracks_come_and_go(pair: Pair) -> None:
    first, second = pair({"video": True}, {"audio": True, "video": True})
    for each in (first, second):
        each.wait("frames.camera > 2")
    # A screen besides, and away again, twice: its place is used again.
    for _ in range(2):
        share_screen(second)
        first.wait("frames.screen > 2")
        first.wait("[...peer().tracks.values()].some(({ kind }) => kind === 'screen')")
        second.run("() => room.stopScreen()")
        first.wait("![...peer().tracks.values()].some(({ kind }) => kind === 'screen')")
        first.run("() => { frames.screen = 0; }")
    # The user ends it in the browser's own bar.
    share_screen(second)
    first.wait("frames.screen > 2")
    second.run("() => room.local.get('screen').getTracks().forEach((track) => track.dispatchEvent(new Event('ended')))")
    first.wait("![...peer().tracks.values()].some(({ kind }) => kind === 'screen')")
    assert second.run("() => [...room.local.keys()]") == ["camera"]
    # Without a camera, and with it again.
    second.run("() => room.unshare('camera')")
    first.wait("peer().tracks.size === 0")
    first.run("() => { frames.camera = 0; }")
    second.run("async () => room.share('camera', await navigator.mediaDevices.getUserMedia({ video: true }))")
    first.wait("frames.camera > 2")
    assert first.run("() => peer().pc.getTransceivers().length") <= 6
    assert first.errors == second.errors == []


def test_a_page_that_reloads_sends_and_gets_pictures_again(pair: Pair) -> None:
    first, second = pair({"video": True}, {"video": True})
    for each in (first, second):
        each.wait("frames.camera > 2")
    first.reload()
    second.run("() => { frames.camera = 0; }")
    for each in (first, second):
        each.wait("frames.camera > 2")
    assert second.run("() => [...peer().tracks.values()].length") == 1


def test_what_was_captured_ends_with_the_room(pair: Pair) -> None:
    first, second = pair({"video": True}, {"video": True})
    first.wait("frames.camera > 2")
    tracks = "(window.mine = [...room.local.values()].flatMap((stream) => stream.getTracks()))"
    assert second.run(f"() => {tracks}.map(({{ readyState }}) => readyState)") == ["live"]
    second.run("() => room.leave()")
    assert second.run("() => mine.map(({ readyState }) => readyState)") == ["ended"]
    first.wait("room.peers.size === 0")
    # It may come back.
    second.run("() => room.join({ video: true })")
    first.run("() => { frames.camera = 0; }")
    first.wait("frames.camera > 2")


def test_a_camera_that_may_not_be_used_is_an_error_of_join(someone: Callable[..., Person]) -> None:
    person = someone()
    person.page.add_init_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError'))"
    )
    with pytest.raises(Exception, match="NotAllowedError"):
        person.join({"video": True})
    # Without it one may come in still.
    person.run("() => room.join()")
    person.wait("client.client !== undefined")
