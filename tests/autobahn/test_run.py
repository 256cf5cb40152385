"""What ``make autobahn`` makes of the machine and of the suite's reports; the suite itself is not run here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.autobahn import run
from tests.autobahn.run import Case, Report


def report_folder(folder: Path, **results: tuple[str, str]) -> Path:
    """Write what a fuzzing client leaves behind."""
    index = {}
    for number, (behavior, close) in results.items():
        name, file = number.removeprefix("case").replace("_", "."), f"{number}.json"
        (folder / file).write_text(json.dumps({"description": "Send <b>it</b>.\nThen wait."}))
        index[name] = {"behavior": behavior, "behaviorClose": close, "reportfile": file}
    (folder / "index.json").write_text(json.dumps({"tellwire": index}))
    return folder


def test_without_python27_says_what_to_install(tmp_path: Path) -> None:
    broken = tmp_path / "python2.7"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    where = {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)}
    ended = CliRunner().invoke(run.main, [], env=where)
    assert ended.exit_code == 2
    assert "there is no python2.7 on the PATH or under pyenv" in ended.stderr
    assert "--python27" in ended.stderr


def test_a_named_python_must_be_a_27() -> None:
    ended = CliRunner().invoke(run.main, ["--python27", os.devnull])
    assert ended.exit_code == 2
    assert ended.stderr == f"{os.devnull} is no Python 2.7 that runs.\n"


def test_pyenv_has_a_python27_that_the_path_has_not(tmp_path: Path) -> None:
    program = tmp_path / "versions" / "2.7.18" / "bin" / "python2.7"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nprintf 2.7\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.setenv("PYENV_ROOT", str(tmp_path))
        assert run.find_python27(None) == str(program)


@pytest.mark.parametrize(
    ("behavior", "close", "outcome"),
    [
        ("OK", "OK", "OK"),
        ("NON-STRICT", "OK", "NON-STRICT"),
        ("INFORMATIONAL", "INFORMATIONAL", "INFORMATIONAL"),
        ("OK", "WRONG CODE", "WRONG CODE"),
        ("UNIMPLEMENTED", "OK", "UNIMPLEMENTED"),
        ("FAILED", "UNCLEAN", "FAILED"),
    ],
)
def test_outcome_is_the_worse_of_behaviour_and_closing(behavior: str, close: str, outcome: str) -> None:
    assert Case("1.1.1", behavior, close, "").outcome == outcome


def test_report_is_read_in_full(tmp_path: Path) -> None:
    folder = report_folder(tmp_path, case6_4_3=("NON-STRICT", "OK"), case7_1_5=("OK", "UNCLEAN"))
    cases, missing = run.read_report(folder, ("6.4.3", "7.1.5"))
    assert missing == []
    assert cases[0] == Case("6.4.3", "NON-STRICT", "OK", "Send it . Then wait.")
    report = Report(cases, missing)
    assert [case.id for case in report.failed] == ["7.1.5"]
    assert [line.partition(". ")[0] for line in run.remarks(report)] == [
        "- 6.4.3: NON-STRICT",
        "- 7.1.5: OK, closing UNCLEAN",
    ]


def test_report_misses_cases_that_could_not_connect(tmp_path: Path) -> None:
    cases, missing = run.read_report(report_folder(tmp_path, case1_1_1=("OK", "OK")), ("1.1.1", "1.1.2", "1.1.3"))
    assert [case.id for case in cases] == ["1.1.1"]
    assert missing == [f"1.1.2, 1.1.3: no result; the suite's log is {tmp_path / 'log'}"]


def test_report_misses_all_of_a_client_that_did_not_end(tmp_path: Path) -> None:
    assert run.read_report(tmp_path, ("9.1.1",)) == ([], [f"9.1.1: no result; the suite's log is {tmp_path / 'log'}"])


def test_table_counts_by_group() -> None:
    cases = [Case("1.1.1", "OK", "OK", ""), Case("10.1.1", "OK", "WRONG CODE", "")]
    assert [[cell.strip() for cell in line.split("|")[3:-1]] for line in run.table(cases).splitlines()[2:]] == [
        ["1", "1", "0", "0", "0"],
        ["1", "0", "0", "0", "1"],
        ["2", "1", "0", "0", "1"],
    ]


def test_every_group_is_run() -> None:
    patterns = [pattern for patterns in run.case_lists(everything=False) for pattern in patterns]
    assert {pattern.split(".")[0] for pattern in patterns} == set(run.GROUPS)


def test_the_kept_summary_has_every_group_and_no_failure() -> None:
    text = run.PAGE.read_text()
    assert f"`autobahntestsuite` {run.pinned('autobahntestsuite')}" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["group", "-----", *run.GROUPS, "all"]
    assert all(row[-1] == "0" for row in rows[2:])
