"""Pages from elsewhere, and names that lead here: a browser is not let in for whoever sits at it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.readers import READERS, target
from tests.serving import Server
from tests.wires import Fields, Http, Refused, WebSocket

FOREIGN = ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1", "", "file://", "*"]

DOORS = [
    ("GET", "/v1/messages?channel=a"),
    ("GET", "/v1/messages?channel=a&wait=1"),
    ("GET", "/v1/events?channel=a"),
    ("HEAD", "/v1/events?channel=a"),
    ("GET", "/v1/stream?channel=a"),
    ("POST", "/v1/messages"),
    ("OPTIONS", "/v1/messages"),
    ("OPTIONS", "/v1/events"),
]


def ask(server: Server, method: str, path: str, headers: Fields) -> tuple[int, dict[str, str]]:
    """Ask at one door; return the status and the fields, which come before a stream."""
    body = b'{"channel":"a","data":1,"ephemeral":true}' if method == "POST" else None
    with Http(server) as http:
        http.send_request(method, path, headers=headers, body=body)
        return http.read_head()


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize("origin", FOREIGN)
def test_page_from_elsewhere_is_refused_at_every_door(server: Server, method: str, path: str, origin: str) -> None:
    status, headers = ask(server, method, path, [("Origin", origin)])
    assert status == 403
    assert "access-control-allow-origin" not in headers
    assert headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("origin", FOREIGN)
def test_page_from_elsewhere_gets_no_websocket(server: Server, origin: str) -> None:
    with pytest.raises(Refused) as refused:
        WebSocket(server, headers=[("Origin", origin)])
    assert refused.value.response.status == 403
    assert refused.value.response.code == "forbidden_origin"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", ""])
@pytest.mark.parametrize(("method", "path"), DOORS)
def test_name_that_is_not_loopback_is_not_answered_to(server: Server, method: str, path: str, host: str) -> None:
    """DNS rebinding: the page's own name leads here, and makes it same-origin."""
    status, _ = ask(server, method, path, [("Host", host), ("Origin", f"http://{host}")])
    assert status == 403
    assert ask(server, method, path, [("Host", host)])[0] == 403


def test_websocket_under_a_name_that_is_not_loopback_is_refused(server: Server) -> None:
    with pytest.raises(Refused):
        WebSocket(server, headers=[("Host", "evil.example"), ("Origin", "http://evil.example")])


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "tellwire.localhost", "[::1]", "127.9.9.9"])
def test_own_page_may_do_everything(server: Server, name: str) -> None:
    host = f"{name}:{server.port}"
    fields = [("Host", host), ("Origin", f"http://{host}")]
    for method, path in DOORS:
        status, headers = ask(server, method, path, fields)
        assert status in (200, 204)
        assert headers["access-control-allow-origin"] == f"http://{host}"
        assert headers["vary"] == "Origin"
    with WebSocket(server, headers=fields) as wire:
        assert wire.ask(type="ping")["type"] == "pong"


def test_listed_origin_may_do_everything_and_others_nothing(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(server={"origins": ["https://app.example"]})
    for method, path in DOORS:
        status, headers = ask(server, method, path, [("Origin", "https://app.example")])
        assert status in (200, 204)
        assert headers["access-control-allow-origin"] == "https://app.example"
        for other in ("https://app.example.evil.example", "http://app.example", "https://app.example:444", "null"):
            assert ask(server, method, path, [("Origin", other)])[0] == 403
    with WebSocket(server, headers=[("Origin", "https://app.example")]) as wire:
        assert wire.ask(type="subscribe", channel=channel)["type"] == "subscribed"
    with pytest.raises(Refused):
        WebSocket(server, headers=[("Origin", "https://evil.example")])


def test_preflight_names_methods_and_fields(any_server: Server) -> None:
    with Http(any_server) as http:
        answer = http.request(
            "OPTIONS",
            "/v1/messages",
            headers=[("Origin", f"http://{http.host}"), ("Access-Control-Request-Method", "POST")],
        )
        assert answer.status == 204
        assert answer.headers["access-control-allow-methods"] == "GET, OPTIONS, POST"
        allowed = answer.headers["access-control-allow-headers"].lower()
        assert {"content-type", "last-event-id", "idempotency-key"} <= set(allowed.split(", "))


def test_program_without_an_origin_passes(server: Server, channel: str) -> None:
    for reader in READERS.values():
        with reader(server, channel):
            pass
    with Http(server) as http:
        answer = http.get(target("/v1/messages", (channel,), {}))
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"
