"""Run the Autobahn WebSocket test suite against our frames: ``make autobahn``.

The suite is a Python 2.7 program. Its environment is made once, in ``.cache/autobahn27``; the server under test is
``tellwire.testing.echo``, in a process of its own on a free port of 127.0.0.1. A run of everything writes
docs/autobahn.md; a run of some (``--cases '6.*,7.*'``) only prints.

Exits with 0 where every case passed, 1 where one did not (or has no result), 2 where the suite cannot be run here.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "autobahn27"
PAGE = ROOT / "docs" / "autobahn.md"
REQUIREMENTS = HERE / "requirements.txt"

VIRTUALENV = "virtualenv==20.21.1"
"""The last one that makes environments of Python 2.7; it runs on ours, so that the 2.7 may lack pip."""

ACCELERATOR = "wsaccel==0.6.6"
"""Masks and checks UTF-8 in C. It is compiled here; without it group 9 takes six minutes in place of seven seconds."""

PROCESSES = 2
"""Fuzzing clients at once: one waits where the other computes."""

START_TIMEOUT_S = 30
MAX_SIZE_BYTES = 32 * 1024 * 1024  # the largest message of group 9 has 16 MiB

GROUPS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8",
    "7": "Closing",
    "9": "Limits and performance",
    "10": "Automatic fragmentation",
    "12": "Compression, different payloads",
    "13": "Compression, different parameters",
}
"""The suite's groups of cases. It has none numbered 8 or 11."""

QUICK = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
SAMPLE = ("1", "2", "3", "4", "5", "11")
"""Of the 18 message sizes in each subgroup of 12 and 13: small, larger, and one that is sent in fragments."""

PASSING = ("OK", "NON-STRICT", "INFORMATIONAL")

LISTER = """
import json, sys
from autobahntestsuite import case
from autobahntestsuite.caseset import CaseSet
suite = CaseSet(case.CaseSetname, case.CaseBasename, case.Cases, case.CaseCategories, case.CaseSubCategories)
print(json.dumps([[name for name in suite.parseSpecCases({"cases": [pattern]}) if name in suite.CasesIndices]
                  for pattern in json.loads(sys.argv[1])]))
"""
"""A Python 2.7 program that names the suite's cases for each pattern."""


class CannotRunError(Exception):
    """The suite cannot be run here; the text says why, and what to do."""


class Case(NamedTuple):
    """One case's result: how the peer behaved, how it closed, and what the suite says of it."""

    id: str
    behavior: str
    behavior_close: str
    about: str

    @property
    def outcome(self) -> str:
        """The worse of both behaviours, in the suite's words."""
        both = (self.behavior, self.behavior_close)
        failed = [each for each in both if each not in PASSING]
        return failed[0] if failed else max(both, key=PASSING.index)

    @property
    def group(self) -> str:
        return self.id.split(".")[0]

    @property
    def place(self) -> tuple[int, ...]:
        return tuple(int(number) for number in self.id.split("."))


class Report(NamedTuple):
    """What a run found; `missing` are sentences about cases that should have a result and have none."""

    cases: list[Case]
    missing: list[str]

    @property
    def failed(self) -> list[Case]:
        return [case for case in self.cases if case.outcome not in PASSING]


def case_lists(*, everything: bool) -> list[tuple[str, ...]]:
    """Return patterns of the cases to run, one list for each fuzzing client."""
    compressed = [f"{group}.{each}" for group, last in (("13", 7), ("12", 5)) for each in range(1, last + 1)]
    sizes = ("*",) if everything else SAMPLE
    return [*(tuple(f"{each}.{size}" for size in sizes) for each in compressed), ("9.*",), QUICK]


# The suite's environment


