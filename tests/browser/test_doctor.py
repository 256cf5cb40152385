"""The page /doctor, behind nginx as it should be and as it should not, and before servers that are closed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tellwire.auth.making import make_token
from tests.application.hosting import Host
from tests.browser.conftest import PLAIN, Complaints
from tests.browser.doctors import Doctor
from tests.nginx import BARE, DEAF, DOCUMENTED, FORBIDDING, Through
from tests.nginx import through as through
from tests.serving import ROOT, Server
from tests.turn import turn_server

GOOD = {"poll": "good", "longpoll": "good", "sse": "good", "ndjson": "good", "websocket": "good"}

NETWORK = ("net::ERR_", "WebSocket", "504", "403", "400", "502")
"""What a browser says of connections that are refused or cut on the way."""

KEY = "a secret of the tests, at least thirty-two bytes long"


def test_direct_connection_lets_everything_through(
    context: BrowserContext, page: Page, server: Server, channel: str
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    doctor = Doctor(page, server.port, channel)
    page.get_by_role("button", name="Examine").focus()
    page.keyboard.press("Enter")
    doctor.expect_done()
    expect(page.get_by_role("button", name="Examine")).to_be_focused()  # the keyboard goes on from there
    assert doctor.states() == GOOD
    expect(page.get_by_role("heading", name="Everything gets through.")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="Everything gets through.")).to_have_count(1)
    expect(doctor.check("ice")).to_have_attribute("data-state", "unknown")  # there is nothing that could be asked
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
        expect(page.locator("#starts pre").first).to_contain_text(f"{host.url}/inside/realtime/v1/events")
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
    doctor = Doctor(page, through(server, f"{DOCUMENTED}\nproxy_read_timeout 4s;").port, channel)
    doctor.examine()
    expect(doctor.verdict).to_have_text("Everything gets through.")
    doctor.watch(300)  # it ends when all are cut
    for key in ("websocket", "sse", "longpoll"):
        expect(doctor.check(f"idle-{key}")).to_have_attribute("data-state", "bad")
        expect(doctor.check(f"idle-{key}")).to_contain_text("of silence")
    title = re.compile(r"^Everything gets through, but silence is cut after [\d.]+ seconds\.$")
    expect(doctor.verdict).to_have_text(title)
    assert doctor.changes() == ["timeouts"]
    report = doctor.report()
    assert "idle SSE             cut after" in report
    assert "proxy_read_timeout 75s;" in report
    assert "proxy     nginx/" in report
    assert "HAProxy" not in report  # it is nginx that cuts


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


def test_server_that_dies_half_way_is_not_blamed_on_the_way(
    page: Page, start_server: Callable[..., Server], channel: str, complaints: Complaints
) -> None:
    complaints.allow(*NETWORK)
    server = start_server()
    doctor = Doctor(page, server.port, channel)

    def die(route: Route) -> None:
        server.kill()
        server.wait()
        route.continue_()

    page.route("**/v1/stream?*", die)
    doctor.examine()
    expect(doctor.check("sse")).to_have_attribute("data-state", "good")
    expect(doctor.verdict).to_have_text("The server went away meanwhile.")
    assert doctor.changes() == ["reach"]
    assert "Server-Sent Events   open in" in doctor.report()
    expect(page.locator("[data-state=waiting], [data-state=running]")).to_have_count(0)


def test_server_that_ends_while_silence_is_watched_is_no_timeout(
    page: Page, start_server: Callable[..., Server], channel: str, complaints: Complaints
) -> None:
    complaints.allow(*NETWORK, "503")
    server = start_server()
    doctor = Doctor(page, server.port, channel)
    doctor.examine()
    page.get_by_role("button", name="Watch").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    server.terminate()  # it says goodbye to one, and lets go of others without a word
    server.wait()
    expect(doctor.verdict).to_have_text("The server went away meanwhile.")
    assert doctor.changes() == ["reach"]
    expect(doctor.check("idle-sse")).not_to_have_attribute("data-state", "running")


def test_proxy_that_makes_strangers_of_pages_is_found(
    page: Page, server: Server, through: Through, channel: str, complaints: Complaints
) -> None:
    complaints.allow(*NETWORK)
    without_host = f"""{DOCUMENTED} }}
    location /v1/ {{
      proxy_pass http://127.0.0.1:{server.port};
      {DOCUMENTED}"""
    doctor = Doctor(page, through(server, without_host).port, channel)
    doctor.examine()
    expect(doctor.verdict).to_have_text("The server takes this page for one of another site.")
    assert doctor.states() == {**GOOD, "websocket": "bad"}
    assert doctor.changes() == ["origin"]
    expect(page.locator("#changes")).to_contain_text("proxy_set_header Host $http_host;")


def test_proxy_whose_server_is_away_is_told_from_no_proxy(
    page: Page, start_server: Callable[..., Server], through: Through, channel: str, complaints: Complaints
) -> None:
    complaints.allow(*NETWORK)
    server = start_server()
    doctor = Doctor(page, through(server, DOCUMENTED).port, channel)
    server.kill()
    server.wait()
    doctor.examine()
    expect(doctor.verdict).to_have_text("The server cannot be reached from here.")
    expect(page.locator("#verdict-words")).to_have_text("A proxy answers in its place, with 502.")


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

        settings = {**asdict(turn.settings("udp")), "ice_turn_secret": "a secret that coturn does not know"}
        doctor = Doctor(page, start_server(ice=settings).port, channel)
        doctor.examine()
        expect(doctor.verdict).to_have_text("Everything but WebRTC gets through.")
        expect(page.locator("#verdict-words")).to_contain_text("refused the credentials")
        assert doctor.changes() == ["secret"]


def test_turn_that_does_not_answer_is_told(
    page: Page, start_server: Callable[..., Server], channel: str, complaints: Complaints
) -> None:
    complaints.allow("STUN", "TURN")
    ice = {"ice_turn_urls": ["turn:127.0.0.1:9?transport=tcp"], "ice_turn_secret": "a secret that nobody else knows"}
    doctor = Doctor(page, start_server(ice=ice).port, channel)
    doctor.examine()
    expect(doctor.check("ice")).to_have_attribute("data-state", "bad")
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
            one_late: flowOf(sent(900)),
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
        "one_late": "flowing",
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
        assert ("upgrade" in each["changes"]) == (each["websocket"] in ("held", "blocked")), each
        held = {"held", "lump"} & {each["sse"], each["ndjson"]}
        assert ("buffering" in each["changes"]) == (bool(held) or each["websocket"] == "lump"), each
        assert ("streams" in each["changes"]) == ("blocked" in (each["sse"], each["ndjson"])), each
        assert each["words"], each


def test_words_about_udp_and_silence_are_right(page: Page, server: Server) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/doctor")
    words = page.evaluate("""async () => {
        const { changesOfIce, conditionOfIce, wordsOfIce } = await import("/console/doctor/ice_words.js");
        const { describeIdle, endOf, inSeconds, shared, silenceCut, stateOfIdle } =
            await import("/console/doctor/idle_words.js");
        const ice = (kinds, more) => {
            const found = { hasStun: true, hasTurn: true, asksUdp: true, kinds, errors: [], isRefused: false, ...more };
            return [conditionOfIce(found), changesOfIce(found), wordsOfIce(found)[0]];
        };
        const idle = (more) => {
            const seen = { name: "SSE", watched_s: 75, ...more };
            return [endOf(seen), stateOfIdle(seen), silenceCut([seen]) ?? null, describeIdle(seen)];
        };
        return {
            unasked: ice(["host over udp"], { hasStun: false, hasTurn: false }),
            good: ice(["srflx over udp", "relay over udp"], { relay_ms: 9 }),
            stun: ice(["host over udp"], { hasTurn: false }),
            tcp: ice(["relay over tcp"], { relay_ms: 9 }),
            only_tcp: ice(["relay over tcp"], { relay_ms: 9, hasStun: false, asksUdp: false }),
            deaf: ice(["relay over udp"], {}),
            refused: ice(["host over udp"], { isRefused: true, errors: ["turn:a refused the credentials"] }),
            kept: idle({}),
            silent: idle({ cut_s: 60.2, silent_s: 10.04, borne_s: 0 }),
            late: idle({ cut_s: 60.2, silent_s: 60.1, borne_s: 0 }),
            old: idle({ cut_s: 60.2, silent_s: 10, borne_s: 25 }),
            sudden: idle({ cut_s: 9, silent_s: 0.4, borne_s: 0 }),
            shared: [
                [{ cut_s: 3 }, {}],
                [{ cut_s: 3 }, { cut_s: 4, said: "bye" }, {}],
                [{ cut_s: 40, said: "bye" }, { cut_s: 3 }],
            ].map((all) => shared(all).map(({ said }) => said ?? null)),
            server: idle({ cut_s: 2, silent_s: 1, borne_s: 0, said: "the token has expired" }),
            seconds: [inSeconds(1), inSeconds(0.96), inSeconds(1.04), inSeconds(2.26), inSeconds(59.6)],
        };
    }""")
    assert words == {
        "unasked": ["unknown", [], words["unasked"][2]],
        "good": ["good", [], "UDP gets out."],
        "stun": ["bad", ["stun"], "No STUN server answers: UDP may be blocked, or they may be down."],
        "tcp": ["tcp", ["udp"], "UDP does not get out, or not to that server."],
        "only_tcp": ["good", [], words["only_tcp"][2]],
        "deaf": ["bad", ["relay"], "UDP gets out."],
        "refused": ["bad", ["secret"], words["refused"][2]],
        "kept": ["kept", "good", None, "not cut in 75 seconds"],
        "silent": ["silence", "bad", 10.04, "cut after 10 seconds of silence"],
        "late": ["silence", "fair", None, "cut after 60 seconds of silence, longer than the clients are ever silent"],
        "old": ["age", "fair", None, "cut after 60 seconds, and not for its silence"],
        "sudden": ["age", "fair", None, "cut after 9 seconds, and not for its silence"],
        "shared": [[None, None], ["bye", "bye", None], ["bye", None]],
        "server": ["server", "fair", None, "ended by the server after 2 seconds: the token has expired"],
        "seconds": ["1 second", "1 second", "1 second", "2.3 seconds", "60 seconds"],
    }
    for each in ("unasked", "only_tcp", "refused"):
        assert words[each][2].startswith("Whether UDP gets out is not known: ")


def test_settings_that_are_advised_stand_in_the_documentation(page: Page, server: Server) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/doctor")
    changes = page.evaluate("async () => (await import('/console/doctor/changes.js')).CHANGES")
    pages = [ROOT / "docs" / f"{name}.md" for name in ("deploying", "calls", "webrtc")]
    documented = "\n".join(path.read_text() for path in (*pages, ROOT / "deploy" / "coturn.conf"))
    lines = {line.strip().removeprefix("#") for line in documented.splitlines()}
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
    doctor = Doctor(page, closed.port, channel, host=PLAIN)
    assert not page.evaluate("() => isSecureContext")
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
    page.get_by_role("button", name="Copy", exact=True).click()  # such pages have no navigator.clipboard
    expect(page.get_by_role("button", name="Copied")).to_be_focused()
    page.goto(f"http://127.0.0.1:{closed.port}/")
    message = page.get_by_label("Message", exact=True)
    message.fill("")
    message.press("Control+v")
    expect(message).to_have_value(report)


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
