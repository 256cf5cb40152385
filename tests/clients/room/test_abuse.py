"""What a member says to harm the others, and what strangers may not say at all."""

from __future__ import annotations

from collections.abc import Callable

from tests.clients.room.conftest import Person

# One who speaks the protocol by hand: to a member, by the names that presence tells everybody.
ENTER = """async ([channel, rtc, url]) => {
    const { Tellwire } = await import("/client/tellwire.js");
    window.client = new Tellwire(url);
    window.there = client.presence(channel);
    if (rtc) await there.enter({ rtc });
    window.other = () => [...there.members.values()].find(({ client: name }) => name !== client.client);
    window.tell = (data, event = "rtc") => client.send(channel, other().client, data, { event });
    window.head = () => ({ from: rtc, to: other().state.rtc });
}"""

HARM = """async (what) => {
    const signals = (...all) => tell({ ...head(), signals: all.map((signal) => ({ g: 1, ...signal })) });
    const offer = (sdp) => ({ description: { type: "offer", sdp } });
    if (what === "not SDP") {
        const sections = "m=audio 9 UDP/TLS/RTP/SAVPF 0\\r\\n".repeat(1000);
        for (const sdp of ["", "v=0", "x".repeat(60000), "v=0\\r\\n" + sections]) await signals(offer(sdp));
        await signals({ description: { type: "pranswer", sdp: "v=0" } }, { description: { type: 1, sdp: 2 } });
    } else if (what === "candidates") {
        for (let at = 0; at < 20; at += 1)
            await signals(...Array.from({ length: 400 }, (_, number) => (
                { candidate: { candidate: `candidate:1 1 udp 1 10.0.0.1 ${number + 1} typ host`, sdpMid: "0" } })));
    } else if (what === "generations") {
        for (let g = 2; g < 60; g += 1) await signals({ g, ...offer("v=0") });
        await signals({ g: 2 ** 60 }, { g: -1 }, { g: "2" }, null, 7, "x");
    } else if (what === "frames") {
        const junk = [[0, "!"], [1, "AAAA"], [9, "AAAA"], [1, 5], "x", null, [1, btoa("\\x02\\xff\\xff\\xff\\xffx")]];
        for (let at = 0; at < 50; at += 1) await tell({ ...head(), frames: junk });
    } else {
        for (const data of [null, 1, "x", [], {}, { to: {} }, { to: head().to }, { ...head(), signals: 1, frames: {} }])
            await tell(data);
        for (let at = 0; at < 500; at += 1) await tell({ from: `somebody ${at}`, to: head().to, signals: [{ g: 1 }] });
    }
}"""


def test_a_member_that_says_nonsense_harms_nobody_else(someone: Callable[..., Person], room: str) -> None:
    villain, first = someone(), someone()
    villain.page.goto(f"http://127.0.0.1:{villain.port}/healthz")
    villain.run(ENTER, [room, "by hand", "/"])
    first.join()
    villain.page.wait_for_function("other()?.state?.rtc")
    for what in ("not SDP", "candidates", "frames", "nonsense", "generations"):
        villain.run(HARM, what)
    # Whoever comes now finds the page as it was.
    second = someone()
    second.join()
    for each in (first, second):
        each.wait("[...room.peers.values()].some(({ path }) => path === 'direct')")
    second.run(
        "() => [...room.peers.values()].find(({ path }) => path === 'direct')"
        " && [...room.peers.values()].forEach((each) => room.dataChannel(each).send('after all'))"
    )
    first.wait_heard("after all")
    assert first.run("() => room.peers.size") == 2


def test_strangers_cannot_signal(someone: Callable[..., Person], room: str) -> None:
    first, stranger = someone(), someone()
    first.join()
    stranger.page.goto(f"http://127.0.0.1:{stranger.port}/healthz")
    # It sees who is there, as it may on an open server, but is not in.
    stranger.run(ENTER, [room, None, "/"])
    stranger.page.wait_for_function("other()?.state?.rtc")
    refused = "tell({ from: 'x', to: other().state.rtc, signals: [{ g: 1 }] }).then(() => 'sent', ({ code }) => code)"
    assert stranger.run(f"() => {refused}") == "forbidden"
    # Nor can a member of another room reach into this one.
    stranger.run("(channel) => client.presence(channel).enter({ rtc: 'x' })", f"{room}-other")
    assert stranger.run(f"() => {refused}") == "forbidden"
    to = first.run("() => client.client")
    across = "([channel, to]) => client.send(channel, to, 1).then(() => 'sent', ({ code }) => code)"
    assert stranger.run(across, [f"{room}-other", to]) == "not_found"
    assert first.run("() => room.peers.size") == 0


def test_a_duplicated_tab_takes_over(someone: Callable[..., Person]) -> None:
    first, second = someone(), someone()
    first.join()
    second.join()
    first.wait_path("direct")
    # The same session, in a tab of the same window.
    session = first.run("() => JSON.stringify(sessionStorage)")
    tab = first.page.context.new_page()
    tab.add_init_script(f"Object.entries({session}).forEach(([key, value]) => sessionStorage.setItem(key, value))")
    copy = Person(tab, first.port, first.channel)
    copy.join()
    copy.wait_path("direct")
    first.wait("errors.some((text) => text.startsWith('closed: another page'))")
    second.wait("room.peers.size === 1 && peer().path === 'direct'")
    copy.say("it is me")
    second.wait_heard("it is me")
