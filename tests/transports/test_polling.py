"""Short and long polling: what an answer holds, and what becomes of the connection."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import pytest

from tests.readers import target
from tests.serving import Server
from tests.wires import Http


def poll_target(*channels: str, **parameters: Any) -> str:
    """Write the target of a poll."""
    return target("/v1/messages", channels, parameters)


def poll(http: Http, *channels: str, **parameters: Any) -> Any:
    """Poll once; return the page."""
    answer = http.get(poll_target(*channels, **parameters))
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    page = answer.json()
    assert set(page) == {"messages", "cursor", "gap"}
    return page


def data(page: Any) -> list[Any]:
    return [message["data"] for message in page["messages"]]


def answer_is_due(http: Http) -> bool:
    """Tell whether something has come to read."""
    return bool(select.select([http.socket], [], [], 0)[0])


def test_first_poll_gives_the_cursor(any_server: Server, channel: str) -> None:
    position = any_server.publish(channel, 1)
    with Http(any_server) as http:
        page = poll(http, channel)
        assert page["messages"] == []
        assert page["gap"] is None
        assert page["cursor"].split(".")[0] == position.split(".")[0]
        assert int(page["cursor"].split(".")[1]) >= int(position.split(".")[1])


def test_limit_pages_forward(any_server: Server, channel: str) -> None:
    any_server.publish_all([{"channel": channel, "data": number} for number in range(7)])
    with Http(any_server) as http:
        since = "earliest"
        pages: list[list[Any]] = []
        while not pages or pages[-1]:
            page = poll(http, channel, since=since, limit=3)
            since = page["cursor"]
            pages.append(data(page))
    assert pages == [[0, 1, 2], [3, 4, 5], [6], []]


def test_before_pages_backward(any_server: Server, channel: str) -> None:
    positions = any_server.publish_all([{"channel": channel, "data": number} for number in range(7)])
    epoch = positions[0].split(".")[0]
    with Http(any_server) as http:
        before = "now"
        pages: list[list[Any]] = []
        while not pages or pages[-1]:
            page = poll(http, channel, before=before, limit=3)
            pages.append(data(page))
            if page["messages"]:
                before = f"{epoch}.{page['messages'][0]['seq']}"
    assert pages == [[4, 5, 6], [1, 2, 3], [0], []]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "bad_request"),
        ("channel=a&wait=soon", "bad_request"),
        ("channel=a&wait=-1", "bad_request"),
        ("channel=a&wait=nan", "bad_request"),
        ("channel=a&limit=x", "bad_request"),
        ("channel=a&limit=10001", "bad_request"),
        ("channel=a&before=now&since=now", "bad_request"),
        ("channel=a&last=1&since=now", "bad_request"),
        ("channel=a&last=1&since=now&wait=1", "bad_request"),
        ("channel=a&since=-1", "invalid_cursor"),
        ("channel=a&since=9999999999999999999", "invalid_cursor"),
        ("channel=a%00", "invalid_channel"),
    ],
)
def test_bad_query_is_refused(any_server: Server, query: str, code: str) -> None:
    with Http(any_server) as http:
        answer = http.get(f"/v1/messages?{query}")
        assert (answer.status, answer.code) == (400, code)


def test_parameter_that_is_given_twice_counts_once_and_unknown_ones_not_at_all(
    any_server: Server, channel: str
) -> None:
    any_server.publish_all([{"channel": channel, "data": number} for number in range(4)])
    with Http(any_server) as http:
        page = http.get(poll_target(channel, channel, last=1, color="red") + "&last=3&last=x").json()
        assert data(page) == [3]


def test_waiting_poll_is_answered_by_the_next_message(any_server: Server, channel: str) -> None:
    start = any_server.publish(channel, 0)
    with Http(any_server) as http:
        http.send_request("GET", poll_target(channel, since=start, wait=30))
        assert http.is_silent()
        position = any_server.publish(channel, 1)
        page = http.read_response().json()
        assert (data(page), page["cursor"], page["gap"]) == ([1], position, None)


def test_poll_with_an_older_cursor_does_not_wait(any_server: Server, channel: str) -> None:
    positions = any_server.publish_all([{"channel": channel, "data": number} for number in range(4)])
    with Http(any_server) as http:
        for beginning in ({"since": positions[1]}, {"last": 2}):
            page = poll(http, channel, wait=60, **beginning)
            assert (data(page), page["cursor"]) == ([2, 3], positions[3])
        page = poll(http, channel, wait=60, since="earliest", limit=3)
        assert (data(page), page["cursor"]) == ([0, 1, 2], positions[2])


def test_wait_that_ends_gives_an_empty_page_to_go_on_from(any_server: Server, channel: str) -> None:
    start = any_server.publish(channel, 0)
    with Http(any_server) as http:
        page = poll(http, channel, since=start, wait=0.01)
        assert page["messages"] == []
        assert page["gap"] is None
        any_server.publish(channel, 1)
        assert data(poll(http, channel, since=page["cursor"], wait=60)) == [1]


def test_gap_is_told_at_once_with_what_is_kept(any_server: Server, channel: str) -> None:
    name = f"short:{channel}"
    positions = any_server.publish_all([{"channel": name, "data": number} for number in range(9)])
    with Http(any_server) as http:
        for wait in (0, 60):
            page = poll(http, name, since=positions[0], wait=wait)
            gap = {"from": positions[0], "to": positions[3], "reason": "trimmed", "channels": [name]}
            assert page["gap"] == gap
            assert data(page) == [4, 5, 6, 7, 8]
            page = poll(http, name, since=positions[0], wait=wait, on_gap="newest")
            assert page["gap"]["to"] == page["cursor"]
            assert page["messages"] == []
            page = poll(http, name, since="zzzzzzzz.1", wait=wait)
            assert page["gap"]["reason"] == "epoch"


def test_longest_wait_is_bounded_by_the_server(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"poll_wait_max_s": 0.01})
    with Http(server) as http:
        assert poll(http, channel, wait=1e8)["messages"] == []


def test_connection_is_kept_for_the_next_poll(any_server: Server, channel: str) -> None:
    with Http(any_server) as http:
        cursor = poll(http, channel)["cursor"]
        for number in range(20):
            http.send_request("GET", poll_target(channel, since=cursor, wait=30))
            any_server.publish(channel, number)
            page = http.read_response().json()
            assert data(page) == [number]
            cursor = page["cursor"]
        assert http.get("/healthz").status == 200


def test_request_behind_a_waiting_poll_waits_its_turn(server: Server, channel: str) -> None:
    start = server.publish(channel, 0)
    for cut in (0, 1, 40):
        with Http(server) as http:
            head = f" HTTP/1.1\r\nHost: {http.host}\r\n\r\n".encode()
            first = b"GET " + poll_target(channel, since=start, wait=30).encode() + head
            second = b"GET /healthz" + head
            # In one segment, and with the second request cut in two.
            http.send(first + second[:cut])
            assert http.is_silent()
            http.send(second[cut:] + second)
            assert http.is_silent()
            start = server.publish(channel, cut)
            assert data(http.read_response().json()) == [cut]
            assert http.read_response().json()["status"] == "ok"
            assert http.read_response().json()["status"] == "ok"


def test_http_1_0_poll_is_answered_and_closed(any_server: Server, channel: str) -> None:
    start = any_server.publish(channel, 0)
    with Http(any_server) as http:
        http.send_request("GET", poll_target(channel, since=start, wait=30), version="1.0")
        any_server.publish(channel, 1)
        assert data(http.read_response().json()) == [1]
        assert http.read_to_end() == b""


def test_poll_that_asks_to_close_is_answered_and_closed(any_server: Server, channel: str) -> None:
    start = any_server.publish(channel, 0)
    with Http(any_server) as http:
        http.send_request("GET", poll_target(channel, since=start, wait=30), headers=[("Connection", "close")])
        any_server.publish(channel, 1)
        answer = http.read_response()
        assert data(answer.json()) == [1]
        assert answer.headers["connection"] == "close"
        assert http.read_to_end() == b""


def test_poll_whose_client_goes_away_takes_nothing_along(any_server: Server, channel: str) -> None:
    start = any_server.publish(channel, 0)
    for _ in range(10):
        with Http(any_server) as http:
            http.send_request("GET", poll_target(channel, since=start, wait=30))
    with Http(any_server) as http:
        http.send_request("GET", poll_target(channel, since=start, wait=30))
        any_server.publish(channel, 1)
        assert data(http.read_response().json()) == [1]


def test_more_than_the_limit_at_once_is_paged_by_the_log(any_server: Server, channel: str) -> None:
    """A waiting poll that is handed more than it asked for gets the first of it, and its own session's not at all."""
    start = any_server.publish(channel, 0)
    with Http(any_server) as http:
        http.send_request("GET", poll_target(channel, since=start, wait=30, limit=2, session="mine"))
        assert http.is_silent()
        own = {"channel": channel, "data": "mine", "echo": False, "session": "mine"}
        any_server.publish_all([own, *({"channel": channel, "data": number} for number in range(1, 5))])
        read, cursor = [], start
        page = http.read_response().json()
        while True:
            assert len(page["messages"]) <= 2
            read += data(page)
            cursor = page["cursor"]
            if read[-1:] == [4]:
                break
            page = poll(http, channel, since=cursor, wait=30, limit=2, session="mine")
    assert read == [1, 2, 3, 4]
