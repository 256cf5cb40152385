"""How a server goes: readers are told where they stand, and nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.readers import EventReader, LineReader, target
from tests.serving import Server
from tests.wires import Closed, Http, WebSocket, handshake_fields


def test_every_reader_is_told_and_the_server_ends_with_0(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server()
    position = server.publish(channel, 0)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(WebSocket(server, packed=packed)) for packed in (False, True)]
        streams = [stack.enter_context(reader(server, channel)) for reader in (EventReader, LineReader)]
        poll = stack.enter_context(Http(server))
        for wire in wires:
            assert wire.ask(type="subscribe", channel=channel)["type"] == "subscribed"
        poll.send_request("GET", target("/v1/messages", (channel,), {"since": position, "wait": 60}))
        assert poll.is_silent()

        server.terminate()
        for wire in wires:
            closing = wire.read()
            assert (closing["type"], closing["code"]) == ("closing", 1012)
            assert closing["reason"]
            assert closing["reconnect_in_ms"] >= 0
            assert wire.read_close()[0] == 1012
        for stream in streams:
            closing = stream.read()
            assert (closing["type"], closing["code"]) == ("closing", 1012)
            assert closing["reconnect_in_ms"] >= 0
            with pytest.raises(Closed):
                stream.read()
        page = poll.read_response().json()
        assert (page["messages"], page["cursor"], page["gap"]) == ([], position, None)
    assert server.wait() == 0
    assert "Traceback" not in server.log


def test_reader_that_does_not_answer_holds_nothing_up(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"drain_s": 0.1})
    with WebSocket(server) as silent, Http(server) as half, Http(server, receive_buffer=4096) as stalled:
        silent.ask(type="subscribe", channel=channel)
        half.send(b"GET /v1/messages?channel=a HTTP/1.1\r\nHo")
        stalled.send_request("GET", target("/v1/events", (channel,), {}))
        stalled.read_until(b"id: ")
        for _ in range(100):
            server.publish_all([{"channel": channel, "data": "x" * 1000}] * 50)
        server.terminate()
        assert server.wait() == 0


def test_new_connections_are_refused_while_it_drains(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"drain_s": 60})
    with contextlib.ExitStack() as stack:
        for _ in range(900):  # as many take seconds to drain
            stack.enter_context(WebSocket(server))
        http = stack.enter_context(Http(server))
        assert http.get("/readyz").json() == {"ready": True, "draining": False}
        server.terminate()
        while http.get("/readyz").status == 200:
            pass
        # The listener is closed; on a connection that is open still, the answer is that this node goes.
        assert http.get("/readyz").json() == {"ready": False, "draining": True}
        # What is under way is still done.
        assert http.post("/v1/messages", {"channel": channel, "data": 1}).status == 200
        for path, parameters in (("/v1/events", {}), ("/v1/stream", {}), ("/v1/messages", {"wait": 1})):
            answer = http.get(target(path, (channel,), parameters))
            assert (answer.status, answer.code) == (503, "draining")
        http.send_request("GET", "/v1/ws", headers=handshake_fields())
        answer = http.read_response()
        assert (answer.status, answer.code) == (503, "draining")
        with pytest.raises(ConnectionRefusedError):
            Http(server)
        server.interrupt()
    assert server.wait() == 0


def test_server_that_leaves_is_not_ready_and_goes_on_meanwhile(
    start_server: Callable[..., Server], channel: str
) -> None:
    server = start_server(limits={"drain_delay_s": 60})
    with WebSocket(server) as before, Http(server) as http:
        before.ask(type="subscribe", channel=channel)
        server.terminate()
        while http.get("/readyz").status == 200:
            pass
        with Http(server) as probe, WebSocket(server) as after:
            answer = probe.get("/readyz")
            assert (answer.status, answer.json()) == (503, {"ready": False, "draining": True})
            assert probe.get("/healthz").status == 200
            after.ask(type="subscribe", channel=channel)
            assert probe.post("/v1/messages", {"channel": channel, "data": 1}).status == 200
            assert before.read()["data"] == after.read()["data"] == 1
            server.interrupt()  # asked for twice, it is done at once
            assert server.wait() == 0


def test_server_that_has_left_drains(start_server: Callable[..., Server], channel: str) -> None:
    server = start_server(limits={"drain_delay_s": 0.1, "drain_s": 0.1})
    with WebSocket(server) as wire:
        wire.ask(type="subscribe", channel=channel)
        server.terminate()
        assert wire.read()["code"] == 1012
        assert wire.read_close()[0] == 1012
        with pytest.raises(ConnectionRefusedError):
            Http(server)
    assert server.wait() == 0


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_acknowledged_publishes_survive_on_sqlite(
    start_server: Callable[..., Server], channel: str, tmp_path: Path, end: str
) -> None:
    settings = {"server": {"broker": f"sqlite:///{tmp_path / 'log.db'}"}, "namespaces": [{"history_messages": 100_000}]}
    server = start_server(**settings)
    acknowledged: list[int] = []
    with WebSocket(server) as wire:
        epoch = wire.ask(type="connect")["epoch"]
        sent = 0
        try:
            while True:
                while sent < len(acknowledged) + 256:
                    wire.say(type="publish", ref=sent, channel=channel, data=sent)
                    sent += 1
                push = wire.read()
                if push["type"] == "published":
                    acknowledged.append(push["ref"])
                if len(acknowledged) == 1000:
                    getattr(server, end)()
        except (Closed, OSError):
            pass
    code = server.wait()
    assert code == (0 if end == "terminate" else -9)

    again = start_server(**settings)
    with LineReader(again, channel, since=f"{epoch}.0") as reader:
        assert reader.epoch == epoch
        again.publish(channel, "end")
        kept = []
        while (message := reader.read())["data"] != "end":
            assert message["type"] == "message"
            kept.append(message["data"])
    assert len(acknowledged) >= 1000
    assert acknowledged == list(range(len(acknowledged)))
    assert kept[: len(acknowledged)] == acknowledged
    assert kept == list(range(len(kept)))


def test_cursor_holds_over_a_restart_on_sqlite(
    start_server: Callable[..., Server], channel: str, tmp_path: Path
) -> None:
    settings = {"server": {"broker": f"sqlite:///{tmp_path / 'log.db'}"}}
    first = start_server(**settings)
    with EventReader(first, channel) as reader:
        first.publish_all([{"channel": channel, "data": number, "id": str(number)} for number in range(3)])
        assert reader.read_data(2) == [0, 1]
        cursor = reader.cursor
    assert first.stop() == 0
    second = start_server(**settings)
    with EventReader(second, channel, since=cursor) as reader:
        answer = second.publish(channel, 3)
        assert reader.read_data(2) == [2, 3]
        assert answer.split(".")[0] == cursor.split(".")[0]
    with Http(second) as http:
        again = http.post("/v1/messages", {"channel": channel, "data": 9, "id": "2"})
        assert json.loads(again.body)["duplicate"] is True


def test_cursor_of_a_log_in_memory_is_answered_with_a_gap_after_a_restart(
    start_server: Callable[..., Server], channel: str
) -> None:
    first = start_server()
    cursor = first.publish(channel, 0)
    first.stop()
    second = start_server()
    second.publish(channel, 1)
    with EventReader(second, channel, since=cursor) as reader:
        assert reader.read_gap()["reason"] == "epoch"
        assert reader.read_data(1) == [1]
