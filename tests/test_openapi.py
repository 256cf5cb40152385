"""The description of the HTTP side: it is valid, names everything, and real answers are as it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Mount, Route

from tellwire.brokers.memory import MemoryBroker
from tellwire.errors import InvalidChannel, error_classes
from tellwire.limits import Limits
from tellwire.message import Position
from tellwire.names import check_channel
from tellwire.node import Node
from tellwire.openapi import document
from tellwire.protocol.commands import Call, Presence, Publish, Send
from tellwire.server import make_app
from tests.serving import ROOT, WATCHDOG_S, Server
from tests.wires import Http, Response

METHODS = ("get", "head", "post")


@cache
def described() -> dict[str, Any]:
    return document()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in described()["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def check(schema: dict[str, Any], value: Any) -> None:
    """Hold a value against a schema of the document."""
    Draft202012Validator({**schema, "components": described()["components"]}).validate(value)


def check_answer(method: str, path: str, answer: Response) -> Any:
    """Hold an answer against what the document says of it; return its JSON."""
    responses = described()["paths"][path.partition("?")[0]][method.lower()]["responses"]
    response = responses[str(answer.status)]
    if "$ref" in response:
        response = described()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    kind = answer.headers["content-type"].partition(";")[0]
    value = answer.json()
    check(response["content"][kind]["schema"], value)
    return value


def test_document_is_valid() -> None:
    for options in ({}, {"prefix": "/rt", "jsonp": True, "cookie": "sid", "limits": Limits(poll_wait_max_s=5)}):
        OpenAPIV31SpecValidator(document(**options)).validate()  # type: ignore[arg-type]
        json.dumps(document(**options))  # type: ignore[arg-type]


def test_every_schema_is_one() -> None:
    for schema in described()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


PAGES = {"/", "/advise", "/doctor"}
"""What is for people, with its data."""


def test_every_endpoint_is_described() -> None:
    known = {(path, method) for path, method, _ in operations()}
    served = set()
    for route in make_app(Node(MemoryBroker())).routes:
        path: str = route.path  # type: ignore[attr-defined]
        if isinstance(route, Mount) or path in PAGES or path.startswith("/advise/"):
            continue
        assert path in described()["paths"], path
        served.add(path)
        if isinstance(route, Route) and route.methods is not None:
            assert {(path, method.lower()) for method in route.methods - {"HEAD"}} <= known
    assert set(described()["paths"]) == served


def test_operations_have_names_of_their_own() -> None:
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in described()["tags"]}
    assert all(set(operation["tags"]) <= tags for _, _, operation in operations())


def test_every_error_is_described_where_it_can_happen() -> None:
    described_codes = {
        code
        for name, response in described()["components"]["responses"].items()
        for code in re.findall(r"`(\w+)`: ", response["description"])
        if name.startswith("Problem")
    }
    assert described_codes == set(error_classes())


@pytest.mark.parametrize(
    ("command", "name"), [(Publish, "PublishBody"), (Presence, "PresenceBody"), (Send, "SendBody"), (Call, "CallBody")]
)
def test_bodies_have_the_fields_of_their_commands(command: Any, name: str) -> None:
    body = described()["components"]["schemas"][name]
    assert set(command.__struct_fields__) - {"ref"} <= set(body["properties"])
    assert set(body["required"]) <= set(body["properties"])
    assert not {"type", "ref"} & set(body["properties"]), "these are for WebSockets"


CHANNEL = described()["components"]["schemas"]["PublishBody"]["properties"]["channel"]


@given(st.text(min_size=1, max_size=20) | st.from_regex(r"[A-Za-z0-9_.:/@=+~#$! -]{1,300}", fullmatch=True))
def test_channels_are_those_that_the_server_takes(name: str) -> None:
    says = Draft202012Validator(CHANNEL).is_valid(name) and not name.endswith("\n")
    try:
        check_channel(name)
    except InvalidChannel:
        assert not says
    else:
        assert says


@given(
    st.builds(Position, st.from_regex(r"[A-Za-z0-9]{1,32}", fullmatch=True).filter(str.isascii), st.integers(0, 2**62))
)
def test_positions_are_those_that_the_server_gives(position: Position) -> None:
    check(described()["components"]["schemas"]["Placed"], {"position": str(position), "duplicate": False})


def test_prefix_and_settings_are_in_the_document() -> None:
    mounted = document(prefix="/rt", cookie="sid")
    assert mounted["servers"] == [{"url": "/rt"}]
    assert mounted["components"]["securitySchemes"]["cookie"]["name"] == "sid"
    asked = {parameter["name"] for parameter in mounted["paths"]["/v1/messages"]["get"]["parameters"]}
    assert "callback" not in asked
    asked = {each["name"] for each in document(jsonp=True)["paths"]["/v1/messages"]["get"]["parameters"]}
    assert "callback" in asked


# Real answers


def post(server: Server, path: str, body: Any) -> Any:
    with Http(server) as wire:
        return check_answer("POST", path, wire.request("POST", path, body=json.dumps(body).encode()))


def get(server: Server, path: str) -> Any:
    with Http(server) as wire:
        return check_answer("GET", path, wire.get(path))


def test_document_is_served_with_the_servers_own_bounds(start_server: Callable[..., Server]) -> None:
    server = start_server(limits={"poll_wait_max_s": 5}, auth={"token_cookie": "sid"})
    limits = Limits(poll_wait_max_s=5, drain_s=0.1)
    assert get(server, "/openapi.json") == document(limits=limits, cookie="sid")


def test_publishes_and_pages_are_as_described(server: Server) -> None:
    placed = post(server, "/v1/messages", {"channel": "described", "data": {"x": 1}, "id": "one"})
    assert post(server, "/v1/messages", {"channel": "described", "data": 2, "id": "one"})["duplicate"]
    assert post(server, "/v1/messages", {"channel": "described", "data": 1, "ephemeral": True})["position"] is None
    many = post(
        server, "/v1/messages", [{"channel": "described", "data": 1, "key": "k"}, {"channel": "no..pe", "data": 1}]
    )
    assert many[1]["error"]["code"] == "invalid_channel"
    page = get(server, f"/v1/messages?channel=described&since={placed['position']}")
    assert [message["data"] for message in page["messages"]] == [1]
    gap = get(server, "/v1/messages?channel=described&since=other.5")["gap"]
    assert gap["reason"] == "epoch"


def test_errors_are_as_described(server: Server) -> None:
    assert get(server, "/v1/messages")["code"] == "bad_request"
    assert post(server, "/v1/messages", {"channel": "a b", "data": 1})["code"] == "invalid_channel"
    stale = {"channel": "described", "data": 1, "expect": "other.5"}
    assert "head" in post(server, "/v1/messages", stale)
    assert post(server, "/v1/call", {"method": "nothing"})["code"] == "not_found"
    assert get(server, "/v1/ws")["code"] == "upgrade_required"


def test_presence_and_signals_are_as_described(server: Server) -> None:
    for session in ("first", "second"):
        members = post(server, "/v1/presence", {"channel": "lobby", "session": session, "enter": True, "state": [1]})
    assert members["clients"] == 2
    assert get(server, "/v1/presence?channel=lobby")["users"] >= 0
    others = [member["client"] for member in members["members"] if member["client"] != members["client"]]
    sent = post(server, "/v1/send", {"channel": "lobby", "session": "second", "to": others[0], "data": "psst"})
    assert sent["position"]
    inbox = get(server, "/v1/messages?channel=lobby&presence=watch&session=first&since=earliest")
    assert inbox["cursor"]


def test_what_operators_see_is_as_described(server: Server) -> None:
    assert get(server, "/v1/admin/stats")["node"]
    with Http(server) as reader:
        reader.send_request("GET", "/v1/events?channel=watched")
        reader.read_head()
        assert get(server, "/v1/admin/connections?channel=watched")["connections"][0]["transport"] == "sse"
        assert get(server, "/v1/admin/channels?prefix=watched")["channels"][0]["channel"] == "watched"
        assert post(server, "/v1/admin/publish", {"channel": "watched", "data": 1})["position"]
        assert post(server, "/v1/admin/disconnect", {"user": "nobody-at-all"}) == {"connections": 0, "unanswered": []}
        assert post(server, "/v1/admin/disconnect", {})["code"] == "bad_request"


def test_health_is_as_described(server: Server) -> None:
    assert get(server, "/healthz")["status"] == "ok"
    assert get(server, "/readyz")["ready"] is True
    with Http(server) as wire:
        answer = wire.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "tellwire_connections" in answer.body.decode()


def test_generated_client_publishes_and_reads(server: Server, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(described()))
    run(
        tmp_path,
        *("-m", "openapi_python_client", "generate", "--path", "openapi.json"),
        *("--meta", "none", "--output-path", "generated"),
    )
    said = run(tmp_path, str(ROOT / "tests" / "generated_client.py"), "generated", str(server.port))
    assert json.loads(said) == {
        "ready": True,
        "kinds": ["Placed", "Placed", "Placed", "NotPlaced", "Problem", "Page", "MessagePush", "MessagePush"],
        "is_same": True,
        "codes": ["invalid_channel", "invalid_channel"],
        "data": [{"text": "hi"}, 2],
        "is_whole": True,
    }


def run(folder: Path, *arguments: str) -> str:
    """Run Python on something, in a folder whose packages it can import; return what it said."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=WATCHDOG_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
