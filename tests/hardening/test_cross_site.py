"""Pages of other sites in the browser of somebody who is logged in: their cookie does not let those in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.guarded import GUARDED, SECRET, bearer, token
from tests.readers import target
from tests.serving import Server
from tests.wires import Fields, Http, Refused, WebSocket

EVIL = "https://evil.example"
APP = "https://app.example"

BODIES: dict[str, Any] = {
    "/v1/messages": {"channel": "site", "data": "forged"},
    "/v1/presence": {"channel": "site", "session": "s", "enter": True},
    "/v1/send": {"channel": "site", "session": "s", "to": "x", "data": 1},
    "/v1/call": {"method": "add", "data": [1]},
    "/v1/admin/publish": {"channel": "site", "data": "forged"},
    "/v1/admin/disconnect": {"user": "nobody"},
    "/v1/admin/revoke": {"user": "nobody"},
}
PATHS = [
    *(("GET", f"{path}?channel=site") for path in ("/v1/messages", "/v1/events", "/v1/stream", "/v1/presence")),
    ("GET", "/v1/messages?channel=site&wait=1"),
    *(("GET", f"/v1/admin/{name}") for name in ("stats", "connections", "channels")),
    ("GET", "/metrics"),
    *(("POST", path) for path in BODIES),
]


@pytest.fixture(scope="module")
def site() -> Iterator[Server]:
    """A server that asks for tokens, whose application is on another origin of the same site."""
    server = Server(**{**GUARDED, "server": {"origins": [APP]}})
    yield server
    server.close()


def cookie(text: str) -> tuple[str, str]:
    return "Cookie", f"tellwire_token={text}"


def knock(server: Server, method: str, path: str, headers: Fields) -> tuple[int, dict[str, str]]:
    """Ask with what a page can send without asking first: a body that says that it is text."""
    body = json.dumps(BODIES[path]).encode() if method == "POST" else None
    with Http(server) as http:
        http.send_request(method, path, headers=[("Content-Type", "text/plain"), *headers], body=body)
        return http.read_head()


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_cookie_does_not_let_a_page_from_elsewhere_in(site: Server, method: str, path: str) -> None:
    for origin in (EVIL, "null", f"{APP}.evil.example", "http://app.example"):
        for proof in (cookie(token()), bearer(token())):
            status, headers = knock(site, method, path, [("Origin", origin), proof])
            assert status == 403
            assert not {"access-control-allow-origin", "access-control-allow-credentials"} & set(headers)


def test_nothing_was_done_for_it(site: Server) -> None:
    for method, path in PATHS:
        knock(site, method, path, [("Origin", EVIL), cookie(token())])
    with Http(site) as http:
        answer = http.get(target("/v1/messages", ("site",), {"since": "earliest"}), headers=[bearer(token())])
        assert answer.json()["messages"] == []
        assert http.get("/v1/presence?channel=site", headers=[bearer(token())]).json()["clients"] == 0


@pytest.mark.parametrize("place", ["cookie", "header", "query", "subprotocol"])
def test_it_gets_no_websocket_with_any_token(site: Server, place: str) -> None:
    good = token()
    headers = [
        ("Origin", EVIL),
        *([cookie(good)] if place == "cookie" else [bearer(good)] if place == "header" else []),
    ]
    with pytest.raises(Refused) as refused:
        WebSocket(
            site,
            headers=headers,
            query=f"token={good}" if place == "query" else "",
            token=good if place == "subprotocol" else "",
        )
    assert refused.value.response.code == "forbidden_origin"


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_page_of_the_application_comes_in_with_its_cookie(site: Server, method: str, path: str) -> None:
    status, headers = knock(site, method, path, [("Origin", APP), cookie(token())])
    assert status in (200, 403, 404)
    assert headers["access-control-allow-origin"] == APP
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["vary"] == "Origin"


def test_page_of_the_application_gets_a_websocket_with_its_cookie(site: Server) -> None:
    with WebSocket(site, headers=[("Origin", APP), cookie(token("ann"))]) as wire:
        assert wire.ask(type="connect")["user"] == "ann"


def test_preflight_says_no_to_pages_from_elsewhere(site: Server) -> None:
    asking = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization")]
    for path in BODIES:
        with Http(site) as http:
            refused = http.request("OPTIONS", path, headers=[("Origin", EVIL), *asking])
            assert refused.code == "forbidden_origin"
            assert "access-control-allow-origin" not in refused.headers
            taken = http.request("OPTIONS", path, headers=[("Origin", APP), *asking])
            assert taken.status == 204
            assert taken.headers["access-control-allow-origin"] == APP
            assert "authorization" in taken.headers["access-control-allow-headers"].lower()


def test_where_all_pages_may_come_a_cookie_is_nobodys_word(start_server: Callable[..., Server]) -> None:
    """Whoever lists ``*`` lets every page in with a token of its own; the cookie was set for other pages."""
    server = start_server(server={"origins": ["*"]}, auth={"token_key": SECRET})
    good = token("ann")
    for path in ("/v1/messages?channel=site", "/v1/events?channel=site"):
        status, headers = knock(server, "GET", path, [("Origin", EVIL), cookie(good)])
        assert status == 401
        assert headers["access-control-allow-origin"] == EVIL
        assert "access-control-allow-credentials" not in headers
        assert knock(server, "GET", path, [("Origin", EVIL), bearer(good)])[0] == 200
        own = f"http://127.0.0.1:{server.port}"
        status, headers = knock(server, "GET", path, [("Origin", own), cookie(good)])
        assert status == 200
        assert headers["access-control-allow-credentials"] == "true"
    with WebSocket(server, headers=[("Origin", EVIL), cookie(good)]) as wire:
        assert wire.ask(type="ping")["code"] == "unauthorized"
    with WebSocket(server, headers=[("Origin", EVIL)], token=good) as wire:
        assert wire.ask(type="connect")["user"] == "ann"
