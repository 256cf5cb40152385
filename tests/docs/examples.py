"""The examples in the documentation: found by their marks, run against a real server, compared with what is shown.

``<!-- run -->`` stands before a block of ``console``: lines that begin with ``$`` are commands for a shell, those under
each are its output. A command with ``curl -N`` is read for as many lines as are shown, then ended. Before a ``python``
block it runs the program, whose output is shown in the block after ``<!-- output -->``; ``<!-- run until shown -->``
is for a program that would go on, and is ended when it has written that much. ``<!-- run in background -->`` starts a
reader that goes on while the rest of the page is run.

``<!-- file talk.html -->`` stands before a whole file, for a test of its own to save and use.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

DONE = "-- the command is done --"

_BLOCK = re.compile(
    r"^<!-- (?P<mark>run in background|run until shown|run|output) -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_FILE = r"^<!-- file {} -->\n```\w+\n(.*?)^```$"
_VOLATILE = [
    (re.compile(r"\b[a-z0-9]{8}\.(\d+)"), r"EPOCH.\1"),
    (re.compile(r'"epoch":"[a-z0-9]{8}"'), '"epoch":"EPOCH"'),
    (re.compile(r'"(time|entered)":\d+'), r'"\1":TIME'),
    (re.compile(r'"(client|session)":"[^"]*"'), r'"\1":"RANDOM"'),
    (re.compile(r"\d\d:\d\d:\d\d"), "CLOCK"),
]


class Example(NamedTuple):
    """One command, or one program, and what it writes; ``line`` is where it stands in its page."""

    kind: str  # run, background, python or endless
    text: str
    output: str
    line: int


def examples(page: Path) -> list[Example]:
    """Find the marked examples of a page, in their order."""
    text = page.read_text()
    found: list[Example] = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        body = match["text"]
        if match["mark"] == "output":
            found[-1] = found[-1]._replace(output=body)
        elif match["language"] == "python":
            found.append(Example("endless" if "until" in match["mark"] else "python", body, "", line))
        else:
            kind = "background" if "background" in match["mark"] else "run"
            for command in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                first, _, output = command.partition("\n")
                found.append(Example(kind, first, output, line))
    return found


def file(page: Path, name: str) -> str:
    """Return the text of a file that a page shows."""
    match = re.search(_FILE.format(re.escape(name)), page.read_text(), re.DOTALL | re.MULTILINE)
    assert match is not None, f"{page.name} shows no file {name}"
    return match[1]


def unvolatile(text: str) -> str:
    """Put words in place of what is another in each run."""
    for pattern, word in _VOLATILE:
        text = pattern.sub(word, text)
    return text


class Runner:
    """Runs a page's examples in one shell; to be used as a context manager.

    Args:
        port: Where the server listens that the examples know as 127.0.0.1:8000.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._environment = {
            **os.environ,
            "TELLWIRE_URL": f"http://127.0.0.1:{port}",
        }
        self._shell = self._start(["bash"])
        self._background: list[tuple[Example, subprocess.Popen[str], str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._shell, *(process for _, process, _ in self._background)):
            _end(process)

    def run(self, example: Example) -> str:
        """Run one example; return what it wrote, as far as its page shows."""
        text = example.text.replace("127.0.0.1:8000", f"127.0.0.1:{self._port}")
        text = text.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
        if example.kind == "python":
            done = subprocess.run(
                [sys.executable, "-c", text], env=self._environment, capture_output=True, text=True, check=False
            )
            return done.stdout + done.stderr
        if example.kind == "endless":
            return self._read_and_end([sys.executable, "-u", "-c", text], example)
        if example.kind == "background" or re.search(r"\bcurl\b.* -N\b|/tellwire (sub|tail)\b", text):
            command = ["bash", "-c", f"exec {text}"]
            if example.kind != "background":
                return self._read_and_end(command, example)
            process = self._start(command)
            self._background.append((example, process, _read(process, 1)))
            return example.output
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{text}\necho; echo '{DONE}'\n")
        self._shell.stdin.flush()
        output = "".join(iter(self._line, f"{DONE}\n"))
        # The answers of curl have no line end of their own; the shell's echo gives them one.
        return output.removesuffix("\n") if output.endswith("\n\n") or output == "\n" else output

    def finish(self) -> Iterator[tuple[Example, str]]:
        """Return the examples in the background with all that they wrote."""
        for example, process, begun in self._background:
            yield example, begun + _read(process, example.output.count("\n") - begun.count("\n"))

    def _read_and_end(self, command: list[str], example: Example) -> str:
        """Read as many lines as the example shows of what would go on."""
        process = self._start(command)
        try:
            return _read(process, example.output.count("\n"))
        finally:
            _end(process)

    def _line(self) -> str:
        assert self._shell.stdout is not None
        line: str = self._shell.stdout.readline()
        assert line, "the shell has ended"
        return line

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def _read(process: subprocess.Popen[str], lines: int) -> str:
    """Read so many lines; heartbeats, which come whenever it is time for them, are not among them."""
    assert process.stdout is not None
    found: list[str] = []
    while len(found) < lines and (line := process.stdout.readline()):
        if line == ": \n":
            process.stdout.readline()  # the empty one behind it
        elif not line.startswith('{"type":"heartbeat"'):
            found.append(line)
    return "".join(found)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
