"""Trace contexts: from the publisher to every reader, and what is none is left out."""

from __future__ import annotations

import json

import pytest

from tests.readers import READERS
from tests.serving import Server
from tests.wires import Http, WebSocket

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-00"


@pytest.mark.parametrize("kind", READERS)
def test_trace_of_a_publish_reaches_every_reader(any_server: Server, channel: str, kind: str) -> None:
    with READERS[kind](any_server, channel) as reader, Http(any_server) as http, WebSocket(any_server) as wire:
        header = [("traceparent", TRACE)]
        http.post("/v1/messages", {"channel": channel, "data": 1}, headers=header)
        http.post("/v1/messages", {"channel": channel, "data": 2, "trace": OTHER}, headers=header)
        items = [{"channel": channel, "data": 3}, {"channel": channel, "data": 4, "trace": OTHER}]
        http.post("/v1/messages", items, headers=header)
        wire.ask(type="publish", channel=channel, data=5, trace=TRACE)
        wire.ask(type="publish", channel=channel, data=6)
        seen = [reader.read().get("trace") for _ in range(6)]
        assert seen == [TRACE, OTHER, TRACE, OTHER, TRACE, None]


@pytest.mark.parametrize(
    "trace", ["", "nonsense", TRACE.upper(), f"{TRACE}-more", f"00-{'0' * 32}-00f067aa0ba902b7-01"]
)
def test_trace_that_is_none_is_left_out_and_the_publish_goes_on(server: Server, channel: str, trace: str) -> None:
    with Http(server) as http:
        message = {"channel": channel, "data": 1}
        assert http.post("/v1/messages", message, headers=[("traceparent", trace)]).status == 200
        assert http.post("/v1/messages", {**message, "trace": trace}).status == 200
        page = http.get(f"/v1/messages?channel={channel}&since=earliest").json()
        assert ["trace" in message for message in page["messages"]] == [False, False]
        assert json.dumps(page).count("data") == 2
