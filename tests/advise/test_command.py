"""The command ``tellwire advise``: flags, questions at a terminal, JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tellwire.advise import advise, load_rules
from tellwire.advise.rules import as_json
from tests.cli.commands import COMMAND, environment, run
from tests.serving import WATCHDOG_S

FLAGS = [
    "--speaks",
    "both",
    "--fresh",
    "soon",
    "--binary",
    "no",
    "--runs",
    "browsers",
    "--network",
    "unknown",
    "--readers",
    "some",
]


def test_flags_are_answered_without_a_question() -> None:
    done = run("advise", *FLAGS, "--url", "https://push.example.org/")
    assert done.returncode == 0
    assert done.stderr == ""
    for text in (
        "Take WebSocket.",
        "Else Long polling.",
        "- gRPC stream: A page cannot speak it",
        "Measured ",
        '    import { Tellwire } from "https://push.example.org/client/tellwire.js";',
    ):
        assert text in done.stdout
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_json_is_the_advice_with_its_figures(tmp_path: Path) -> None:
    done = run("advise", *FLAGS, "--json", XDG_STATE_HOME=str(tmp_path))
    answer = json.loads(done.stdout)
    figures = answer.pop("figures")
    given = dict(zip((flag.removeprefix("--") for flag in FLAGS[::2]), FLAGS[1::2], strict=True))
    assert answer == as_json(advise(load_rules(), given))
    assert figures["origin"] == "by a run that comes with Tellwire"
    assert figures["run"]["machine"]


def test_nobody_to_ask_is_told_which_flags_are_missing() -> None:
    done = run("advise", *FLAGS[:8])
    assert done.returncode == 2
    assert "there is nobody to ask here: give --network, --readers, too" in done.stderr


@pytest.mark.parametrize("url", ["push.example.org", "ftp://x", "http://", "http:// x", "-"])
def test_address_that_is_none_is_refused(url: str) -> None:
    done = run("advise", *FLAGS, "--url", url)
    assert done.returncode == 2
    assert "is no address of a server" in done.stderr


def test_terminal_is_asked_what_is_left_and_again_after_nonsense() -> None:
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [*COMMAND, "advise", *FLAGS[:6]],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    os.close(theirs)
    try:
        os.write(ours, b"7\nsoon\n2\n1\n3\n")  # services, open, many
        out, err = program.communicate(timeout=WATCHDOG_S)
    finally:
        os.close(ours)
        program.kill()
    assert program.returncode == 0
    assert "Take gRPC stream." in out
    assert "Who speaks?" not in err
    assert err.count("Who reads?") == 1
    assert err.count("Which [") + err.count("Which:") == 5  # twice more for what was no answer
    assert "Ten thousand and more" in err
