"""Prices: the newest of each share arrives, also where a reader cannot take them all."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import httpx
from playwright.sync_api import Page, expect

from tellwire.protocol.sse import EventParser
from tests.application.hosting import Host
from tests.examples.conftest import EXAMPLES, check_layout
from tests.serving import WATCHDOG_S

SHARES = 8


def run_publisher(host: Host, *options: str) -> None:
    command = [sys.executable, str(EXAMPLES / "ticker" / "publish.py"), f"{host.url}/realtime", *options]
    subprocess.run(command, check=True, timeout=WATCHDOG_S)


def last_prices(host: Host) -> dict[str, float]:
    page = httpx.get(f"{host.url}/realtime/v1/messages?channel=stocks:all&last={SHARES}", timeout=WATCHDOG_S).json()
    return {message["key"]: message["data"]["price"] for message in page["messages"]}


def test_page_ends_with_the_newest_price_of_each(pages: Host, page: Page) -> None:
    page.goto(f"{pages.url}/ticker/")
    expect(page.locator("#state")).to_have_text("connected")
    expect(page.locator("#empty")).to_be_visible()
    page.get_by_label("Be slow").check()
    run_publisher(pages, "--rate", "0", "--count", "2400")
    newest = last_prices(pages)
    assert len(newest) == SHARES
    for share, price in newest.items():
        row = page.locator("#prices tr", has=page.get_by_role("rowheader", name=share, exact=True))
        expect(row.locator("td").first).to_have_text(f"{price:,.2f}")
    expect(page.locator("#empty")).to_be_hidden()
    received, drawn = (int(page.locator(each).inner_text().replace(",", "")) for each in ("#received", "#drawn"))
    assert drawn < received <= 2400
    # Who comes later sees the prices at once.
    page.reload()
    expect(page.locator("#prices tr")).to_have_count(SHARES)


def test_reader_that_lags_gets_the_newest_of_each(pages: Host) -> None:
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.settimeout(WATCHDOG_S)
        reader.connect(("127.0.0.1", pages.port))
        reader.sendall(b"GET /realtime/v1/events?channel=stocks:all&envelope=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        file = reader.makefile("rb")
        assert b" 200 " in file.readline()
        # More than the kernel keeps for a socket; nothing is read meanwhile.
        count = 0
        for _ in range(60):
            batch = [
                {"channel": "stocks:all", "key": f"S{n % SHARES}", "data": {"number": count + n, "pad": "x" * 1000}}
                for n in range(200)
            ]
            assert httpx.post(f"{pages.url}/realtime/v1/messages", json=batch, timeout=WATCHDOG_S).status_code == 200
            count += len(batch)
        parser = EventParser()
        newest: dict[str, int] = {}
        received = 0
        while sorted(newest.values()) != list(range(count - SHARES, count)):
            line = file.readline()
            assert line, "the stream ended"
            for event in parser.feed(line):
                if event.data and event.event == "message":
                    message = json.loads(event.data)
                    assert message["data"]["number"] > newest.get(message["key"], -1)
                    newest[message["key"]] = message["data"]["number"]
                    received += 1
        assert received < count
        file.close()


def test_on_a_phone_everything_fits(pages: Host, phone: Page) -> None:
    run_publisher(pages, "--rate", "0", "--count", "80")
    phone.goto(f"{pages.url}/ticker/")
    expect(phone.locator("#prices tr")).to_have_count(SHARES)
    check_layout(phone)
