"""The page at ``/``: four transports side by side, cut and resumed, and its books, checked against the log."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import WHILE_AWAY, Complaints
from tests.browser.lanes import LANES, ROWS_MAX, Console
from tests.serving import Server
from tests.wires import Http

CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.fixture
def console(page: Page, server: Server, channel: str) -> Console:
    return Console(page, server, channel)


def test_lanes_show_what_the_page_and_others_publish_at_once(console: Console) -> None:
    console.page.get_by_label("Messages in a burst").fill("50")
    for round_ in range(2):
        console.button("Burst of").click()
        for number in range(20):
            console.server.publish(console.channel, [round_, number])
    console.expect_all(140)
    console.check_rows()
    expect(console.page.locator("#verdict")).to_have_text("All four agree: 140 messages, none lost, none twice.")


def test_text_json_and_lines_are_published_as_written(console: Console) -> None:
    page = console.page
    console.publish("one\ntwo")
    page.get_by_label("each line is a message").check()
    console.publish("three\n\nfour")
    page.get_by_label("JSON").check()
    console.publish('{"a": [1]}\n"five"\nnull')
    console.expect_all(6)
    with Http(console.server) as http:
        answer = http.get(f"/v1/messages?channel={console.channel}&since=earliest").json()
    data = [message["data"] for message in answer["messages"]]
    assert [each["text"] for each in data[:3]] == ["one\ntwo", "three", "four"]
    assert data[3]["a"] == [1]
    assert data[4:] == ["five", None]
    console.publish("{no")
    expect(page.get_by_role("alert")).to_contain_text("this is not JSON")
    for key in LANES:
        expect(console.lane(key).locator("[data-part=median]")).to_have_text(re.compile(r"^[\d.]+ m?s$"))


@pytest.mark.parametrize("key", LANES)
def test_cut_lane_resumes_without_loss(console: Console, key: str) -> None:
    others = tuple(other for other in LANES if other != key)
    console.server.publish(console.channel, "before")
    console.expect_all(1)
    for round_ in range(2):
        before = 1 + 31 * round_
        console.cut(key)
        console.publish("during")
        console.server.publish_all([{"channel": console.channel, "data": number} for number in range(30)])
        console.expect_all(before + 31, *others)
        console.expect(key, received=before, pending=31, lost=0, twice=0)
        expect(console.lane(key).get_by_text("31 waiting")).to_be_visible()
        expect(console.page.locator("#verdict")).to_contain_text("nothing lost")
        console.resume(key)
        console.expect_all(before + 31)
    console.server.publish(console.channel, "after")
    console.expect_all(64)
    console.check_rows()
    expect(console.lane(key).get_by_text("went on after")).to_have_count(2)


def test_all_lanes_cut_at_once_resume_by_themselves(page: Page, server: Server, channel: str) -> None:
    page.clock.install()
    console = Console(page, server, channel)
    console.publish("before")
    console.expect_all(1)
    page.get_by_label("A cut lasts").select_option("60")
    console.button("Cut all four").click()
    expect(page.locator("[data-lane][data-state=cut]")).to_have_count(len(LANES))
    console.server.publish_all([{"channel": console.channel, "data": number} for number in range(100)])
    page.clock.fast_forward(60_000)
    console.expect_live()
    console.expect_all(101)
    console.check_rows()


def test_burst_of_a_thousand_arrives_on_all_lanes(console: Console) -> None:
    console.page.get_by_label("Messages in a burst").fill("1000")
    console.button("Burst of").click()
    console.expect_all(1000)
    console.check_rows()
    for key in LANES:
        assert len(console.rows(key)) == ROWS_MAX


def test_lane_cut_in_the_middle_of_a_burst_loses_nothing(console: Console) -> None:
    page = console.page
    page.get_by_label("Messages in a burst").fill("1000")
    for key in ("sse", "websocket", "longpoll"):
        console.button("Burst of").click()
        console.cut(key)
        console.button("Burst of").click()
        console.resume(key)
    console.expect_all(6000)
    console.check_rows()


def test_gap_is_shown_and_counts_as_told(page: Page, server: Server, channel: str) -> None:
    console = Console(page, server, f"short:{channel}")
    console.publish("before")
    console.expect_all(1)
    page.get_by_label("A cut lasts").select_option("60")
    console.button("Cut all four").click()
    page.get_by_label("Messages in a burst").fill("20")
    console.button("Burst of").click()
    for key in LANES:
        console.expect(key, received=1, pending=20)
    console.button("Reconnect all four").click()
    for key in LANES:
        console.expect(key, received=6, told=15, lost=0, twice=0, disordered=0, pending=0)
        expect(console.lane(key).get_by_text("gap (trimmed)")).to_be_visible()
        expect(console.lane(key).get_by_text("6 in order, 0 lost, 0 twice, 15 missing, as a gap said")).to_be_visible()


def test_lost_log_is_a_gap_on_every_lane(
    page: Page, start_server: Callable[..., Server], channel: str, complaints: Complaints
) -> None:
    complaints.allow(*WHILE_AWAY)
    first = start_server()
    page.clock.install()
    console = Console(page, first, channel)
    first.publish(channel, "old")
    console.expect_all(1)
    first.kill()
    first.wait()
    second = start_server(server={"port": first.port})
    page.clock.fast_forward(5000)  # whatever the lanes wait before they come back is over
    for key in LANES:
        expect(console.lane(key).get_by_text("gap (epoch)")).to_have_count(1, timeout=60_000)
    console.expect_live()
    second.publish(channel, "new")
    for key in LANES:
        console.expect(key, received=2, lost=0, twice=0, told=0, pending=0)


def test_durable_log_goes_on_over_a_killed_server(
    page: Page, start_server: Callable[..., Server], channel: str, tmp_path: Path, complaints: Complaints
) -> None:
    complaints.allow(*WHILE_AWAY)
    broker = f"sqlite:///{tmp_path}/log.db"
    first = start_server(server={"broker": broker})
    page.clock.install()
    console = Console(page, first, channel)
    first.publish_all([{"channel": channel, "data": number} for number in range(10)])
    console.expect_all(10)
    first.kill()
    first.wait()
    console.server = start_server(server={"broker": broker, "port": first.port})
    page.clock.fast_forward(5000)
    console.server.publish_all([{"channel": channel, "data": number} for number in range(10)])
    console.expect_all(20)
    console.check_rows()


def test_another_channel_begins_anew_and_can_begin_at_the_oldest(console: Console) -> None:
    page = console.page
    other = f"{console.channel}-other"
    console.server.publish_all([{"channel": other, "data": number, "event": "order"} for number in range(7)])
    console.server.publish(console.channel, "here")
    console.expect_all(1)
    page.get_by_role("textbox", name="Channel").fill(other)
    page.get_by_label("From").select_option("earliest")
    console.button("Open").click()
    console.channel = other
    console.expect_all(7)
    console.check_rows()
    assert page.url.endswith(f"#{other}")


def test_bad_channel_is_explained(console: Console, complaints: Complaints) -> None:
    complaints.allow("400")
    console.page.get_by_role("textbox", name="Channel").fill("no spaces")
    console.button("Open").click()
    expect(console.page.get_by_role("alert")).to_contain_text("Cannot read no spaces: ")


def test_data_is_shown_as_text(console: Console) -> None:
    nasty = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    console.server.publish(console.channel, {"text": nasty})
    console.server.publish(console.channel, {nasty: nasty})
    console.expect_all(2)
    for key in LANES:
        expect(console.lane(key).get_by_text(nasty, exact=True)).to_be_visible()
        assert console.lane(key).locator("img, script").count() == 0
    assert "owned" not in console.page.title()


def test_policy_allows_nothing_from_elsewhere(console: Console, complaints: Complaints) -> None:
    with Http(console.server) as http:
        policy = http.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    console.page.evaluate("() => document.body.setAttribute('style', 'color: red')")
    assert complaints
    assert all("Content Security Policy" in text for text in complaints)
    complaints.clear()


def test_ledger_finds_what_is_wrong(console: Console) -> None:
    verdicts = console.page.evaluate("""async () => {
        const { Ledger } = await import("/console/ledger.js");
        const verdicts = {};
        const check = (name, lane, steps) => {
            const ledger = new Ledger(2, "k.10");
            steps(ledger);
            verdicts[name] = ledger.verdict(lane);
        };
        const had = (ledger, lane, ...seqs) => {
            for (const seq of seqs) { ledger.received(lane, "k", seq); ledger.reached(lane, `k.${seq}`); }
        };
        check("fine", 0, (l) => { had(l, 0, 11, 13); had(l, 1, 11, 13); });
        check("skipped", 1, (l) => { had(l, 0, 11, 12, 13); had(l, 1, 11, 13); });
        check("skipped by the first to know", 1, (l) => { had(l, 1, 11, 13); had(l, 0, 11, 12, 13); });
        check("acknowledged, never came", 0, (l) => { l.published("k.11"); had(l, 0, 12); });
        check("twice", 0, (l) => had(l, 0, 11, 12, 12));
        check("from before", 0, (l) => had(l, 0, 9));
        check("out of order", 0, (l) => had(l, 0, 12, 11));
        check("behind", 1, (l) => { had(l, 0, 11, 12, 13); had(l, 1, 11); });
        check("told", 1, (l) => {
            had(l, 0, 11, 12, 13);
            l.gap(1, { from: "k.10", to: "k.12", reason: "trimmed", channels: [] });
            had(l, 1, 13);
        });
        check("told of less than is missing", 1, (l) => {
            had(l, 0, 11, 12, 13);
            l.gap(1, { from: "k.10", to: "k.11", reason: "trimmed", channels: [] });
            had(l, 1, 13);
        });
        check("another log", 1, (l) => {
            had(l, 0, 11, 12);
            had(l, 1, 11);
            l.gap(0, { from: "k.12", to: "n.3", reason: "epoch", channels: [] });
            l.gap(1, { from: "k.11", to: "n.3", reason: "epoch", channels: [] });
            l.received(0, "n", 4);
            l.received(1, "n", 4);
        });
        return verdicts;
    }""")
    nothing = {"received": 0, "lost": 0, "twice": 0, "disordered": 0, "told": 0, "pending": 0}
    assert verdicts == {
        name: nothing | found
        for name, found in {
            "fine": {"received": 2},
            "skipped": {"received": 2, "lost": 1},
            "skipped by the first to know": {"received": 2, "lost": 1},
            "acknowledged, never came": {"received": 1, "lost": 1},
            "twice": {"received": 2, "twice": 1},
            "from before": {"twice": 1},
            "out of order": {"received": 1, "disordered": 1},
            "behind": {"received": 1, "pending": 2},
            "told": {"received": 1, "told": 2},
            "told of less than is missing": {"received": 1, "told": 1, "lost": 1},
            "another log": {"received": 2, "told": 1},
        }.items()
    }


def test_bytes_are_counted_on_every_lane(console: Console) -> None:
    console.server.publish(console.channel, "x" * 2000)
    console.expect_all(1)
    for key in LANES:
        lane = console.lane(key)
        expect(lane.locator("[data-part=payload]")).to_have_text("2.0 kB")
        expect(lane.locator("[data-part=overhead]")).to_have_text(re.compile(r"^≈ [\d.]+ k?B$"))
        expect(lane.locator("[data-part=cursor]")).to_have_text(re.compile(r"^[a-z0-9]{8}\.\d+$"))


def test_small_screens_need_no_scrolling_sideways(console: Console) -> None:
    page = console.page
    console.server.publish(console.channel, {"text": "a long text without end " * 20})
    console.server.publish(console.channel, "Wortungetüm" * 50)
    console.cut("sse")
    console.server.publish(console.channel, 1)
    console.expect_all(3, "websocket")
    for width in (360, 412, 768, 1024):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        beyond = page.evaluate("""() => [...document.querySelectorAll("button, input, select, textarea, h2, dd, .row")]
            .filter((each) => each.getBoundingClientRect().right > innerWidth).map((each) => each.outerHTML)""")
        assert beyond == []


def test_everything_has_a_name_and_can_be_reached_by_keyboard(console: Console) -> None:
    page = console.page
    faults = page.evaluate("""() => {
        const named = (each) => each.getAttribute("aria-label") || each.labels?.[0]?.textContent.trim()
            || (each.tagName === "BUTTON" && each.textContent.trim());
        const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
        return {
            nameless: [...document.querySelectorAll("button, input, select, textarea, meter, [role=region]")]
                .filter((each) => !named(each)).map((each) => each.outerHTML),
            twice: ids.filter((id, index) => ids.indexOf(id) !== index),
            dangling: [...document.querySelectorAll("[aria-labelledby]")]
                .filter((each) => !document.getElementById(each.getAttribute("aria-labelledby"))?.textContent),
            pictures: document.querySelectorAll("img:not([alt])").length,
            headings: [...document.querySelectorAll("h1, h2, h3")].map((each) => each.tagName).join(" "),
            language: document.documentElement.lang,
        };
    }""")
    assert faults == {
        "nameless": [],
        "twice": [],
        "dangling": [],
        "pictures": 0,
        "headings": " ".join(["H1", *["H2"] * 15]),
        "language": "en",
    }
    reached = []
    page.get_by_role("textbox", name="Channel").focus()
    for _ in range(60):
        focus = page.evaluate("""() => {
            const each = document.activeElement;
            const shown = each.matches(".kind input") ? each.nextElementSibling : each;
            const style = getComputedStyle(shown);
            const lane = each.closest("[data-lane]")?.dataset.lane ?? "";
            return [lane, each.id || each.name || each.dataset.part || each.tagName, style.outlineStyle];
        }""")
        if focus[1] == "BODY":
            break
        assert focus[2] != "none", focus
        reached.append(f"{focus[0]} {focus[1]}".strip())
        page.keyboard.press("Tab")
    assert {"channel", "start", "body", "kind", "lines", "burst", "stream", "cut-all", "my-name"} <= set(reached)
    assert {f"{key} {part}" for key in LANES for part in ("cut", "scroller")} <= set(reached)


def test_text_has_contrast_in_both_schemes(console: Console) -> None:
    console.publish("hello")
    console.cut("sse")
    console.publish("again")
    console.expect_all(2, "websocket")
    schemes: list[Literal["light", "dark"]] = ["light", "dark"]
    for scheme in schemes:
        console.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # colours change at once
        # WCAG 2.2, 1.4.3: at least 4.5 to 1.
        assert console.page.evaluate(CONTRAST, 4.5) == []
