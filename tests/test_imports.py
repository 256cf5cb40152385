"""The rooms import only from those above them (ARCHITECTURE.md), and importing the package is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tellwire
from tests.serving import ROOT

SOURCE = ROOT / "src" / "tellwire"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "counters"),
    ("message", "names"),
    ("protocol",),
    ("runs", "tasks"),
    ("brokers",),
    ("log",),
    ("subscriber",),
    ("hub",),
    ("auth", "limits", "presence", "ice"),
    ("hooks",),
    ("node",),
    ("transports",),
    ("metrics", "telemetry", "openapi", "webhooks"),
    ("toml_lines", "advise"),
    ("config",),
    ("server",),
    ("workers",),
    ("application",),
    ("client",),
    ("compare",),
    ("console", "cli", "testing"),
    ("__main__",),
)
"""The rooms from the top down; those on one line do not know each other."""

LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}

TESTING_ONLY = {"testing"}
"""What nothing that runs in production may import."""


def rooms() -> list[str]:
    return sorted(
        path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__")
    )


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported_rooms(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every room that a module imports from, wherever the import stands, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            names = [node.module or ""]
            if node.module == "tellwire":
                names = [f"tellwire.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "tellwire" and len(parts) > 1 and not parts[1].startswith("__version"):
                yield parts[1], node.lineno


def arrows_upward(room: str, tree: ast.AST) -> list[str]:
    """Return what is wrong with a module's imports, given the room it is in."""
    faults = []
    for other, line in imported_rooms(tree):
        if other == room:
            continue
        if other not in LEVEL:
            faults.append(f"line {line}: there is no room {other}")
        elif LEVEL[other] >= LEVEL[room]:
            faults.append(f"line {line}: {room} may not import from {other}")
        elif other in TESTING_ONLY:
            faults.append(f"line {line}: {other} is for tests")
    return faults


def test_every_room_is_known() -> None:
    assert [room for room in rooms() if room not in LEVEL and room != "__init__"] == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_come_from_rooms_above(path: Path) -> None:
    tree = ast.parse(path.read_text())
    # Whoever only annotates with a type from further down may name it under TYPE_CHECKING: nothing is loaded.
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    if path == SOURCE / "__init__.py":
        assert list(imported_rooms(tree)) == [], "importing the package loads nothing else"
        return
    assert arrows_upward(room_of(path), tree) == []


@pytest.mark.parametrize(
    ("room", "line", "fault"),
    [
        ("names", "from tellwire.node import Node", "line 1: names may not import from node"),
        ("hub", "def f():\n    import tellwire.transports.sse", "line 2: hub may not import from transports"),
        ("names", "from tellwire.message import Message", "line 1: names may not import from message"),
        ("node", "from tellwire.helpers import x", "line 1: there is no room helpers"),
        ("node", "from tellwire import server", "line 1: node may not import from server"),
        ("__main__", "from tellwire.testing.model import x", "line 1: testing is for tests"),
    ],
)
def test_arrow_upward_is_found(room: str, line: str, fault: str) -> None:
    assert arrows_upward(room, ast.parse(line)) == [fault]


@pytest.mark.parametrize("room", ["brokers", "node", "protocol", "message"])
def test_core_rooms_load_neither_server_nor_client_libraries(room: str) -> None:
    loaded = loaded_by(f"import tellwire.{room}")
    assert loaded.isdisjoint({"uvicorn", "starlette", "httpx", "click", "rich", "sqlite3"})


def test_protocol_does_no_io() -> None:
    for path in (SOURCE / "protocol").glob("*.py"):
        names = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert names.isdisjoint({"asyncio", "socket", "time", "threading", "selectors", "random"}), path


def test_importing_the_package_is_light() -> None:
    loaded = loaded_by("import tellwire; tellwire.__version__")
    assert {name for name in loaded if name.startswith("tellwire")} == {"tellwire"}
    assert loaded.isdisjoint({"asyncio", "msgspec", "uvicorn", "starlette", "uvloop", "httpx", "click", "rich"})


def test_what_an_application_needs_is_loaded_when_it_is_named() -> None:
    named = "[getattr(tellwire, name) for name in tellwire.__all__]; assert {*tellwire.__all__} <= {*dir(tellwire)}"
    assert "tellwire.application" in loaded_by(f"import tellwire; {named}")
    assert "tellwire.application" in loaded_by("from tellwire import Tellwire")
    with pytest.raises(AttributeError, match="module 'tellwire' has no attribute 'Telwire'"):
        tellwire.Telwire  # type: ignore[attr-defined]  # noqa: B018


def test_commands_that_talk_to_a_server_do_not_load_one() -> None:
    assert loaded_by("import tellwire.cli").isdisjoint({"uvicorn", "starlette", "uvloop"})


def test_client_needs_only_the_language() -> None:
    for path in (SOURCE / "client").glob("*.py"):
        others = {room for room, _ in imported_rooms(ast.parse(path.read_text()))} - {"client"}
        assert others <= {"errors", "message", "names", "protocol"}, path


@pytest.mark.parametrize("room", ["server", "application", "client", "cli"])
def test_grpc_is_loaded_only_where_it_is_asked_for(room: str) -> None:
    assert {name.split(".")[0] for name in loaded_by(f"import tellwire.{room}")}.isdisjoint({"grpc", "google"})


def test_client_loads_nothing_of_a_server() -> None:
    loaded = loaded_by("import tellwire.client")
    rooms = {name.split(".")[1] for name in loaded if name.startswith("tellwire.")}
    assert rooms == {"client", "errors", "message", "names", "protocol"}
    libraries = {name.split(".")[0] for name in loaded}
    assert libraries.isdisjoint(
        {"uvicorn", "starlette", "uvloop", "jwt", "cryptography", "prometheus_client", "sqlite3"}
    )


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())
