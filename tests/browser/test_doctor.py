"""The page /doctor, behind nginx as it should be and as it should not, and before servers that are closed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tellwire.auth.making import make_token
from tests.application.hosting import Host
from tests.browser.conftest import Complaints
from tests.browser.doctors import Doctor
from tests.nginx import BARE, DEAF, DOCUMENTED, FORBIDDING, Through
from tests.nginx import through as through
from tests.serving import ROOT, Server
from tests.turn import turn_server

expect.set_options(timeout=20_000)

GOOD = {"poll": "good", "longpoll": "good", "sse": "good", "ndjson": "good", "websocket": "good"}

NETWORK = ("net::ERR_", "WebSocket", "504", "403", "400", "502")
"""What a browser says of connections that are refused or cut on the way."""

KEY = "a secret of the tests, at least thirty-two bytes long"


def test_direct_connection_lets_everything_through(
    context: BrowserContext, page: Page, server: Server, channel: str
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    doctor = Doctor(page, server.port, channel)
    doctor.examine()
    assert doctor.states() == GOOD
    expect(doctor.verdict).to_have_text("Everything gets through.")
    assert doctor.best == "websocket"
    assert doctor.changes() == []
    for key in GOOD:
        expect(doctor.check(key)).to_contain_text("messages came")
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("() => navigator.clipboard.readText()") == doctor.report()


def test_doctor_under_a_prefix_works_as_at_the_root(page: Page, channel: str, complaints: Complaints) -> None:
    complaints.allow("401", "403")  # the console looks at another channel than the token allows
    with Host(Path(__file__).with_name("mounted_app.py")) as host:
        port = int(host.url.rpartition(":")[2])
        doctor = Doctor(page, port, channel, "inside/realtime/doctor")
        doctor.begin()
        expect(page.locator("#token-why")).to_have_text("This server wants a token.")
        use(page, channel, subscribe=[], publish=[])
        doctor.expect_done()
        assert doctor.states() == GOOD
        page.get_by_role("link", name="Advise").click()
        expect(page.locator("#take-title")).to_have_text("Server-Sent Events")
        expect(page.locator("#starts pre")).to_contain_text(f"{host.url}/inside/realtime/v1/events")
        page.get_by_role("link", name="Console").click()
        expect(page).to_have_url(re.compile(f"^{re.escape(host.url)}/inside/realtime/(#.*)?$"))
        page.goto("about:blank")  # the console would notice that its server goes


def test_right_nginx_lets_everything_through_and_bears_silence(
    page: Page, server: Server, through: Through, channel: str
) -> None:
    doctor = Doctor(page, through(server, DOCUMENTED).port, channel)
    doctor.examine()
    assert doctor.states() == GOOD
    expect(doctor.verdict).to_have_text("Everything gets through.")
    doctor.watch(3)
    for key in ("websocket", "sse", "longpoll"):
        expect(doctor.check(f"idle-{key}")).to_have_attribute("data-state", "good")
    expect(doctor.verdict).to_have_text("Everything gets through.")
    assert doctor.changes() == []


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


def test_data_channel_and_turn_are_examined_where_the_server_has_them(
    page: Page, start_server: Callable[..., Server], tmp_path: Path, channel: str
) -> None:
    with turn_server(tmp_path) as turn:
        server = start_server(ice=asdict(turn.settings("udp", "tcp")), rtc={"rtc": True})
        doctor = Doctor(page, server.port, channel)
        doctor.examine()
        assert doctor.states() == GOOD
        expect(doctor.check("webrtc")).to_have_attribute("data-state", "good")
        expect(doctor.check("ice")).to_have_attribute("data-state", "good")
        expect(doctor.check("ice")).to_contain_text("relay over udp")
        expect(doctor.verdict).to_have_text("Everything gets through.")
        expect(page.locator("#verdict-words")).to_contain_text("UDP gets out.")
        expect(page.locator("#verdict-words")).to_contain_text("TURN relays.")
        report = doctor.report()
        assert "two connections through the relay" in report
        assert str(turn.port) not in report  # nor candidates' addresses, nor credentials
        assert "credential" not in report


def test_turn_that_does_not_answer_is_told(
    page: Page, start_server: Callable[..., Server], channel: str, complaints: Complaints
) -> None:
    complaints.allow("STUN", "TURN")
    ice = {"ice_turn_urls": ["turn:127.0.0.1:9?transport=tcp"], "ice_turn_secret": "a secret that nobody else knows"}
    doctor = Doctor(page, start_server(ice=ice).port, channel)
    doctor.examine()
    expect(doctor.check("ice")).to_have_attribute("data-state", "fair")
    expect(doctor.verdict).to_have_text("Everything but WebRTC gets through.")
    assert doctor.changes() == ["turn"]


def test_flow_is_judged_by_when_messages_came(page: Page, server: Server) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/doctor")
    flows = page.evaluate("""async () => {
        const { flowOf, median } = await import("/console/doctor/arrivals.js");
        const sent = (...came) => came.map((came_ms, index) => ({ acked_ms: 200 * index, came_ms }));
        return {
            nothing: flowOf([]),
            prompt: flowOf(sent(1, 201, 402, 603, 801)),
            early: flowOf(sent(-2, 199, 400, 600, 800)),
            slow: flowOf(sent(900, 1100, 1300, 1500, 1700)),
            stumbling: flowOf(sent(1, 900, 901, 902, 903)),
            stalled: flowOf(sent(300, 301, 402, 600, 800)),
            lump: flowOf(sent(1400, 1400, 1400, 1400, 1400)),
            lumps: flowOf(sent(600, 600, 600, 1200, 1200)),
            never: flowOf(sent(undefined, undefined, undefined, undefined, undefined)),
            mostly: flowOf(sent(1, undefined, undefined, undefined, undefined)),
            last: flowOf(sent(700, 701, 702, 703, undefined)),
            one: flowOf(sent(2)),
            median: [median([]), median([3]), median([4, 1, 2])],
        };
    }""")
    assert flows == {
        "nothing": "unknown",
        "prompt": "flowing",
        "early": "flowing",
        "slow": "flowing",
        "stumbling": "clumped",
        "stalled": "flowing",
        "lump": "clumped",
        "lumps": "clumped",
        "never": "held",
        "mostly": "held",
        "last": "clumped",
        "one": "flowing",
        "median": [None, 3, 2],
    }


def test_verdict_is_right_for_every_mixture(page: Page, server: Server) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/doctor")
    verdicts = page.evaluate("""async () => {
        const { verdictOf } = await import("/console/doctor/verdict.js");
        const { CHANGES } = await import("/console/doctor/changes.js");
        const seen = {
            good: { isOpen: true, open_ms: 5, sent: [{ acked_ms: 0, came_ms: 1 }] },
            held: { isOpen: false, isLate: true, sent: [], why: "late" },
            lump: { isOpen: true, open_ms: 5, sent: [0, 1, 2, 3].map((at) => ({ acked_ms: at * 200, came_ms: 900 })) },
            blocked: { isOpen: false, sent: [], why: "closed" },
            refused: { isOpen: false, sent: [], why: "no", code: "forbidden" },
        };
        const all = [];
        const kinds = Object.keys(seen);
        for (let number = 0; number < kinds.length ** 4; number += 1) {
            const [websocket, sse, ndjson, longpoll] = [1, 5, 25, 125].map((by) => kinds[Math.floor(number / by) % 5]);
            const found = { poll: "good", websocket, sse, ndjson, longpoll };
            const findings = Object.entries(found).map(([key, kind]) => [key, seen[kind]]);
            const verdict = verdictOf(Object.fromEntries(findings));
            if (verdict.changes.some((key) => !(key in CHANGES))) throw new Error("a change that is not described");
            all.push({ ...found, ...verdict });
        }
        return all;
    }""")
    assert len(verdicts) == 5**4
    for each in verdicts:
        order = ("websocket", "sse", "longpoll", "poll")
        assert each["best"] == next(key for key in order if key == "poll" or each[key] == "good"), each
        is_all = all(each[key] == "good" for key in ("websocket", "sse", "ndjson"))
        assert (each["level"] == "good") == is_all, each
        assert (each["level"] == "bad") == (each["best"] in ("longpoll", "poll")), each
        assert ("upgrade" in each["changes"]) == (each["websocket"] not in ("good", "refused")), each
        held = {"held", "lump"} & {each["sse"], each["ndjson"]}
        assert ("buffering" in each["changes"]) == bool(held), each
        assert each["words"], each


def test_settings_that_are_advised_stand_in_the_documentation(page: Page, server: Server) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/doctor")
    changes = page.evaluate("async () => (await import('/console/doctor/changes.js')).CHANGES")
    documented = (ROOT / "docs" / "deploying.md").read_text()
    lines = {line.strip() for line in documented.splitlines()}
    advised = [
        line.strip()
        for change in changes.values()
        for setting in change["settings"]
        for line in setting["code"].splitlines()
    ]
    assert len(advised) > 10
    assert [line for line in advised if line not in lines and f"`{line}`" not in documented] == []


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
