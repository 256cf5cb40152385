"""Offers, good and bad, and what answers them (spec, section 17.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.guarded import bearer, token
from tests.rtc.conftest import RTC
from tests.rtc.peers import OFFER, Peer, offer, run
from tests.serving import Server
from tests.wires import Http


def test_answer_is_that_of_a_lite_agent(rtc_server: Server) -> None:
    with Http(rtc_server) as http:
        answer = offer(http, OFFER + "a=candidate:1 1 udp 1 nowhere.local 9 typ host\na=end-of-candidates\n")
    assert answer.status == 201
    assert answer.headers["content-type"] == "application/sdp"
    assert answer.headers["location"].startswith("/v1/rtc/")
    assert len(answer.headers["location"]) > 30
    lines = answer.body.decode().split("\r\n")
    assert {"a=ice-lite", "a=setup:passive", "a=max-message-size:65536", "a=end-of-candidates"} <= set(lines)
    assert any(line.startswith("a=candidate:1 1 udp ") and " 127.0.0.1 " in line for line in lines)


def test_other_sections_are_rejected(rtc_server: Server) -> None:
    video = "m=video 9 UDP/TLS/RTP/SAVPF 96\nc=IN IP4 0.0.0.0\na=mid:v\na=rtpmap:96 VP8/90000\n"
    with Http(rtc_server) as http:
        lines = offer(http, OFFER + video).body.decode().split("\r\n")
    assert "m=video 0 UDP/TLS/RTP/SAVPF 0" in lines
    assert "a=group:BUNDLE 0" in lines


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "v=0"),
        ("hello", "v=0"),
        ('{"sdp": "v=0"}', "v=0"),
        (b"\xff\xfe", "UTF-8"),
        ("v=0\nnonsense", "line 2"),
        ("v=0\n" + "a=x\n" * 3000, "2000 lines"),
        ("v=0\no=- 1 1 IN IP4 0\ns=-\nt=0 0\n", "no data channel"),
        ("v=0\nm=audio 9 UDP/TLS/RTP/SAVPF 0\na=mid:0\n", "no data channel"),
        (OFFER.replace("webrtc-datachannel", "something"), "no data channel"),
        (OFFER.replace("a=ice-ufrag:abcd\n", ""), "ice-ufrag"),
        (OFFER.replace("a=ice-pwd:0123456789abcdef012345", "a=ice-pwd:short"), "ice-pwd"),
        (OFFER.replace("a=fingerprint:sha-256", "a=x:"), "fingerprint"),
        (OFFER.replace("a=fingerprint:sha-256 AB", "a=fingerprint:sha-256 XY"), "fingerprint"),
        (OFFER.replace("a=setup:actpass", "a=setup:holdconn"), "a=setup"),
        (OFFER.replace("a=mid:0\n", ""), "a=mid"),
        (OFFER.replace("sctp-port:5000", "sctp-port:99999999999999999999"), "sctp-port"),
        (OFFER.replace("sctp-port:5000", "sctp-port:0"), "sctp-port"),
        (OFFER.replace("max-message-size:262144", "max-message-size:-1"), "max-message-size"),
        (OFFER.replace("max-message-size:262144", "max-message-size:5"), "max-message-size"),
    ],
)
def test_what_is_no_offer_is_told_what_it_lacks(rtc_server: Server, body: str | bytes, says: str) -> None:
    with Http(rtc_server) as http:
        answer = offer(http, body)
    assert (answer.status, answer.json()["code"]) == (400, "bad_request")
    assert says in answer.json()["detail"]


def test_offer_of_a_mebibyte_is_too_large(rtc_server: Server) -> None:
    with Http(rtc_server) as http:
        assert offer(http, OFFER + "a=x\n" * 262_144).status == 413
    with Http(rtc_server) as http:
        fields = "Host: 127.0.0.1\r\nContent-Type: application/sdp\r\nTransfer-Encoding: chunked\r\n"
        http.send(f"POST /v1/rtc HTTP/1.1\r\n{fields}\r\n".encode())
        http.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n10000\r\n" + b"x" * 65_536 + b"\r\n")
        assert http.read_response("POST").status == 413


def test_body_of_another_type_is_refused(rtc_server: Server) -> None:
    with Http(rtc_server) as http:
        assert http.request("POST", "/v1/rtc", headers=[("Content-Type", "application/json")], body=b"{}").status == 415
        assert http.request("POST", "/v1/rtc", body=b"v=0").status == 415


def test_methods_are_told(rtc_server: Server) -> None:
    with Http(rtc_server) as http:
        asked = http.request("OPTIONS", "/v1/rtc")
        assert (asked.status, asked.headers["accept-post"]) == (204, "application/sdp")
        assert asked.headers["allow"] == "OPTIONS, POST"
        for target in ("/v1/rtc", "/v1/rtc/abc"):
            refused = http.request(
                "PATCH", target, headers=[("Content-Type", "application/trickle-ice-sdpfrag")], body=b"x"
            )
            assert (refused.status, refused.json()["code"]) == (405, "method_not_allowed")
        assert http.request("DELETE", "/v1/rtc/abc").status == 404


def test_who_may_offer_is_decided_as_everywhere(guarded_rtc_server: Server) -> None:
    with Http(guarded_rtc_server) as http:
        assert offer(http, OFFER).status == 401
        assert offer(http, OFFER, bearer("nonsense")).status == 401
        assert offer(http, OFFER, bearer(token("ann"))).status == 201
        assert offer(http, OFFER, target=f"/v1/rtc?token={token('ann')}").status == 201
        stranger = offer(http, OFFER, bearer(token("ann")), ("Origin", "https://evil.example"))
        assert (stranger.status, stranger.json()["code"]) == (403, "forbidden_origin")
        friend = offer(http, OFFER, bearer(token("ann")), ("Origin", "https://friend.example"))
        assert friend.headers["access-control-allow-origin"] == "https://friend.example"
        assert "Location" in friend.headers["access-control-expose-headers"]


def test_without_the_setting_there_is_nothing(server: Server) -> None:
    with Http(server) as http:
        assert offer(http, OFFER).status == 404


def test_ice_servers_are_linked(start_server: Callable[..., Server]) -> None:
    turn: dict[str, Any] = {"ice_turn_urls": ["turn:192.0.2.1:3478"], "ice_turn_secret": "shared with the relay"}
    server = start_server(rtc=RTC, ice=turn)
    with Http(server) as http:
        link = offer(http, OFFER).headers["link"]
    assert link.startswith('<turn:192.0.2.1:3478>; rel="ice-server"; username="')


def test_addresses_to_offer_are_a_setting(start_server: Callable[..., Server]) -> None:
    """Those of a NAT too, which no socket here can be bound to."""
    server = start_server(rtc={**RTC, "rtc_address": ["203.0.113.7", "127.0.0.1"]})
    with Http(server) as http:
        lines = offer(http, OFFER).body.decode().split("\r\n")
    hosts = [line.split(" ")[4] for line in lines if line.startswith("a=candidate:")]
    assert hosts == ["203.0.113.7", "127.0.0.1"]

    async def test() -> None:
        async with Peer(server) as peer:
            assert (await peer.ask(type="connect"))["type"] == "connected"

    run(test())


def test_offers_that_come_too_fast_are_told_to_wait(start_server: Callable[..., Server]) -> None:
    server = start_server(rtc={"rtc": True, "rtc_offers_per_caller_s": 3.0})
    with Http(server) as http:
        assert [offer(http, OFFER).status for _ in range(3)] == [201] * 3
        while (last := offer(http, OFFER)).status == 201:  # there is room for another each third of a second
            pass
        assert (last.status, last.json()["code"], last.headers["retry-after"]) == (429, "rate_limited", "1")
        while (last := offer(http, "nonsense")).status != 429:
            assert last.status == 400, "what is nonsense counts too"


def test_unfinished_offers_make_way_and_finished_ones_do_not(start_server: Callable[..., Server]) -> None:
    """Thousands of them neither keep others out nor stay in memory."""
    server = start_server(rtc={**RTC, "rtc_connections": 3, "rtc_offers_per_s": 1e6, "rtc_offers_per_caller_s": 1e6})

    async def test() -> None:
        async with Peer(server) as one, Peer(server) as two:
            await one.ask(type="connect")
            with Http(server) as http:
                for _ in range(200):
                    assert offer(http, OFFER).status == 201
                before = server.rss
                for _ in range(3000):
                    assert offer(http, OFFER).status == 201
                assert server.rss - before < 4_000_000
            assert (await one.ask(type="ping"))["type"] == "pong"
            async with Peer(server) as three:
                await three.ask(type="connect")
                with Http(server) as http:
                    full = offer(http, OFFER)
                assert (full.status, full.json()["code"]) == (503, "too_many_connections")
                assert (await two.ask(type="connect"))["type"] == "connected"

    run(test())


def test_offer_that_nobody_follows_up_ends_by_itself(start_server: Callable[..., Server]) -> None:
    server = start_server(rtc={**RTC, "rtc_open_s": 0.3})
    with Http(server) as http:
        location = offer(http, OFFER).headers["location"]
        while 'tellwire_limit_hits_total{limit="rtc_open_s"} 1' not in http.get("/metrics").body.decode():
            pass
        assert http.request("DELETE", location).status == 404
