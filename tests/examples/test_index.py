"""Every example is listed, short, and started by the one command that it names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.application.hosting import Host
from tests.examples.conftest import EXAMPLES, check_layout
from tests.serving import ROOT, WATCHDOG_S

FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and not path.name.startswith("_"))
SOURCES = sorted(path for kind in ("py", "js", "sh") for path in EXAMPLES.rglob(f"*.{kind}"))
LINES_MAX = 145

APPLICATIONS = {
    "pages.py": ["chat", "notifications", "ticker", "whiteboard", "collab", "call", "drop", "game", "camera", ""],
    "assistant/app.py": ["assistant"],
    "upload/app.py": ["upload"],
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_example_is_listed_and_tested(folder: str) -> None:
    readme, page = (EXAMPLES / "README.md").read_text(), (ROOT / "docs" / "examples.md").read_text()
    assert f"({folder}" in readme
    assert f"(../examples/{folder}" in page
    if folder != "embedding":
        assert (ROOT / "tests" / "examples" / f"test_{folder}.py").exists()


def test_links_of_the_list_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text()):
        assert (EXAMPLES / target).exists(), target


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_source_is_short_and_makes_no_html_of_data(source: Path) -> None:
    text = source.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_what_a_header_says_to_run_or_open_is_there(source: Path) -> None:
    head = "\n".join(source.read_text().splitlines()[:12])
    for named in re.findall(r"examples/[\w./-]+\.(?:py|sh)", head):
        assert (ROOT / named).exists(), named
    for port, page in re.findall(r"http://127\.0\.0\.1:(\d+)/(\w+)/", head):
        application = next(name for name, pages in APPLICATIONS.items() if page in pages)
        assert f'"PORT", "{port}"' in (EXAMPLES / application).read_text()


@pytest.mark.parametrize("application", APPLICATIONS)
def test_application_is_started_by_its_command(application: str) -> None:
    head = (EXAMPLES / application).read_text().splitlines()[2]
    *_, program, file = shlex.split(head)
    assert (program, file) == (".venv/bin/python", f"examples/{application}")
    process = subprocess.Popen(
        [sys.executable, file], cwd=ROOT, env=os.environ | {"PORT": "0"}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        said = ""
        while (found := re.search(r"running on (http://127\.0\.0\.1:\d+)", said)) is None:
            line = process.stderr.readline()
            assert line, said
            said += line
        for page in APPLICATIONS[application]:
            answer = httpx.get(f"{found[1]}/{page}/" if page else found[1], timeout=WATCHDOG_S)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
            # A page from elsewhere, which had its name lead here, gets nothing.
            stranger = httpx.get(f"{found[1]}/{page}", headers={"Host": "evil.example"}, timeout=WATCHDOG_S)
            assert stranger.status_code == 400
    finally:
        process.terminate()
        process.wait(WATCHDOG_S)
        process.stderr.close()


def test_list_of_the_pages_leads_to_each(pages: Host, phone: Page) -> None:
    phone.goto(pages.url)
    check_layout(phone)
    for page in filter(None, APPLICATIONS["pages.py"]):
        assert phone.locator(f"a[href='{page}/']").count() == 1
    phone.get_by_role("link", name="Chat").click()
    expect(phone.locator("h1")).to_have_text("Lobby")
