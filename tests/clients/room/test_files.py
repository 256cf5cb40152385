"""Files from page to page: whole after a cut, a reload or a way through the server, bounded whatever a peer says."""

from __future__ import annotations

from collections.abc import Callable

from tests.clients.room.conftest import HOLD, Person

Pair = Callable[..., tuple[Person, Person]]

MIB = 1024 * 1024

SEND = """(size) => {
    const bytes = new Uint8Array(size);
    for (let at = 0; at < size; at += 65536) crypto.getRandomValues(bytes.subarray(at, Math.min(size, at + 65536)));
    window.file = new File([bytes], "large.bin", { type: "application/x-large" });
    window.progress = [];
    window.sending = room.sendFile(peer(), file, { onProgress: ({ bytes }) => progress.push(bytes) });
}"""

ACCEPT = "() => room.on('file', (file) => { window.incoming = file; window.got = file.accept(); })"


def compare(first: Person, second: Person) -> None:
    """Wait until it is there; it has to be what was sent."""
    first.run("() => sending.done")
    assert second.run("async () => hex(await got)") == first.run("() => hex(file)")
    assert second.run("async () => [(await got).size, (await got).type, incoming.name]") == [
        first.run("() => file.size"),
        "application/x-large",
        "large.bin",
    ]
    progress = first.run("() => progress")
    assert progress == sorted(progress)
    assert progress[-1:] == [first.run("() => file.size")] or progress == []


def test_files_arrive_as_they_were(pair: Pair) -> None:
    first, second = pair()
    second.run(ACCEPT)
    first.wait_path("direct")
    for size in (0, 1, 32 * 1024, 3 * MIB + 1):
        first.run(SEND, size)
        compare(first, second)
    assert first.errors == second.errors == []


def test_large_file_goes_on_after_a_cut_in_the_middle(pair: Pair) -> None:
    first, second = pair()
    second.run(ACCEPT)
    first.wait_path("direct")
    first.run(HOLD)
    first.run(SEND, 32 * MIB)
    # What else there is to say is said meanwhile.
    first.say("meanwhile")
    second.wait_heard("meanwhile")
    first.wait("sending.bytes > 3 * 1024 * 1024")
    second.run("() => peer().pc.close()")
    assert first.run("() => sending.bytes < file.size")
    first.run("() => letGo()")
    compare(first, second)
    assert first.run("() => paths").count("direct") >= 1


def test_file_goes_through_the_server_where_there_is_no_other_way(pair: Pair) -> None:
    first, second = pair(direct=False)
    second.run(ACCEPT)
    first.wait_path("channel")
    first.run(SEND, 3 * MIB)
    compare(first, second)


def test_file_is_offered_again_to_a_page_that_reloads(pair: Pair) -> None:
    first, second = pair()
    first.wait_path("direct")
    second.wait_path("direct")
    first.run(SEND, 2 * MIB)
    second.wait("files.length === 1")
    second.reload()
    second.run(ACCEPT)
    second.run("() => files.forEach((file) => { window.incoming = file; window.got = file.accept(); })")
    compare(first, second)


def test_file_is_written_where_the_page_wants_it_and_no_faster_than_it_takes(pair: Pair) -> None:
    first, second = pair()
    second.run(
        """() => {
            window.parts = [];
            window.gate = new Promise((resolve) => { window.open_ = resolve; });
            const sink = new WritableStream({ async write(chunk) { await gate; parts.push(chunk); } });
            room.on("file", (file) => { window.got = file.accept({ sink }); });
        }"""
    )
    first.wait_path("direct")
    first.run(SEND, 24 * MIB)
    # What was let come comes, and no more.
    first.wait("room.peers.size === 1 && peer().files.bufferedAmount === 0 && sending.bytes === 0")
    second.run("() => new Promise((resolve) => setTimeout(resolve, 500))")
    assert first.run("() => sending.bytes") == 0
    second.run("() => open_()")
    first.run("() => sending.done")
    assert second.run("async () => { await got; return hex(new Blob(parts)); }") == first.run("() => hex(file)")


