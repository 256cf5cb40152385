"""The page /doctor, behind nginx as it should be and as it should not, and before servers that are closed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tellwire.auth.making import make_token
from tests.browser.conftest import Complaints
from tests.browser.doctors import Doctor
from tests.nginx import BARE, DEAF, DOCUMENTED, FORBIDDING, Through
from tests.nginx import through as through
from tests.serving import Server

expect.set_options(timeout=20_000)

GOOD = {"poll": "good", "longpoll": "good", "sse": "good", "ndjson": "good", "websocket": "good"}

NETWORK = ("net::ERR_", "WebSocket", "504", "403", "400", "502")
"""What a browser says of connections that are refused or cut on the way."""

KEY = "a secret of the tests, at least thirty-two bytes long"


def test_direct_connection_lets_everything_through(page: Page, server: Server, channel: str) -> None:
    doctor = Doctor(page, server.port, channel)
    doctor.examine()
    assert doctor.states() == GOOD
    expect(doctor.verdict).to_have_text("Everything gets through.")
    assert doctor.best == "websocket"
    assert doctor.changes() == []
    for key in GOOD:
        expect(doctor.check(key)).to_contain_text("messages came")


def test_right_nginx_lets_everything_through(page: Page, server: Server, through: Through, channel: str) -> None:
    doctor = Doctor(page, through(server, DOCUMENTED).port, channel)
    doctor.examine()
    assert doctor.states() == GOOD
    expect(doctor.verdict).to_have_text("Everything gets through.")


def test_nginx_as_it_comes_lets_no_websocket_through(
    page: Page, server: Server, through: Through, channel: str, complaints: Complaints
) -> None:
    complaints.allow(*NETWORK)
    doctor = Doctor(page, through(server, BARE).port, channel)
    doctor.examine()
    assert doctor.states() == {**GOOD, "websocket": "bad"}
    expect(doctor.verdict).to_have_text("WebSockets do not get through; Server-Sent Events do.")
    assert doctor.best == "sse"
    assert doctor.changes() == ["upgrade"]
    expect(page.locator("#changes")).to_contain_text("proxy_set_header Upgrade $http_upgrade;")


def test_proxy_that_forbids_websockets_is_found(
    page: Page, server: Server, through: Through, channel: str, complaints: Complaints
) -> None:
    complaints.allow(*NETWORK)
    doctor = Doctor(page, through(server, FORBIDDING).port, channel)
    doctor.examine()
    assert doctor.states() == {**GOOD, "websocket": "bad"}
    expect(doctor.verdict).to_have_text("WebSockets do not get through; Server-Sent Events do.")


def test_nginx_that_buffers_leaves_polling(
    page: Page, server: Server, through: Through, channel: str, complaints: Complaints
) -> None:
    complaints.allow(*NETWORK)
    location = f"{DEAF}\nproxy_buffering on;\nproxy_read_timeout 12s;"
    doctor = Doctor(page, through(server, location).port, channel)
    doctor.examine()
    assert doctor.states() == {**GOOD, "sse": "bad", "ndjson": "bad", "websocket": "bad"}
    expect(doctor.verdict).to_have_text("Only polling gets through.")
    assert doctor.best == "longpoll"
    assert doctor.changes() == ["upgrade", "buffering"]
    assert "proxy_buffering off;" in doctor.report()


def test_nginx_that_buffers_streams_only_keeps_websockets(
    page: Page, server: Server, through: Through, channel: str, complaints: Complaints
) -> None:
    complaints.allow(*NETWORK)
    upgrading = f"""{DEAF} }}
    location /v1/ws {{
      proxy_pass http://127.0.0.1:{server.port};
      proxy_set_header Host $http_host;
      {DOCUMENTED}"""
    doctor = Doctor(page, through(server, upgrading).port, channel)
    doctor.examine()
    assert doctor.states() == {**GOOD, "sse": "bad", "ndjson": "bad"}
    expect(doctor.verdict).to_have_text("WebSockets get through; streams are held back on the way.")
    assert doctor.changes() == ["buffering"]


def test_short_timeouts_are_found_by_watching(
    page: Page, server: Server, through: Through, channel: str, complaints: Complaints
) -> None:
    complaints.allow(*NETWORK)
    doctor = Doctor(page, through(server, f"{DOCUMENTED}\nproxy_read_timeout 2s;").port, channel)
    doctor.examine()
    expect(doctor.verdict).to_have_text("Everything gets through.")
    doctor.watch(300)  # it ends when all are cut
    for key in ("websocket", "sse", "longpoll"):
        expect(doctor.check(f"idle-{key}")).to_have_attribute("data-state", "bad")
        expect(doctor.check(f"idle-{key}")).to_contain_text("of silence")
    expect(doctor.verdict).to_have_text("Everything gets through, but silence is cut short.")
    assert doctor.changes() == ["timeouts"]
    assert "idle SSE             cut after" in doctor.report()


def test_patient_way_is_found_patient(page: Page, server: Server, through: Through, channel: str) -> None:
    doctor = Doctor(page, through(server, DOCUMENTED).port, channel)
    doctor.examine()
    doctor.watch(3)
    for key in ("websocket", "sse", "longpoll"):
        expect(doctor.check(f"idle-{key}")).to_have_attribute("data-state", "good")
    expect(doctor.verdict).to_have_text("Everything gets through.")
    assert doctor.changes() == []


def test_server_that_goes_away_is_told(
    page: Page, start_server: Callable[..., Server], channel: str, complaints: Complaints
) -> None:
    complaints.allow(*NETWORK)
    server = start_server()
    doctor = Doctor(page, server.port, channel)
    server.kill()
    server.wait()
    doctor.examine()
    expect(doctor.verdict).to_have_text("The server cannot be reached from here.")
    assert doctor.changes() == ["reach"]
    assert "Reach the server" in doctor.report()


@pytest.fixture
def closed(start_server: Callable[..., Server]) -> Server:
    return start_server(auth={"token_key": KEY})


def use(page: Page, channel: str, **can: list[str]) -> str:
    """Put in a token; return it."""
    token = make_token({"sub": "ann", "can": {name: [channel] for name in can}}, KEY.encode(), 600)
    page.get_by_label("Token (JWT)").fill(token)
    page.get_by_role("button", name="Use it").click()
    return token


def test_closed_server_asks_for_a_token_and_the_report_holds_none(
    page: Page, closed: Server, channel: str, complaints: Complaints
) -> None:
    complaints.allow("401")
    doctor = Doctor(page, closed.port, channel)
    doctor.begin()
    expect(page.locator("#token-why")).to_have_text("This server wants a token.")
    token = use(page, channel, subscribe=[], publish=[])
    doctor.expect_done()
    assert doctor.states() == GOOD
    report = doctor.report()
    assert "verdict   Everything gets through." in report
    for secret in (token, token.split(".")[2], channel, "token="):
        assert secret not in report
    session = page.evaluate("() => sessionStorage.getItem('tellwire.session')")
    assert session
    assert session not in report
    expect(page.locator("#sign-in")).to_be_hidden()


def test_token_that_may_only_read_sees_what_opens(
    page: Page, closed: Server, channel: str, complaints: Complaints
) -> None:
    complaints.allow("401", "403")
    doctor = Doctor(page, closed.port, channel)
    doctor.begin()
    use(page, channel, subscribe=[])
    doctor.expect_done()
    assert doctor.states() == GOOD
    expect(doctor.check("sse")).to_contain_text("whether messages are held back is not known")


def test_token_that_may_not_read_the_channel_is_told_why(
    page: Page, closed: Server, channel: str, complaints: Complaints
) -> None:
    complaints.allow("401", "403")
    doctor = Doctor(page, closed.port, channel)
    doctor.begin()
    use(page, "other", subscribe=[])
    expect(page.locator("#complaint")).to_contain_text("Cannot begin: ")
    expect(page.locator("#report-panel")).to_be_hidden()
