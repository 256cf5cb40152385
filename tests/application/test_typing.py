"""What users of the types get to see: the package says that it has them, and wrong handlers are errors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import tellwire
from tests.serving import ROOT

TYPED = Path(__file__).parent / "typed_app.py"


def test_package_says_that_it_is_typed() -> None:
    assert (Path(tellwire.__file__).parent / "py.typed").is_file()


def test_wrong_handlers_are_type_errors_and_right_ones_are_not(tmp_path: Path) -> None:
    # The file says that its errors are none, so that it passes where the whole project is checked.
    text = TYPED.read_text().replace("# mypy: ignore-errors", "#", 1)
    checked = tmp_path / TYPED.name
    checked.write_text(text)
    expected = {
        (number, code)
        for number, line in enumerate(text.splitlines(), 1)
        for code in re.findall(r"# error: ([a-z-]+)$", line)
    }
    assert len(expected) > 10
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", str(checked)],
        env={"MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {(int(line), code) for line, code in re.findall(r":(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.M)}
    assert found == expected, done.stdout
