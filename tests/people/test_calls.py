"""Procedures of the application, called over every wire that goes both ways and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from tests.guarded import bearer, someone, token
from tests.serving import Server
from tests.wires import Http, WebSocket

WAYS = ("post", "json", "msgpack")


class Phone:
    """Calls, over one wire; an answer is a result or an error."""

    def __init__(self, server: Server, way: str, text: str) -> None:
        self.packed = way == "msgpack"
        self._text = text
        self._http = Http(server) if way == "post" else None
        self._wire = None if way == "post" else WebSocket(server, packed=self.packed, token=text)

    def call(self, method: str, **fields: Any) -> Any:
        """Return the data of the result, or the code of the error in a tuple."""
        if self._wire is not None:
            push = self._wire.ask(type="call", method=method, **fields)
            return push["data"] if push["type"] == "result" else (push["code"], push["message"])
        assert self._http is not None
        answer = self._http.post("/v1/call", {"method": method, **fields}, headers=[bearer(self._text)])
        return answer.json()["data"] if answer.status == 200 else (answer.code, answer.json()["detail"])

    def close(self) -> None:
        for each in (self._http, self._wire):
            if each is not None:
                each.close()


@pytest.fixture(params=["direct", "hypercorn"])
def host(request: pytest.FixtureRequest, guarded_servers: Callable[[str], Server]) -> Server:
    return guarded_servers(request.param)


@pytest.fixture(params=WAYS)
def phone(request: pytest.FixtureRequest, host: Server) -> Iterator[Phone]:
    phone = Phone(host, request.param, token("ann", info={"name": "Ann"}))
    yield phone
    phone.close()


def test_results(phone: Phone) -> None:
    assert phone.call("add", data=[1, 2, 3.5]) == 6.5
    values: list[Any] = [None, True, 0, "ä\u2028\0", [], {"a": {"b": [None]}}, 2**53]
    for value in values:
        assert phone.call("echo", data=value) == value
    assert phone.call("echo") is None
    who = phone.call("who")
    assert (who["user"], who["info"]) == ("ann", {"name": "Ann"})
    raw = b"\x00\xff" if phone.packed else {"$bytes": "AP8="}
    assert phone.call("bytes", data=raw) == {"raw": raw, "was": "bytes"}


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("nothing", "not_found"), ("refuse", "forbidden"), ("tire", "rate_limited"),
        ("fail", "hook_failed"), ("unsendable", "hook_failed"), ("", "bad_request"), ("a\nb", "bad_request"),
    ],
)  # fmt: skip
def test_errors_leave_the_connection_on(phone: Phone, host: Server, method: str, code: str) -> None:
    found, says = phone.call(method, data=1)
    assert found == code
    assert "hunter2" not in says
    assert phone.call("echo", data=1) == 1


def test_time_that_is_up(phone: Phone) -> None:
    assert phone.call("hang", timeout_ms=50)[0] == "timeout"
    for bad in (0, -1):
        assert phone.call("echo", timeout_ms=bad)[0] == "bad_request"
    assert phone.call("echo", data=1, timeout_ms=10**9) == 1


def test_time_that_is_up_cancels_what_was_called(guarded: Server) -> None:
    phone = Phone(guarded, "json", token())
    before = phone.call("seen")
    assert phone.call("hang", timeout_ms=20)[0] == "timeout"
    while phone.call("seen")["cancelled"] == before.get("cancelled", 0):
        pass
    assert phone.call("seen")["began"] == before.get("began", 0) + 1
    phone.close()


def test_caller_that_goes_away_harms_nobody(guarded: Server) -> None:
    phone = Phone(guarded, "json", token())
    before = phone.call("seen").get("began", 0)
    with (
        WebSocket(guarded, token=token()) as one,
        WebSocket(guarded, packed=True, token=token()) as two,
        Http(guarded) as http,
    ):
        for wire in (one, two):
            wire.say(type="call", ref=1, method="hang", timeout_ms=300)
        body = json.dumps({"method": "hang", "timeout_ms": 300}).encode()
        http.send_request("POST", "/v1/call", headers=[bearer(token())], body=body)
        while phone.call("seen").get("began", 0) < before + 3:
            pass
    while (seen := phone.call("seen"))["began"] != seen.get("cancelled"):
        pass
    assert phone.call("echo", data=1) == 1
    phone.close()


def test_who_may_call_what(guarded: Server) -> None:
    text = token(someone(), can={"call": ["ec*"]})
    for way in WAYS:
        phone = Phone(guarded, way, text)
        assert phone.call("echo", data=way) == way
        assert phone.call("add", data=[1])[0] == "forbidden"
        assert phone.call("nothing")[0] == "forbidden"  # what there is, is not told to who may not
        phone.close()


def test_body_in_messagepack_is_answered_in_json(guarded: Server) -> None:
    body = msgspec.msgpack.encode({"method": "echo", "data": {"raw": b"\x01"}})
    with Http(guarded) as http:
        fields = [bearer(token()), ("Content-Type", "application/msgpack")]
        answer = http.request("POST", "/v1/call", headers=fields, body=body)
        assert answer.json() == {"data": {"raw": {"$bytes": "AQ=="}}}
