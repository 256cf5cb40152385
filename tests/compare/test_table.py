"""The tables in a terminal: what was not measured is said, and nothing is too wide for 80 columns."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from tellwire.advise import SHIPPED, figures_of
from tellwire.compare.comparison import Comparison
from tellwire.compare.options import Options
from tellwire.compare.table import print_result


def printed(found: dict[str, Any]) -> str:
    out = io.StringIO()
    print_result(found, Console(file=out, width=80))
    return out.getvalue()


def shipped() -> dict[str, Any]:
    figures = figures_of(SHIPPED)
    assert figures is not None
    return figures.document


def test_whole_run_fits_80_columns() -> None:
    text = printed(shipped())
    for wire in shipped()["transports"].values():
        assert sum(line.strip().startswith(wire["title"]) for line in text.splitlines()) == 4, wire["title"]


def test_what_was_left_out_is_said_with_its_reason() -> None:
    found = shipped()
    found["transports"]["grpc"] = {"title": "gRPC", "status": "unmeasured", "says": "--grpc says where it is"}
    found["transports"]["webrtc"] = {"title": "WebRTC", "status": "absent", "says": "the server does not have it"}
    text = printed(found)
    assert "gRPC: not measured: --grpc says where it is.\nWebRTC: the server does not have it.\n" in text


def test_what_ended_half_way_is_not_said_to_be_whole() -> None:
    found = shipped() | {"ended": "interrupted", "says": "it was stopped before the end"}
    found["transports"]["websocket"]["status"] = "unmeasured"
    found["transports"]["webrtc"] = {"title": "WebRTC", "status": "unmeasured", "says": "it was not reached"}
    text = printed(found).replace("\n", " ")
    assert "it was stopped before the end; not measured: the rest of WebSocket, JSON · WebRTC." in text
    nothing = Comparison(Options(transports=("sse",))).found
    assert printed(nothing) == "Nothing was measured: it was stopped before the end.\n"
