"""How far an upload is, for who sends it and for who watches; and what is refused."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.application.hosting import Host
from tests.examples.conftest import EXAMPLES, check_layout
from tests.serving import WATCHDOG_S

FILE = FilePayload(name="<i>big</i>.bin", mimeType="application/octet-stream", buffer=bytes(range(256)) * 40_000)
DIGEST = hashlib.sha256(FILE["buffer"]).hexdigest()


@pytest.fixture
def upload() -> Iterator[Host]:
    with Host(EXAMPLES / "upload" / "app.py") as host:
        yield host
        assert host.stop() in (0, -15)


def open_upload(page: Page, host: Host, name: str = "") -> None:
    page.goto(f"{host.url}/upload/{name}")
    expect(page.locator("#state")).to_have_text("connected")


def begin(host: Host, name: str) -> socket.socket:
    """Begin an upload of 100 kB, of which nothing is sent yet."""
    sender = socket.create_connection(("127.0.0.1", host.port), timeout=WATCHDOG_S)
    head = f"PUT /files/{name}?name=half HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
    sender.sendall(head.encode())
    return sender


def test_file_arrives_and_its_progress_is_seen(upload: Host, open_page: Callable[[], Page]) -> None:
    page, watcher = open_page(), open_page()
    open_upload(page, upload)
    page.get_by_label("A file").set_input_files(FILE)
    for each in (page, watcher):
        if each is watcher:
            # Who comes when it is over sees how it ended.
            open_upload(watcher, upload, f"#{page.url.partition('#')[2]}")
        expect(each.locator("#result")).to_have_text("complete")
        expect(each.locator("#name")).to_have_text(FILE["name"])
        expect(each.locator("#digest")).to_contain_text(DIGEST)
        assert each.locator("#bar").evaluate("(bar) => bar.value") == 1


def test_steps_are_seen_by_who_watches_and_a_sender_who_goes_is_missed(upload: Host, page: Page) -> None:
    open_upload(page, upload, "#mine")
    expect(page.locator("#result")).to_have_text("waiting")
    sender = begin(upload, "mine")
    expect(page.locator("#result")).to_have_text("on its way")  # and who has been told that is told the steps, too
    sender.sendall(b"x" * 50_000)
    page.wait_for_function("() => document.getElementById('bar').value === 0.5")
    sender.sendall(b"x" * 25_000)
    page.wait_for_function("() => document.getElementById('bar').value === 0.75")
    sender.close()
    expect(page.locator("#result")).to_have_text("broken off")


def test_only_the_program_publishes_and_only_uploads_are_read(upload: Host) -> None:
    url = f"{upload.url}/realtime/v1/messages"
    assert httpx.post(url, json={"channel": "upload:mine", "data": 1}, timeout=WATCHDOG_S).status_code == 403
    assert httpx.get(url, params={"channel": "secrets"}, timeout=WATCHDOG_S).status_code == 403
    assert httpx.get(url, params={"channel": "upload:mine"}, timeout=WATCHDOG_S).status_code == 200
    for path, length, status in (("no..name", "1", 400), ("large", str(2**40), 413)):
        with socket.create_connection(("127.0.0.1", upload.port), timeout=WATCHDOG_S) as raw:
            raw.sendall(f"PUT /files/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode())
            assert f" {status} ".encode() in raw.makefile("rb").readline()


def test_on_a_phone_everything_fits(upload: Host, phone: Page) -> None:
    open_upload(phone, upload)
    phone.get_by_label("A file").set_input_files(FILE)
    expect(phone.locator("#result")).to_have_text("complete")
    check_layout(phone)
