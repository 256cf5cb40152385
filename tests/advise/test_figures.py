"""The figures behind an advice: from which run they are, and what becomes of files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tellwire.advise import SHIPPED, figures_of, last_run, load_rules
from tests.cli.commands import run

ANSWERS = [
    "--speaks",
    "server",
    "--fresh",
    "soon",
    "--binary",
    "no",
    "--runs",
    "browsers",
    "--network",
    "open",
    "--readers",
    "some",
]

RUN: dict[str, Any] = {
    "compare": 1,
    "started_at": "2026-01-02T03:04:05Z",
    "machine": {"cpu": "Some CPU", "cores": 4, "load_average": 0.1},
    "transports": {
        "sse": {
            "status": "measured",
            "connect_ms": {"median": 1.9},
            "latency_ms": {"p50": 0.71234, "p99": 1900},
            "bytes": [
                {"payload_bytes": 16, "down": {"total": 1}, "up": {"total": 2}},
                {"payload_bytes": 128, "down": {"total": 173.2}, "up": {"total": 0}},
            ],
            "readers": [{"readers": 50, "cpu_us_per_delivery": None}],
        },
        "websocket": {"status": "absent"},
    },
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep state in a folder of the test's own; return where the last run is to be."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    last_run().parent.mkdir()
    return last_run()


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**RUN, **changes}))
    return path


def test_figures_are_written_with_their_units_and_nothing_that_was_not_measured(tmp_path: Path) -> None:
    figures = figures_of(write(tmp_path / "here.json"))
    assert figures is not None
    assert figures.about == "by the run in here.json: 4 cores of Some CPU, 2026-01-02"
    assert figures.lines(load_rules(), "sse") == [
        ("connect", "1.9 ms"),
        ("half come within", "0.712 ms"),
        ("99 % within", "1,900 ms"),
        ("down, for 128 B", "173 B"),
        ("up", "0 B"),
    ]
    assert figures.lines(load_rules(), "websocket") == []
    assert figures.lines(load_rules(), "grpc") == []


def test_busy_machine_is_told(tmp_path: Path) -> None:
    machine = {**RUN["machine"], "load_average": 7.5}
    figures = figures_of(write(tmp_path / "here.json", machine=machine))
    assert figures is not None
    assert "4 cores of Some CPU, of which other programs took their part (load average 7.5), 2026" in figures.about


def test_last_run_comes_before_the_one_that_is_shipped(state: Path) -> None:
    shipped = figures_of(None)
    assert shipped is not None
    assert shipped.origin == "by a run that comes with Tellwire"
    write(state)
    kept = figures_of(None)
    assert kept is not None
    assert kept.about.startswith("here, by the last tellwire compare: 4 cores")
    assert figures_of(None, "sse") == kept
    other = figures_of(None, "sse", "websocket")
    assert other is not None
    assert other.document == shipped.document
    assert other.origin == "by a run that comes with Tellwire, since the last one here is not of both"
    state.write_text("{half of it")
    assert figures_of(None) == shipped


def test_shipped_run_is_whole_and_names_its_machine() -> None:
    shipped = json.loads(SHIPPED.read_text())
    assert shipped["ended"] == "complete"
    assert shipped["machine"]["cpu"]
    assert shipped["machine"]["cores"]
    rules = load_rules()
    figures = figures_of(SHIPPED)
    assert figures is not None
    measured = [key for key, found in shipped["transports"].items() if found["status"] == "measured"]
    assert {"poll", "longpoll", "sse", "ndjson", "websocket"} <= {*measured}
    for transport in {each.key for each in rules.transports} & {*measured}:
        names = [name for name, _ in figures.lines(rules, transport)]
        assert names == [figure.name for figure in rules.figures], transport


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "cannot be read as JSON"),
        ("[1]", "was not written by this version's `tellwire compare --json`"),
        ('{"compare": 2, "transports": {}}', "was not written by this version's `tellwire compare --json`"),
        ('{"compare": 1, "transports": []}', "was not written by this version's `tellwire compare --json`"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_file_that_is_no_run_is_refused_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    done = run("advise", *ANSWERS, "--figures", str(path))
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_figures_of_odd_kinds_are_passed_over(tmp_path: Path) -> None:
    odd = {"connect_ms": 7, "latency_ms": {"p50": "fast", "p99": True}, "bytes": {}, "readers": [None, 5]}
    figures = figures_of(write(tmp_path / "odd.json", transports={"sse": odd, "poll": None}, machine=None))
    assert figures is not None
    assert figures.lines(load_rules(), "sse") == []
    assert figures.lines(load_rules(), "poll") == []
    assert "a processor that did not tell its name" in figures.about
