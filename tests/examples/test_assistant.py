"""An answer that comes word by word, also over a connection that is cut again and again."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.application.hosting import Host
from tests.browser.conftest import WHILE_AWAY, Complaints
from tests.clients.js.proxy import Proxy
from tests.examples.conftest import EXAMPLES, check_layout
from tests.serving import WATCHDOG_S

QUESTION = "<b>Why</b>?"
FIRST, LAST = (
    "You asked: “<b>Why</b>?” I am a few lines of Python",
    "I went on writing, as nothing here waits for you. ",
)


@pytest.fixture
def assistant(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("TOKEN_S", "0.02")
    with Host(EXAMPLES / "assistant" / "app.py") as host:
        yield host
        assert host.stop() in (0, -15)
        for said in host.log.split("Exception in ASGI application"):
            # FastAPI takes it for an error where a reader goes in the moment in which it hands an event on.
            is_fastapis = "_keepalive_inserter" in said and said.rstrip(" |+-\n").endswith("anyio.BrokenResourceError")
            assert "Traceback" not in said or is_fastapis, said


def ask(page: Page, url: str) -> None:
    page.goto(f"{url}/assistant/")
    page.get_by_label("Your question").fill(QUESTION)
    page.get_by_role("button", name="Ask").click()


def in_the_log(host: Host, answer: str) -> str:
    """Return the whole answer as another reader gets it."""
    words = []
    with httpx.stream("GET", f"{host.url}/answers/{answer}", timeout=60) as response:
        event = ""
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            event = value if name == "event" else event
            if name == "data" and event == "token":
                words.append(httpx.Response(200, text=value).json())
    return "".join(words)


def check_whole(page: Page, host: Host) -> None:
    expect(page.locator("#state")).to_have_text("complete")
    text = page.locator("#answer").text_content() or ""
    assert text.startswith(FIRST)
    assert text.endswith(LAST)
    assert text == in_the_log(host, page.url.partition("#")[2])
    expect(page.locator("#question")).to_have_text(QUESTION)
    assert page.locator("#spoken").text_content() == text


def test_answer_is_whole_after_cuts(assistant: Host, page: Page, complaints: Complaints) -> None:
    complaints.allow(*WHILE_AWAY)
    tries: list[str] = []
    with Proxy(assistant.port) as proxy:
        page.on("request", lambda request: tries.append(request.url))
        while sum("/answers/" in url for url in tries) < 2:  # until a cut has come in the middle
            tries.clear()
            ask(page, f"http://127.0.0.1:{proxy.port}")
            for word in ("few lines", "Each of these", "no word is missing"):
                expect(page.locator("#answer")).to_contain_text(word)
                proxy.cut()
            check_whole(page, assistant)


def test_answer_goes_on_after_a_reload_and_while_nobody_reads(assistant: Host, page: Page) -> None:
    ask(page, assistant.url)
    expect(page.locator("#answer")).to_contain_text("few lines")
    page.reload()
    expect(page.locator("#answer")).to_contain_text("few lines")
    answer = page.url
    page.goto("about:blank")
    page.goto(answer)
    check_whole(page, assistant)


def test_answer_that_nobody_asked_for_is_said_to_be_unknown(
    assistant: Host, page: Page, complaints: Complaints
) -> None:
    complaints.allow("404")
    page.goto(f"{assistant.url}/assistant/#madeup")
    expect(page.locator("#state")).to_have_text("the answer cannot be read")
    assert httpx.get(f"{assistant.url}/answers/no..channel", timeout=WATCHDOG_S).status_code == 404


def test_on_a_phone_everything_fits(assistant: Host, phone: Page) -> None:
    ask(phone, assistant.url)
    check_whole(phone, assistant)
    check_layout(phone)
