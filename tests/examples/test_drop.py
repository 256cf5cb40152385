"""Files that are dropped: asked for first, then whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.application.hosting import Host
from tests.examples.conftest import check_layout
from tests.examples.media import browser  # noqa: F401  # a fixture


def test_a_file_arrives_whole_when_it_is_wanted(pages: Host, open_page: Callable[[], Page], tmp_path: Path) -> None:
    file = tmp_path / "<i>photo.bin"
    file.write_bytes(hashlib.sha256(b"seed").digest() * 100_000)
    ann, bob = open_page(), open_page()
    for page in (ann, bob):
        page.goto(f"{pages.url}/drop/")
        expect(page.locator("#state")).to_have_text("connected")
    for page in (ann, bob):
        expect(page.locator("#people li")).to_contain_text("directly")
    ann.get_by_label("Drop files here").set_input_files(file)
    expect(ann.locator("#files li")).to_contain_text("waits to be accepted")
    expect(bob.locator("#files strong")).to_contain_text("<i>photo.bin from")
    check_layout(bob)
    bob.get_by_role("button", name="Accept").click()
    expect(ann.locator("#files li")).to_contain_text("has arrived, whole")
    with bob.expect_download() as download:
        bob.get_by_role("link", name="save it").click()
    assert Path(download.value.path()).read_bytes() == file.read_bytes()
    # One that is not wanted is told so.
    ann.get_by_label("Drop files here").set_input_files(file)
    bob.get_by_role("button", name="Refuse").click()
    expect(ann.locator("#files li").first).to_contain_text("was refused")


def test_nobody_to_send_to_is_said(pages: Host, open_page: Callable[[], Page], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    page = open_page()
    page.goto(f"{pages.url}/drop/")
    expect(page.locator("#state")).to_have_text("connected")
    page.get_by_label("Drop files here").set_input_files(tmp_path / "a.txt")
    expect(page.get_by_role("alert")).to_contain_text("Nobody is here to send to")
