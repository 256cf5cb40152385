"""Schemathesis against a real server: whatever is asked, the answers are those that /openapi.json describes.

Left out are the two streams and the WebSocket, as their answers do not end (their HEAD, and a plain request, are
tried), and the checks for data that the schema refuses or takes: some rules stand between fields, and a parameter that
is empty counts as one that is missing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from tests.auth.signing import SECRET
from tests.serving import WATCHDOG_S, Server

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)

EXAMPLES = 10
"""Random requests for each operation, besides those that go through all its parameters."""

LIMITS = {"poll_wait_max_s": 0.01, "commands_per_s": 1_000_000, "publishes_per_s": 1_000_000}


def try_out(server: Server, folder: Path, *options: str) -> None:
    """Let Schemathesis ask everything, with what it keeps in `folder`."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run"),
            f"http://127.0.0.1:{server.port}/openapi.json",
            *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS)),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--warnings", "off", "--continue-on-failure"),
            *("--exclude-operation-id", "readEvents", "--exclude-operation-id", "readLines"),
            *("--exclude-path", "/v1/admin/drain"),  # it ends the server
            *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=WATCHDOG_S * 2,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in server.log


def test_answers_are_as_described(start_server: Callable[..., Server], tmp_path: Path) -> None:
    try_out(start_server(limits=LIMITS), tmp_path)


@pytest.mark.parametrize(
    "can",
    [None, {}, {"subscribe": ["*"], "publish": ["0*"], "presence": ["*0"], "call": [], "admin": ["stats"]}],
    ids=["no token", "nothing", "some"],
)
def test_answers_are_as_described_for_those_who_may_not_do_all(
    start_server: Callable[..., Server], tmp_path: Path, can: dict[str, list[str]] | None
) -> None:
    key = tmp_path / "key"
    key.write_text(SECRET)
    server = start_server(limits=LIMITS, auth={"token_key_file": str(key)})
    token = jwt.encode({"sub": "alice", "can": can}, SECRET, "HS256")
    try_out(server, tmp_path, *(() if can is None else ("--header", f"Authorization: Bearer {token}")))
