"""The page /advise: six questions, and at once what they come to."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tellwire.advise import SHIPPED, advise, figures_of, load_rules
from tellwire.advise.rules import Start
from tests.serving import Server
from tests.wires import Http

CONTRAST = Path(__file__).with_name("contrast.js").read_text()

RULES = load_rules()


def open_advise(page: Page, server: Server, answers: dict[str, str] | None = None) -> None:
    words = "&".join(f"{key}={value}" for key, value in (answers or {}).items())
    page.goto(f"http://127.0.0.1:{server.port}/advise#{words}")
    expect(page.locator("fieldset")).to_have_count(len(RULES.questions))


def choose(page: Page, answers: dict[str, str]) -> None:
    for question in RULES.questions:
        option = next(each for each in question.options if each.value == answers[question.key])
        page.get_by_role("group", name=question.ask).get_by_role("radio", name=option.say).check()


def expect_advice(page: Page, server: Server, answers: dict[str, str]) -> None:
    advice = advise(RULES, answers, f"http://127.0.0.1:{server.port}")
    expect(page.locator("#take-title")).to_have_text(advice.transport.name)
    expect(page.locator("#next-title")).to_have_text(advice.runner_up.name)
    assert page.locator("#why li").all_text_contents() == advice.transport.why
    assert page.locator("#remarks li").all_text_contents() == advice.transport.remarks
    assert page.locator("#next-remarks li").all_text_contents() == advice.runner_up.remarks
    assert page.locator("#others dd").all_text_contents() == [*advice.against.values()]
    assert page.locator("#starts pre").all_text_contents() == [start["code"] for start in advice.starts]


def test_answers_are_chosen_shown_and_kept_in_the_address(page: Page, server: Server) -> None:
    open_advise(page, server)
    for values in (
        ("both", "instant", "yes", "browsers", "open", "few"),
        ("server", "late", "no", "both", "unknown", "many"),
        ("both", "soon", "no", "services", "strict", "some"),
    ):
        answers = dict(zip((question.key for question in RULES.questions), values, strict=True))
        choose(page, answers)
        expect_advice(page, server, answers)
    page.reload()
    expect_advice(page, server, answers)


def test_address_with_nonsense_falls_back_to_what_is_usual(page: Page, server: Server) -> None:
    open_advise(page, server, {"speaks": "<b>both", "fresh": "late", "nonsense": "1"})
    expect(page.locator("#take-title")).to_have_text("Short polling")
    assert page.locator("main b").count() == 0


def test_rules_on_the_page_are_those_of_the_command(server: Server) -> None:
    with Http(server) as http:
        answer = http.get("/advise/rules.json")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == json.loads((Path(load_rules.__code__.co_filename).with_name("rules.json")).read_text())
        policy = http.get("/advise").headers["content-security-policy"]
        assert (
            policy
            == http.get("/").headers["content-security-policy"]
            == http.get("/doctor").headers["content-security-policy"]
        )


def test_lines_are_copied_as_they_are(context: BrowserContext, page: Page, server: Server) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_advise(page, server)
    page.get_by_role("button", name="Copy: In a page").click()
    expect(page.get_by_role("button", name="Copy: In a page")).to_have_text("Copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == page.locator("#starts pre").first.text_content()


@pytest.mark.parametrize("path", ["advise", "doctor"])
def test_pages_are_readable_small_and_large_light_and_dark(page: Page, server: Server, path: str, channel: str) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/{path}")
    if path == "doctor":
        page.get_by_label("Channel to publish to").fill(channel)
        page.get_by_role("button", name="Examine").click()
        expect(page.locator("#report-panel")).to_be_visible()
        page.evaluate("() => { document.querySelector('#verdict-panel').dataset.level = 'bad'; }")
    else:
        expect(page.locator("#starts pre").first).to_be_visible()
    schemes: list[Literal["light", "dark"]] = ["light", "dark"]
    for scheme, width in itertools.product(schemes, (360, 768, 1280)):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # colours change at once
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        beyond = page.evaluate("""() => [...document.querySelectorAll("button, input, textarea, h2, dd, li, pre")]
            .filter((each) => each.getBoundingClientRect().right > innerWidth).map((each) => each.outerHTML)""")
        assert beyond == []
        assert page.evaluate(f"({CONTRAST})(4.5)") == []


@pytest.mark.parametrize("path", ["advise", "doctor"])
def test_pages_have_names_for_everything(page: Page, server: Server, path: str) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/{path}")
    if path == "advise":
        expect(page.locator("#starts pre").first).to_be_visible()
    faults = page.evaluate("""() => {
        const named = (each) => each.getAttribute("aria-label") || each.labels?.[0]?.textContent.trim()
            || document.getElementById(each.getAttribute("aria-labelledby"))?.textContent
            || (each.tagName === "BUTTON" && each.textContent.trim());
        const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
        return {
            nameless: [...document.querySelectorAll("button, input, select, textarea, progress, [role=region], nav")]
                .filter((each) => !named(each)).map((each) => each.outerHTML),
            twice: ids.filter((id, index) => ids.indexOf(id) !== index),
            groups: [...document.querySelectorAll("fieldset")].filter((each) => !each.querySelector("legend")).length,
            pictures: document.querySelectorAll("img:not([alt])").length,
            language: document.documentElement.lang,
            titles: document.querySelectorAll("h1").length,
        };
    }""")
    assert faults == {"nameless": [], "twice": [], "groups": 0, "pictures": 0, "language": "en", "titles": 1}


PROGRAMS = [
    (transport, start)
    for start in RULES.starts
    if start.language == "js"
    for transport in start.transports
    if transport != "webrtc"
]


def begin(page: Page, server: Server, transport: str, start: Start, channel: str) -> list[str]:
    """Run the lines to begin with in a page of the server's origin; return what they will have printed."""
    url = f"http://127.0.0.1:{server.port}"
    printed: list[str] = []
    page.on("console", lambda line: printed.append(line.text))
    page.goto(f"{url}/healthz")  # a page without a policy of its own
    text = start.text(transport, url).replace("30_000", "100")
    text = text.replace("news", channel).replace("room:1", channel)
    page.add_script_tag(content=f"{text}\nwindow.hasBegun = true;", type="module")
    page.wait_for_function("() => window.hasBegun")
    return printed


