"""The verbs need nothing typed first, and say in a sentence what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serving import ROOT, WATCHDOG_S

TOOLS = ("sh", "make", "mktemp", "id", "cat", "dirname", "touch", "rm", "tail")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a folder with few programs: a machine without Python, node, chromium or apt-get."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return folder


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def run(command: list[str], path: Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    # What make hands down to those it starts would change what it does itself.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment | {"PATH": str(path)} | variables,
        capture_output=True,
        text=True,
        timeout=WATCHDOG_S,
        check=False,
    )


def test_without_a_python_it_says_what_to_install(bare: Path, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    # A Python that is too old, or has no venv module, answers the question with a failure.
    program(bare, "python3", "exit 1")
    done = run(["make", "serve"], bare, tmp_path)
    assert done.returncode != 0
    assert "Tellwire needs Python 3.11 or newer" in done.stderr
    assert "sudo apt-get install python3 python3-venv" in done.stderr


def test_python_that_will_do_is_taken(bare: Path, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    program(bare, "python3", "exit 1")
    program(bare, "python3.12", 'echo "$@" >> asked')
    run(["make", "serve"], bare, tmp_path)
    assert "-m venv .venv" in (tmp_path / "asked").read_text()


def test_verb_without_a_name_lists_the_verbs(bare: Path) -> None:
    said = run(["make"], bare).stdout
    for verb in ("serve", "test", "lint", "bench", "docs", "soak", "autobahn", "clean"):
        assert f"make {verb} " in said


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_missing_packages_fail_only_under_ci(bare: Path, ci: str, code: int) -> None:
    done = run(["sh", "tests/system-packages.sh"], bare, CI=ci)
    assert done.returncode == code
    assert "there is no apt-get here to install them: chromium curl nodejs npm redis-server" in done.stderr


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_packages_that_nobody_may_install_are_named(bare: Path, ci: str, code: int) -> None:
    (bare / "id").unlink()
    program(bare, "id", "echo 1000")
    program(bare, "apt-get", "exit 1")
    for name in ("node", "npm", "curl"):
        program(bare, name, "exit 0")
    done = run(["sh", "tests/system-packages.sh"], bare, CI=ci)
    assert done.returncode == code
    assert "only root can install. Run: sudo apt-get install chromium" in done.stderr


def test_missing_packages_are_installed_by_root(bare: Path, tmp_path: Path) -> None:
    (bare / "id").unlink()
    program(bare, "id", "echo 0")
    program(bare, "apt-get", f'echo "$@" >> {tmp_path}/asked')
    assert run(["sh", "tests/system-packages.sh"], bare, CI="true").returncode == 0
    update, install = (tmp_path / "asked").read_text().splitlines()
    assert update == "update"
    assert install.startswith("install -y")
    # Some are looked for where only root's programs are, so this machine may have them.
    asked = set(install.split()) - {"nginx-light", "haproxy", "nats-server", "iproute2"}
    assert asked >= {"chromium", "curl", "nodejs", "npm", "redis-server", "coturn", "caddy"}


def test_installation_that_fails_shows_why(bare: Path) -> None:
    (bare / "id").unlink()
    program(bare, "id", "echo 0")
    program(bare, "apt-get", "echo E: no network; exit 100")
    done = run(["sh", "tests/system-packages.sh"], bare, CI="true")
    assert done.returncode == 1
    assert "E: no network" in done.stderr
    assert "apt-get could not install: chromium" in done.stderr


def test_ci_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")