def find_python27(named: str | None) -> str:
    """Return the path of a Python 2.7.

    Raises:
        CannotRunError: There is none, or `named` is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = (
        [named]
        if named
        else [shutil.which("python2.7"), *map(str, sorted(pyenv.glob("versions/2.7.*/bin/python2.7"), reverse=True))]
    )
    for candidate in candidates:
        if candidate and _is_python27(candidate):
            return candidate
    if named:
        raise CannotRunError(f"{named} is no Python 2.7 that runs.")
    raise CannotRunError(
        "The Autobahn test suite is a Python 2.7 program, and there is no python2.7 on the PATH or under pyenv. "
        "Install one (pyenv install 2.7.18), or name one: make autobahn ARGS='--python27 /path/to/python2.7'"
    )


def _is_python27(path: str) -> bool:
    """Tell whether a program is a Python 2.7; pyenv puts some on the PATH that do not run."""
    try:
        asked = subprocess.run(
            [path, "-c", "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"],
            capture_output=True, timeout=START_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0 and asked.stdout == b"2.7"


def make_environment(python27: str) -> Path:
    """Return the environment of the suite, made anew where its requirements or its Python changed.

    Raises:
        CannotRunError: pip or virtualenv failed.
    """
    environment, stamp = CACHE / "env", CACHE / "installed"
    wanted = hashlib.sha256("\n".join((python27, VIRTUALENV, ACCELERATOR, REQUIREMENTS.read_text())).encode())
    if stamp.exists() and stamp.read_text() == wanted.hexdigest():
        return environment
    click.echo(f"making an environment for the suite with {python27} (once)")
    shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir(parents=True)
    (CACHE.parent / ".gitignore").write_text("*\n")
    maker = CACHE / "virtualenv"
    _install(sys.executable, "--target", str(maker), VIRTUALENV)
    _call([sys.executable, "-m", "virtualenv", "--quiet", "--no-periodic-update", "--python", python27,
           str(environment)], PYTHONPATH=str(maker))  # fmt: skip
    python = str(environment / "bin" / "python")
    _install(python, "--requirement", str(REQUIREMENTS))
    try:
        _install(python, "--no-deps", ACCELERATOR)
    except CannotRunError:
        click.echo(f"{ACCELERATOR} cannot be compiled here (it needs a C compiler): group 9 takes minutes without it")
    stamp.write_text(wanted.hexdigest())
    return environment


def _install(python: str, *arguments: str) -> None:
    _call([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments])


def _call(command: list[str], **variables: str) -> str:
    """Run a program to its end; returns what it prints.

    Raises:
        CannotRunError: It failed.
    """
    done = subprocess.run(
        command, env=_clean_environ() | variables, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise CannotRunError(f"The suite cannot be set up: {' '.join(command[:4])} failed.\n{last}")
    return done.stdout


def _clean_environ() -> dict[str, str]:
    """Return the environment variables without those that lead one Python to the packages of another."""
    return {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


# The run


@contextlib.asynccontextmanager
async def _process(*command: str, log: Path, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program that has ended when this does; what it says of errors goes to `log`."""
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*command, stderr=file, **{"stdout": file, **options})
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@contextlib.asynccontextmanager
async def server_under_test(log: Path) -> AsyncIterator[str]:
    """Run the echo server; gives its URL.

    Raises:
        CannotRunError: It did not say that it listens.
    """
    command = (sys.executable, "-m", "tellwire.testing.echo", "--port", "0", "--max-size", str(MAX_SIZE_BYTES))
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    async with _process(*command, log=log, stdout=asyncio.subprocess.PIPE, env=environ, cwd=ROOT) as process:
        assert process.stdout is not None
        line = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                line = (await process.stdout.readline()).decode()
        url = re.search(r"ws://\S+", line)
        if url is None:
            raise CannotRunError(f"The echo server did not start:\n{line}see {log}")
        yield url[0]


