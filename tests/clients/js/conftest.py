"""The JavaScript client: in Node against real servers, and in a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import browser, complaints, context, page  # noqa: F401  # fixtures
from tests.clients.js.driver import Driver
from tests.serving import SHARED, Server

CLIENT = Path(__file__).parent.parent.parent.parent / "clients" / "js"


@pytest.fixture(scope="session", autouse=True)
def node() -> str:
    """Find Node; without it the tests are skipped, but in CI they fail."""
    path = shutil.which("node")
    if path is None:
        sentence = "there is no node here: install it with `sudo apt-get install nodejs npm`"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return path


@pytest.fixture(scope="session")
def client_tools(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install TypeScript beside a copy of the client; return the copy."""
    folder = tmp_path_factory.mktemp("client") / "js"
    shutil.copytree(CLIENT, folder, ignore=shutil.ignore_patterns("node_modules", "types", "*.tgz"))
    command = ["npm", "ci", "--silent", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    if done.returncode != 0:
        if os.environ.get("CI") == "true":
            pytest.fail(f"npm could not install TypeScript: {done.stderr[-2000:]}")
        pytest.skip("npm could not install TypeScript")
    return folder


class PatientServer(Server):
    """A server that is published to over a new connection each time.

    Between two publishes these tests wait for clients that come back: an idle connection may not last so long.
    """

    def publish_all(self, messages: list[dict[str, Any]]) -> list[str]:
        positions = super().publish_all(messages)
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        return positions


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Tellwire's own server, shared by the tests of this client."""
    server = PatientServer(**SHARED)
    yield server
    server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Driver]]:
    """Start clients; they end with the test."""
    started: list[Driver] = []

    def start(url: str, **options: Any) -> Driver:
        started.append(Driver(url, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()
