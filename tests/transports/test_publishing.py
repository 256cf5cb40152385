"""Publishing over HTTP: one and many, formats, ids, conditions, and what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from tests.readers import READERS, LineReader, SocketReader
from tests.serving import Server
from tests.wires import Http

PACKED = [("Content-Type", "application/msgpack")]


def publish(http: Http, value: Any, **headers: str) -> Any:
    """Publish; return the answer to a publish that succeeds."""
    answer = http.post("/v1/messages", value, headers=[(k.replace("_", "-"), v) for k, v in headers.items()])
    assert answer.status == 200, answer
    return answer.json()


def test_publish_answers_with_the_place(any_server: Server, channel: str) -> None:
    with Http(any_server) as http:
        first = publish(http, {"channel": channel, "data": 1})
        assert set(first) == {"position", "duplicate"}
        assert first["duplicate"] is False
        second = publish(http, {"channel": channel, "data": None})
        assert int(second["position"].split(".")[1]) > int(first["position"].split(".")[1])
        assert publish(http, {"channel": channel, "data": 1, "ephemeral": True}) == {
            "position": None,
            "duplicate": False,
        }


def test_publish_with_an_id_is_idempotent_over_every_wire(any_server: Server, channel: str) -> None:
    with Http(any_server) as http, SocketReader(any_server, channel) as reader:
        first = publish(http, {"channel": channel, "data": 1, "id": "a"})
        again = {**first, "duplicate": True}
        assert publish(http, {"channel": channel, "data": 2, "id": "a"}) == again
        assert publish(http, {"channel": channel, "data": 2}, Idempotency_Key="a") == again
        assert publish(http, {"channel": channel, "data": 2, "id": "a"}, Idempotency_Key="a") == again
        assert publish(http, [{"channel": channel, "data": 2, "id": "a"}]) == [again]
        assert reader.wire.ask(type="publish", channel=channel, data=2, id="a")["position"] == first["position"]
        assert publish(http, {"channel": channel + "-2", "data": 2, "id": "a"})["duplicate"] is False
        publish(http, {"channel": channel, "data": "end"})
        assert reader.read_data(2) == [1, "end"]


def test_idempotency_key_that_differs_from_the_id_is_refused(any_server: Server, channel: str) -> None:
    with Http(any_server) as http:
        headers = [("Idempotency-Key", "b")]
        answer = http.post("/v1/messages", {"channel": channel, "data": 1, "id": "a"}, headers=headers)
        assert answer.code == "bad_request"


def test_expect_publishes_only_on_the_head(any_server: Server, channel: str) -> None:
    with Http(any_server) as http:
        first = publish(http, {"channel": channel, "data": 1})["position"]
        second = publish(http, {"channel": channel, "data": 2, "expect": first, "id": "two"})["position"]
        answer = http.post("/v1/messages", {"channel": channel, "data": 3, "expect": first})
        assert (answer.status, answer.code, answer.json()["head"]) == (409, "conflict", second)
        # The retry of one that succeeded finds itself.
        retry = publish(http, {"channel": channel, "data": 2, "expect": first, "id": "two"})
        assert retry == {"position": second, "duplicate": True}
        listed = publish(http, [{"channel": channel, "data": 3, "expect": first}])
        assert (listed[0]["error"]["code"], listed[0]["error"]["head"]) == ("conflict", second)


def test_list_is_published_in_order_and_each_fails_by_itself(any_server: Server, channel: str) -> None:
    with Http(any_server) as http, LineReader(any_server, channel) as reader:
        answers = publish(
            http,
            [
                {"channel": channel, "data": 1},
                {"channel": "..", "data": 2},
                {"channel": channel},
                {"channel": 5, "data": 1},
                "no object",
                {"channel": channel, "data": 3},
                {"channel": f"tight:{channel}", "data": "x" * 100},
            ],
        )
        codes = [answer.get("error", {}).get("code") for answer in answers]
        assert codes == [
            None, "invalid_channel", "bad_request", "bad_request", "bad_request", None, "too_large",
        ]  # fmt: skip
        assert all(answer["error"]["message"] for answer in answers if "error" in answer)
        assert reader.read_data(2) == [1, 3]
        assert publish(http, []) == []


def test_list_of_messagepack(any_server: Server, channel: str) -> None:
    body = msgspec.msgpack.encode([{"channel": channel, "data": n} for n in (b"1", 2.5, None)])
    with Http(any_server) as http, SocketReader(any_server, channel) as reader:
        answer = http.request("POST", "/v1/messages", headers=PACKED, body=body)
        assert answer.status == 200
        assert len(answer.json()) == 3
        assert reader.read_data(3) == [{"$bytes": "MQ=="}, 2.5, None]


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
def test_messagepack_and_json_are_read_by_each_other(server: Server, channel: str, reader: Any) -> None:
    blob = bytes(range(256))
    value = {"text": "ü\u2028", "blob": blob, "list": [1, -1, 1.5, True, None, 2**63], "map": {"blob": blob}}
    marked = {"$bytes": base64.b64encode(blob).decode()}
    in_json = {**value, "blob": marked, "map": {"blob": marked}}
    expected = value if reader is READERS["msgpack"] else in_json
    with Http(server) as http, reader(server, channel) as reading:
        packed = msgspec.msgpack.encode({"channel": channel, "data": value})
        assert http.request("POST", "/v1/messages", headers=PACKED, body=packed).status == 200
        publish(http, {"channel": channel, "data": in_json})
        assert reading.read_data(2) == [expected, expected]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded"])
def test_json_is_read_whatever_simple_clients_call_it(any_server: Server, channel: str, kind: str) -> None:
    body = json.dumps({"channel": channel, "data": 1}).encode()
    with Http(any_server) as http:
        headers = [("Content-Type", kind)]
        assert http.request("POST", "/v1/messages", headers=headers, body=body).status == 200


def test_other_media_types_are_refused(any_server: Server, channel: str) -> None:
    with Http(any_server) as http:
        answer = http.request("POST", "/v1/messages", headers=[("Content-Type", "application/xml")], body=b"<a/>")
        assert (answer.status, answer.code) == (415, "unsupported_media_type")
        assert publish(http, {"channel": channel, "data": 1})["position"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"data": 1}, "bad_request"),
        ({"channel": "a"}, "bad_request"),
        ({"channel": None, "data": 1}, "bad_request"),
        ({"channel": "", "data": 1}, "invalid_channel"),
        ({"channel": "a", "data": 1, "id": ""}, "bad_request"),
        ({"channel": "a", "data": 1, "id": "x" * 129}, "bad_request"),
        ({"channel": "a", "data": 1, "id": "a\nb"}, "bad_request"),
        ({"channel": "a", "data": 1, "event": "gap"}, "bad_request"),
        ({"channel": "a", "data": 1, "event": "a\nid: 5"}, "bad_request"),
        ({"channel": "a", "data": 1, "key": ""}, "bad_request"),
        ({"channel": "a", "data": 1, "echo": False}, "bad_request"),
        ({"channel": "a", "data": 1, "echo": False, "session": "s" * 65}, "bad_request"),
        ({"channel": "a", "data": 1, "expect": "newest"}, "invalid_cursor"),
        ({"channel": "a", "data": 1, "ephemeral": "yes"}, "bad_request"),
    ],
)
def test_publish_that_makes_no_sense_is_refused(any_server: Server, fields: Any, code: str) -> None:
    with Http(any_server) as http:
        answer = http.post("/v1/messages", fields)
        assert (answer.status, answer.code) == (400, code)


def test_message_beyond_its_namespace_is_too_large(any_server: Server, channel: str) -> None:
    with Http(any_server) as http:
        fits = {"channel": f"tight:{channel}", "data": "x" * 62}
        assert publish(http, fits)["position"]
        answer = http.post("/v1/messages", {"channel": f"tight:{channel}", "data": "x" * 63})
        assert (answer.status, answer.code) == (413, "too_large")


def test_expect_continue_is_answered(any_server: Server, channel: str) -> None:
    body = json.dumps({"channel": channel, "data": 1}).encode()
    with Http(any_server) as http:
        headers = [("Expect", "100-continue"), ("Content-Length", str(len(body)))]
        http.send_request("POST", "/v1/messages", headers=headers)
        assert http.read_head()[0] == 100
        http.send(body)
        assert http.read_response("POST").status == 200


def test_chunked_body_is_read(any_server: Server, channel: str) -> None:
    body = json.dumps({"channel": channel, "data": 1}).encode()
    with Http(any_server) as http:
        http.send_request("POST", "/v1/messages", headers=[("Transfer-Encoding", "chunked")])
        for place in range(0, len(body), 7):
            piece = body[place : place + 7]
            http.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        http.send(b"0\r\n\r\n")
        assert http.read_response("POST").status == 200