def name_cases(environment: Path, patterns: Sequence[str]) -> list[str]:
    """Return the names of the cases that are meant.

    Raises:
        CannotRunError: The suite has none for one of the patterns; given no case, it would wait for ever.
    """
    answer = _call([str(environment / "bin" / "python"), "-c", LISTER, json.dumps(patterns)])
    names = json.loads(answer.splitlines()[-1])
    for pattern, found in zip(patterns, names, strict=True):
        if not found:
            raise CannotRunError(
                f"The suite has no case {pattern!r}. Its groups are {', '.join(GROUPS)}: --cases '6.*'"
            )
    return list(dict.fromkeys(name for found in names for name in found))


async def run_suite(environment: Path, lists: Sequence[Sequence[str]], deadline_s: float) -> Report:
    """Run lists of cases, `PROCESSES` of them at once, and read what the suite reports.

    Raises:
        CannotRunError: The server under test did not start.
    """
    reports = CACHE / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    folders = [reports / f"{number:02}" for number in range(1, len(lists) + 1)]
    slots = asyncio.Semaphore(PROCESSES)

    async def fuzz(url: str, folder: Path, names: Sequence[str]) -> None:
        spec = folder / "spec.json"
        server = {"agent": "tellwire", "url": url}
        spec.write_text(json.dumps({"outdir": str(folder), "servers": [server], "cases": names,
                                    "exclude-cases": [], "exclude-agent-cases": {}}))  # fmt: skip
        programs = environment / "bin"
        command = (str(programs / "python"), str(programs / "wstest"), "-m", "fuzzingclient", "-s", str(spec))
        async with slots, _process(*command, log=folder / "log", env=_clean_environ(), cwd=folder) as process:
            await process.wait()
        click.echo(f"{len(names):4} cases, {names[0]} to {names[-1]}, are through")

    for folder in folders:
        folder.mkdir(parents=True)
    async with server_under_test(reports / "server.log") as url:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as running:
                for folder, names in zip(folders, lists, strict=True):
                    running.create_task(fuzz(url, folder, names))
    read = [read_report(folder, names) for folder, names in zip(folders, lists, strict=True)]
    cases = sorted((case for found, _ in read for case in found), key=lambda case: case.place)
    return Report(cases, [sentence for _, sentences in read for sentence in sentences])


def read_report(folder: Path, names: Sequence[str]) -> tuple[list[Case], list[str]]:
    """Return the cases that one fuzzing client reports, and a sentence where it should have run others too.

    Its report is written when it ends, and leaves out cases for which it could not connect.
    """
    index = folder / "index.json"
    results = json.loads(index.read_text()).get("tellwire", {}) if index.exists() else {}
    cases = []
    for name, result in results.items():
        detail = json.loads((folder / result["reportfile"]).read_text(errors="replace"))
        about = " ".join(re.sub(r"<[^>]+>", " ", detail["description"]).split())
        cases.append(Case(name, result["behavior"], result["behaviorClose"], about))
    missing = [name for name in names if name not in results]
    if not missing:
        return cases, []
    return cases, [f"{', '.join(missing)}: no result; the suite's log is {folder / 'log'}"]


# What is said of it


