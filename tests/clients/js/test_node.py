"""The JavaScript client's own tests, under Node's test runner."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.clients.js.conftest import CLIENT

FILES = sorted((CLIENT / "test").glob("*.test.js"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_node_runs(file: Path) -> None:
    done = subprocess.run(["node", "--test", str(file)], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
