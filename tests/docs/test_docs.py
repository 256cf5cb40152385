"""The documentation names everything that there is, and its links lead somewhere."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import click
import msgspec
import pytest
from starlette.routing import Mount, Route, WebSocketRoute

from docs import cli_page
from tellwire.auth import Operation
from tellwire.brokers import BROKERS
from tellwire.brokers.memory import MemoryBroker
from tellwire.cli import main as cli
from tellwire.config import namespace_settings, settings
from tellwire.errors import CloseCode, error_classes
from tellwire.limits import Limits
from tellwire.names import Namespaces
from tellwire.node import RESERVED_EVENTS, Node
from tellwire.protocol.commands import COMMANDS, Publish
from tellwire.protocol.pushes import PUSHES
from tellwire.server import make_app
from tellwire.transports.requests import Query
from tests.serving import ROOT

REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for folder in ("docs", "spec", "bench") for page in (ROOT / folder).rglob("*.md")),
    ]
)


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next of its level."""
    level = heading.split()[0]
    found = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^{level} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"no heading {heading!r}"
    return found[1]


def slugs(text: str) -> set[str]:
    """Return the anchors that the headings of a page make (GitHub's way)."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("source", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(source: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", source.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (source.parent / path) if path else source
        assert file.exists(), f"{source.name} links to {target}"
        if anchor:
            assert anchor in slugs(file.read_text()), f"{source.name} links to {target}"


@pytest.mark.parametrize("source", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_says_to_install_what_is_on_no_index(source: Path) -> None:
    assert "pip install tellwire" not in source.read_text()


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        if path.name != "README.md" and path.parent.name != "decisions":
            assert f"({path.relative_to(ROOT / 'docs')})" in index or path.parent.name == "autobahn", path


def test_every_decision_is_in_their_list() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text()
    for path in folder.glob("0*.md"):
        number, _, title = path.read_text().splitlines()[0].removeprefix("# ").partition(" ")
        assert f"[{number}]({path.name}) | {title} |" in listed


def test_every_code_is_documented() -> None:
    text = page("codes.md")
    for code in error_classes():
        assert f"| `{code}` |" in text
    for close in CloseCode:
        assert f"| {int(close)} | `{close.name.lower()}` |" in text


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__struct_config__.tag)
def test_every_command_is_documented_with_its_fields(command: type[msgspec.Struct]) -> None:
    text = section(page("commands.md"), f"### {command.__struct_config__.tag}")
    for field in msgspec.structs.fields(command):
        assert field.name == "ref" or f"`{field.name}`" in text


@pytest.mark.parametrize("push", PUSHES, ids=lambda push: push.__struct_config__.tag)
def test_every_push_is_documented_with_its_fields(push: type[msgspec.Struct]) -> None:
    row = re.search(rf"^\| `{push.__struct_config__.tag}` \|.*$", page("commands.md"), re.MULTILINE)
    assert row is not None
    for field in msgspec.structs.fields(push):
        assert field.name == "ref" or f"`{field.encode_name}`" in row[0]


def test_every_endpoint_is_documented() -> None:
    text = page("endpoints.md")
    for route in make_app(Node(MemoryBroker())).routes:
        assert isinstance(route, Route | WebSocketRoute | Mount)
        assert re.search(rf"[` ]{re.escape(route.path)}`", text), route.path


def test_every_parameter_of_a_reading_is_documented() -> None:
    text = page("endpoints.md")
    source = "".join(
        (ROOT / "src" / "tellwire" / "transports" / f"{name}.py").read_text()
        for name in ("requests", "polling", "streams", "publishing", "websocket")
    )
    asked = set(re.findall(r'(?:query|self)\.(?:text|integer|seconds|flag|choice)\("(\w+)"', source))
    assert {"since", "last", "wait", "policy", "envelope", "presence", "callback"} <= asked
    for name in {*asked, "channel", "token"}:
        assert f"| `{name}` |" in text, name
    assert Query is not None


def test_every_field_of_a_publish_is_in_the_spec() -> None:
    text = section((ROOT / "spec" / "protocol.md").read_text(), "### 3.1 A message")
    for field in msgspec.structs.fields(Publish):
        assert field.name == "ref" or f"| `{field.name}` |" in text
    for name in RESERVED_EVENTS:
        assert f"`{name}`" in text


def test_the_spec_says_which_operations_there_are() -> None:
    text = section((ROOT / "spec" / "protocol.md").read_text(), "### 13.5 Permissions")
    for operation in get_args(Operation):
        assert f"| `{operation}` |" in text


def test_every_command_and_push_is_in_the_spec_with_its_fields() -> None:
    text = (ROOT / "spec" / "protocol.md").read_text()
    for kind in (*COMMANDS, *PUSHES):
        assert f"`{kind.__struct_config__.tag}`" in text or f" {kind.__struct_config__.tag}" in text
        for field in msgspec.structs.fields(kind):
            assert re.search(rf"`{field.encode_name}`|\"{field.encode_name}\"", text), (kind, field.encode_name)


def test_every_setting_is_documented() -> None:
    text = page("settings.md")
    for setting in settings():
        for name in (setting.key, setting.flag, setting.variable):
            assert name in text, name
    for setting in namespace_settings():
        assert setting.key in text
    for scheme in BROKERS:
        assert f"{scheme}://" in (ROOT / "docs" / "brokers.md").read_text()


def shown(name: str, value: float) -> str:
    """Write a limit's default as its page does."""
    if name.endswith("_bytes"):
        return f"{int(value) >> 20} MiB" if value >= 1 << 20 else f"{int(value) >> 10} KiB"
    return f"{value:g} s" if name.endswith("_s") and not name.endswith("_per_s") else f"{value:,.0f}"


def test_every_limit_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "limits.md").read_text()
    for field in fields(Limits):
        if field.name in ("deflate", "sse_retry_ms"):
            continue  # no bounds
        assert re.search(
            rf"^\| `{field.name}`( ★)? \| {shown(field.name, getattr(Limits, field.name))} \|", text, re.MULTILINE
        ), field
    for setting in namespace_settings():
        assert f"`{setting.key}`" in text or setting.key in ("ephemeral", "policy", "name"), setting.key


def test_limits_that_are_counted_are_marked() -> None:
    text = (ROOT / "docs" / "limits.md").read_text()
    source = "".join(path.read_text() for path in (ROOT / "src" / "tellwire").rglob("*.py"))
    counted = set(re.findall(r'(?:hit|_refusal)\(\s*"(\w+)"', source))
    assert {"connections_max", "connect_s"} <= counted
    for name in counted & {field.name for field in fields(Limits)}:
        assert f"| `{name}` ★ |" in text, name


def test_the_page_of_the_command_line_is_what_help_says() -> None:
    assert (REFERENCE / "cli.md").read_text() == cli_page.text(), "run make docs"


def test_every_command_has_help_for_newcomers() -> None:
    assert isinstance(cli, click.Group)
    for name, command in cli.commands.items():
        assert f"## tellwire {name}" in page("cli.md")
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, f"{name} {parameter.name}"


def test_namespaces_without_settings_are_those_of_the_default() -> None:
    # docs: "one whose namespace has no settings of its own" is in the default.
    namespaces = Namespaces()
    assert namespaces.of("anything:1") is namespaces.default