def table(cases: Iterable[Case]) -> str:
    """Return the number of cases by group and outcome, as a table in Markdown."""
    by_group: dict[str, Counter[str]] = {}
    for case in cases:
        outcome = case.outcome if case.outcome in PASSING else "failed"
        by_group.setdefault(case.group, Counter())[outcome] += 1
    heads = ("group", "", "cases", *PASSING, "failed")
    total = sum(by_group.values(), Counter[str]())
    rows = [
        (name, title, str(counts.total()), *(str(counts[outcome]) for outcome in (*PASSING, "failed")))
        for name, title, counts in (
            *((group, GROUPS.get(group, ""), counts) for group, counts in by_group.items()),
            ("all", "", total),
        )
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    rule = ["-" * width for width in widths[:2]] + ["-" * (width - 1) + ":" for width in widths[2:]]
    aligned = [
        [
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in (heads, *rows)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (aligned[0], rule, *aligned[1:]))


def remarks(report: Report) -> Iterator[str]:
    """Give a line of Markdown for each case that is not plainly OK."""
    yield from (f"- {sentence}" for sentence in report.missing)
    for case in report.cases:
        if case.outcome != "OK":
            close = "" if case.behavior_close in ("OK", case.behavior) else f", closing {case.behavior_close}"
            yield f"- {case.id}: {case.behavior}{close}. {_first_sentence(case.about)}"


def _first_sentence(text: str) -> str:
    text = re.split(r"(?<=[.!]) |(?: MESSAGE)", text)[0].rstrip(".")
    return f"{text}."


def page(report: Report, *, everything: bool) -> str:
    """Return the text of docs/autobahn.md."""
    sizes = "every message size" if everything else f"message sizes {', '.join(SAMPLE[:-1])} and {SAMPLE[-1]} of 18"
    packages = ", ".join(f"{name} {version(name)}" for name in ("websockets", "uvicorn", "uvloop"))
    noted = "\n".join(remarks(report)) or "None."
    return f"""# The Autobahn test suite

Written by `make autobahn`, which runs `autobahntestsuite` {pinned("autobahntestsuite")} against
`tellwire.testing.echo`, an echo endpoint on the WebSocket code of `/v1/ws`: every case of groups 1 to 10, and of groups
12 and 13 {sizes}.

{table(report.cases)}

OK, NON-STRICT ("still conformant", says the suite) and INFORMATIONAL (what the RFC leaves open) pass. A case fails
where its behaviour or its closing is anything else, or where it has no result.

## Cases that are not plainly OK

{noted}

6.4.3 and 6.4.4 send one frame in three pieces and wait for the second, which is not UTF-8, to be refused before the
third is sent. Frames are parsed whole: invalid UTF-8 is refused once its frame is there, not waiting for the message's
end.

## Run it

`make autobahn` needs a Python 2.7 (on the `PATH`, under pyenv, or named by `ARGS='--python27 PATH'`), since the suite
is written in it; the rest it installs under `.cache/`, where the suite's own pages are too. Some cases only:
`make autobahn ARGS="--cases '6.*,7.*'"`; every message size: `ARGS=--all`.

Last run: {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, Python {platform.python_version()}, {packages}.
"""


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", REQUIREMENTS.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


@click.command(help=__doc__.partition("\n")[0])
@click.option("--python27", metavar="PATH", help="The Python 2.7 to run the suite with.")
@click.option("--cases", metavar="LIST", help="Only these, with commas between: 1.*,6.4.*,9.1.1")
@click.option("--all", "everything", is_flag=True, help="Every case of groups 12 and 13 too; takes minutes.")
@click.option("--deadline-s", default=1200.0, show_default=True, help="Stop after so many seconds; what is left fails.")
def main(python27: str | None, cases: str | None, everything: bool, deadline_s: float) -> None:
    lists = [(each.strip(),) for each in cases.split(",")] if cases else case_lists(everything=everything)
    try:
        environment = make_environment(find_python27(python27))
        named = [name_cases(environment, patterns) for patterns in lists]
        report = asyncio.run(_until_told_to_stop(environment, named, deadline_s))
    except CannotRunError as exc:
        click.echo(str(exc), err=True)
        sys.exit(2)
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    click.echo(f"\n{table(report.cases)}\n")
    for line in remarks(report):
        click.echo(line)
    if not cases:
        PAGE.write_text(page(report, everything=everything))
    click.echo(f"\nThe suite's own pages: {CACHE / 'reports'}/*/index.html")
    sys.exit(1 if report.failed or report.missing else 0)


async def _until_told_to_stop(environment: Path, lists: Sequence[Sequence[str]], deadline_s: float) -> Report:
    """Run the suite so that SIGTERM too stops what it started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run_suite(environment, lists, deadline_s)


if __name__ == "__main__":
    main()