@pytest.mark.parametrize(
    ("transport", "start"), PROGRAMS, ids=[f"{transport}-{'-'.join(start.when)}" for transport, start in PROGRAMS]
)
def test_lines_to_begin_with_print_what_is_published(
    page: Page, server: Server, transport: str, start: Start, channel: str
) -> None:
    printed = begin(page, server, transport, start, channel)
    # It reads from now on, and now is when it has connected: say it until it has heard it.
    while not any("hello there" in line for line in printed):
        server.publish(channel, "hello there")
        page.evaluate("() => new Promise((resolve) => setTimeout(resolve, 100))")


def test_lines_to_begin_with_connect_pages_with_each_other(
    open_page: Callable[[], Page], server: Server, channel: str
) -> None:
    pages = [open_page(), open_page(), open_page()]
    talk = next(start for start in RULES.starts if start.transports == ["webrtc"])
    everything = [begin(page, server, "webrtc", talk, channel) for page in pages]
    while not all(printed.count("hello") >= 2 for printed in everything):  # again where a line was lost
        pages[0].evaluate("() => new Promise((resolve) => setTimeout(resolve, 100))")


def test_pages_link_to_each_other(page: Page, server: Server) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/")
    for name, path in (("Advise", "advise"), ("Doctor", "doctor"), ("Console", "")):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        expect(page).to_have_url(re.compile(rf"^http://127\.0\.0\.1:{server.port}/{path}(#.*)?$"))


def test_pages_are_there_where_the_page_is(start_server: Callable[..., Server]) -> None:
    with Http(start_server()) as http:
        assert [http.get(path).status for path in ("/advise", "/doctor", "/advise/other.json")] == [200, 200, 404]


def test_measured_figures_are_those_that_are_shipped(page: Page, server: Server) -> None:
    open_advise(page, server)
    shipped = figures_of(SHIPPED)
    assert shipped is not None
    expect(page.locator("#measured-about")).to_contain_text(str(shipped.document["machine"]["cpu"]))
    rows = page.locator("#measured-rows tr")
    measured = [
        each
        for each in RULES.transports
        if shipped.document["transports"].get(each.key, {}).get("status") == "measured"
    ]
    expect(rows).to_have_count(len(measured))
    for index, transport in enumerate(measured):
        cells = rows.nth(index).locator("th, td").all_text_contents()
        assert cells == [transport.name, *(text for _, text in shipped.lines(RULES, transport.key))]
    assert page.locator("#measured-rows .is-advised th").all_text_contents() == ["Server-Sent Events", "Long polling"]