def test_file_may_be_refused_cancelled_and_too_large(pair: Pair) -> None:
    first, second = pair(maxFileBytes=MIB)
    first.wait_path("direct")
    outcome = "sending.done.then(() => 'done', ({ code, message }) => `${code}: ${message}`)"
    second.run("() => { window.off = room.on('file', (file) => file.refuse('not now')); }")
    first.run(SEND, 1000)
    assert first.run(f"() => {outcome}") == "refused: the peer refused it: not now"
    second.run("() => off()")
    first.run(SEND, MIB + 1)
    assert first.run(f"() => {outcome}") == "refused: the peer refused it: too_large"
    second.run("() => { files.length = 0; }")
    first.run(SEND, MIB)
    second.wait("files.length === 1")
    first.run("() => sending.cancel()")
    assert first.run(f"() => {outcome}").startswith("closed")
    second.run("() => { window.got = files[0].accept().catch(({ message }) => message); }")
    assert second.run("() => got") == "the peer cancelled it"


def test_file_ends_with_the_room(pair: Pair) -> None:
    first, second = pair()
    first.wait_path("direct")
    first.run(SEND, MIB)
    second.wait("files.length === 1")
    # It is never taken, so that it cannot be there already when the room is left.
    second.run(
        """() => {
            const sink = new WritableStream({ write: () => new Promise(() => {}) });
            window.got = files[0].accept({ sink }).catch(({ code }) => code);
        }"""
    )
    first.run("() => { window.outcome = sending.done.catch(({ code }) => code); return room.leave(); }")
    assert first.run("() => outcome") == "closed"


LIES = """(lie) => {
    const say = (what) => peer().files.send(JSON.stringify(what));
    const chunk = (number, at, length) => {
        const frame = new Uint8Array(12 + length);
        const view = new DataView(frame.buffer);
        view.setUint32(0, number);
        view.setFloat64(4, at);
        peer().files.send(frame);
    };
    if (lie === "more than announced") {
        say({ t: "offer", id: "x", n: 1, name: "x", size: 100, type: "" });
        setTimeout(() => { chunk(1, 0, 50); chunk(1, 50, 51); }, 300);
    } else if (lie === "another checksum") {
        say({ t: "offer", id: "x", n: 1, name: "x", size: 10, type: "" });
        setTimeout(() => { chunk(1, 0, 10); say({ t: "end", id: "x", sha256: "00" }); }, 300);
    } else if (lie === "too many") {
        for (let n = 1; n <= 500; n += 1) say({ t: "offer", id: `x${n}`, n, name: "x", size: 2 ** 20, type: "" });
        say({ t: "cancel", id: "x1" });
    } else {
        for (const wrong of [null, 1, "x", [], { t: "offer" }, { t: "offer", id: 1 }]) say(wrong);
        say({ t: "accept", id: "y", from: -1 });
        for (const size of [-1, 1.5, 2 ** 60, "1", null])
            say({ t: "offer", id: `s${size}`, n: 1, name: "x", size, type: "" });
        say({ t: "offer", id: "n", n: 0, name: "x", size: 1, type: "" });
        say({ t: "offer", id: "m", n: 1, name: { toString: 1 }, size: 1, type: "" });
        peer().files.send("{");
        chunk(7, NaN, 5);
        peer().files.send(new Uint8Array(3));
    }
}"""


def test_a_peer_that_lies_about_files_gets_nowhere(pair: Pair) -> None:
    first, second = pair()
    first.wait_path("direct")
    second.run("() => room.on('file', (file) => { window.got = file.accept().catch(({ code }) => code); })")
    for lie, code in (("more than announced", "closed"), ("another checksum", "corrupt")):
        second.run("() => { window.got = undefined; }")
        first.run(LIES, lie)
        second.wait("window.got !== undefined")
        assert second.run("() => got") == code
    assert second.run("() => files.length") == 2
    for lie in ("nonsense", "too many"):
        first.run(LIES, lie)
    # Everything else goes on.
    first.say("and now")
    second.wait_heard("and now")
    for each in (first, second):
        each.wait("peer().files.bufferedAmount === 0")
    second.wait("files.some(({ id, isOver }) => id === 'x1' && isOver)")  # all of them have been offered
    assert second.run("() => files.length") == 2 + 16
    assert second.errors == []
