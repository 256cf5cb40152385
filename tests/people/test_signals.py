"""Direct messages: from every wire to every other, once, in order, and to nobody else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tellwire.node.callers import client_name
from tests.guarded import bearer, someone, token
from tests.readers import READERS, Reader
from tests.serving import Server
from tests.wires import Http, WebSocket

SENDERS = ("post", "json", "msgpack")


class Sender:
    """A member that sends, over one wire."""

    def __init__(self, server: Server, way: str, user: str, channel: str) -> None:
        self.way = way
        self._text, self._session = token(user), f"session of {user}"
        self.client = client_name(user, self._session)
        self.channel = channel
        self._http = Http(server)
        self._wire: WebSocket | None = None
        if way != "post":
            self._wire = WebSocket(server, packed=way == "msgpack", token=self._text)
            self._wire.ask(type="connect", session=self._session)
            self._wire.ask(type="presence", channel=channel, enter=True)

    def send(self, to: str, data: Any, **fields: Any) -> dict[str, Any]:
        """Send; return the answer, or the error with its code."""
        command = {"channel": self.channel, "to": to, "data": data, **fields}
        if self._wire is not None:
            while (push := self._wire.ask(type="send", **command))["type"] not in ("sent", "error"):
                pass
            return push
        enter = {"channel": self.channel, "session": self._session, "enter": True}
        assert self._http.post("/v1/presence", enter, headers=[bearer(self._text)]).status == 200
        kind = ("Content-Type", "application/msgpack")
        body = msgspec.msgpack.encode({"session": self._session, **command})
        answer = self._http.request("POST", "/v1/send", headers=[bearer(self._text), kind], body=body)
        return {"type": "sent" if answer.status == 200 else "error", **answer.json()}

    def close(self) -> None:
        self._http.close()
        if self._wire is not None:
            self._wire.close()


def read_signals(reader: Reader, count: int) -> list[dict[str, Any]]:
    """Read signals, past who comes and goes."""
    signals: list[dict[str, Any]] = []
    while len(signals) < count:
        push = reader.read()
        if push["type"] == "signal":
            signals.append(push)
        else:
            assert push["type"] in ("join", "update", "leave"), push
    return signals


@pytest.mark.parametrize("way", SENDERS)
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["direct", "hypercorn"])
def test_signals_come_once_and_in_order(
    patient_servers: Callable[[str], Server], kind: str, name: str, way: str, channel: str
) -> None:
    server = patient_servers(kind)
    user, session = someone(), "an inbox"
    client = client_name(user, session)
    with (
        contextlib.closing(Sender(server, way, someone(), channel)) as sender,
        READERS[name](server, channel, token=token(user), session=session, presence="enter") as reader,
        READERS["sse"](server, channel, token=token(user), session="another", presence="enter") as other,
        READERS["stream"](server, channel, token=token(someone()), session=session, presence="enter") as thief,
    ):
        raw = {"$bytes": "AAH/"}
        for number in range(4):
            sent = sender.send(client, number, id=f"id{number}", event="offer")
            assert (sent["type"], sent["duplicate"]) == ("sent", False), sent
            assert sender.send(client, "again", id=f"id{number}")["duplicate"] is True
        sender.send(client, {"raw": raw if way == "json" else b"\x00\x01\xff"})
        signals = read_signals(reader, 5)
        assert [signal["data"] for signal in signals[:4]] == [0, 1, 2, 3]
        assert signals[4]["data"] == {"raw": b"\x00\x01\xff" if name == "msgpack" else raw}
        assert [signal["id"] for signal in signals] == ["id0", "id1", "id2", "id3", ""]
        assert {signal["event"] for signal in signals[:4]} == {"offer"}
        assert {signal["from"] for signal in signals} == {sender.client}
        assert {signal["channel"] for signal in signals} == {channel}
        assert [signal["seq"] for signal in signals] == sorted({signal["seq"] for signal in signals})
        # Neither the user's other client gets any of it, nor somebody who took the session.
        with WebSocket(server, token=token()) as wire:
            wire.ask(type="publish", channel=channel, data="after")
        for each in (other, thief):
            while (push := each.read())["type"] != "message":
                assert push["type"] in ("join", "update", "leave"), push


@pytest.mark.parametrize("way", SENDERS)
def test_who_may_not_send(patient: Server, way: str, channel: str) -> None:
    with contextlib.closing(Sender(patient, way, someone(), channel)) as sender:
        assert sender.send("nobody", 1)["code"] == "not_found"
        assert sender.send(sender.client, 1)["type"] == "sent"  # to itself it may
        refused: list[tuple[dict[str, Any], str]] = [
            ({"to": ""}, "bad_request"),
            ({"event": "closing"}, "bad_request"),
            ({"id": ""}, "bad_request"),
            ({"channel": "$client:x"}, "invalid_channel"),
        ]
        for fields, code in refused:
            assert sender.send(**{"to": sender.client, "data": 1, **fields})["code"] == code
        if way != "post":
            sender.channel = f"{channel}/elsewhere"
            assert sender.send(sender.client, 1)["code"] == "forbidden"
    with Http(patient) as http:
        body = {"channel": channel, "session": "never entered", "to": sender.client, "data": 1}
        assert http.post("/v1/send", body, headers=[bearer(token())]).code == "forbidden"


@pytest.mark.parametrize("name", READERS)
def test_inbox_is_resumed_on_any_other_wire(patient: Server, name: str, channel: str) -> None:
    user, session = someone(), "the same"
    client = client_name(user, session)
    settings: dict[str, Any] = {"token": token(user), "session": session, "presence": "enter"}
    with contextlib.closing(Sender(patient, "json", someone(), channel)) as sender:
        # Held by a lease as well, so that it is still a member when the connection is cut.
        with Http(patient) as http:
            enter = {"channel": channel, "session": session, "enter": True}
            assert http.post("/v1/presence", enter, headers=[bearer(token(user))]).status == 200
        with READERS["sse"](patient, channel, **settings) as reader:
            sender.send(client, "first")
            assert [signal["data"] for signal in read_signals(reader, 1)] == ["first"]
            cursor = reader.cursor
            # While it reads over that wire, nothing was missed; then it is cut.
        assert sender.send(client, "meanwhile")["type"] == "sent"
        with READERS[name](patient, channel, since=cursor, **settings) as reader:
            sender.send(client, "afterwards")
            assert [signal["data"] for signal in read_signals(reader, 2)] == ["meanwhile", "afterwards"]
