"""`make bench`: measure Tellwire and its peers on this machine, print the table, keep it in bench/results/."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import resource
import signal
import subprocess
import sys
import traceback
from pathlib import Path

from children import LOAD_CORE, SERVER_CORE, ChildFailedError
from contenders import PEERS_ALL, Places
from generator import LoadFailedError, compile_c, noise_of
from machine import describe_machine
from measuring import FULL, QUICK, Bench, Entry
from report import read_rows, render, render_row, write_json
from rows import ROWS
from table import Row

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "bench"
RESULTS = HERE / "results"
PLOTS = HERE.parent / "docs" / "benchmarks"
SERVE = (
    "{python} -m tellwire serve --port {port} --broker {broker} --log-level warning"
    " --publishes-per-s 1000000 --connections-per-address 50000"
)
MANY = 10_000
SPARE_FILES = 500


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    if {SERVER_CORE, LOAD_CORE} - os.sched_getaffinity(0):
        print("The benchmark needs two cores: one for the server, one for the load generator.", file=sys.stderr)
        return 2
    try:
        compile_c(CACHE)
    except LoadFailedError as exc:
        print(exc, file=sys.stderr)
        return 2
    peers_python = install_peers()
    places = Places(CACHE, Path(sys.executable), peers_python, arguments.server)
    for peer in PEERS_ALL:
        missing = peer.missing(places)
        if missing:
            print(f"{peer.name}: {missing}\n    Its rows will have no peer.", file=sys.stderr)
    machine = describe_machine(Path(sys.executable), peers_python)
    bench = Bench(places, FULL if arguments.full else QUICK, count_of_many(), lambda text: print(text, flush=True))
    rows = {} if not arguments.keep else read_rows(RESULTS / "latest.json")
    for key in arguments.only or ROWS:
        row = rows[key] = measure(bench, key)
        row.measured = f"{now()}, commit {machine['commit']}"
        # Whoever has to break off a long run has seen what there was until then.
        print("\n".join(["", *render_row(row), ""]), flush=True)
    measured = [rows[key] for key in ROWS if key in rows]
    about: dict[str, object] = {"date": now(), "effort": "full" if arguments.full else "quick", "machine": machine}
    about["noise"] = noise_of([run for row in measured for entry in row.entries for run in entry.raw])
    is_kept = arguments.keep or not arguments.only
    results = keep(measured, about, is_kept=is_kept)
    draw(peers_python, results, PLOTS if is_kept else CACHE / "plots")
    return 0


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="about 50 minutes (the default)")
    effort.add_argument("--full", action="store_true", help="longer runs, about two hours")
    parser.add_argument(
        "--only", action="append", choices=list(ROWS), metavar="ROW",
        help=f"measure this row, and only print it (but see --keep); may be given again. Rows: {', '.join(ROWS)}",
    )  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="put these rows into the table that is there")
    parser.add_argument(
        "--server", default=SERVE, metavar="COMMAND", help="how Tellwire is started, with {python}, {port}, {broker}"
    )
    return parser.parse_args()


def install_peers() -> Path:
    """Make the environment with the peers; without it their rows have none, and Tellwire is measured all the same."""
    place = CACHE / "venv"
    python = place / "bin" / "python"
    requirements = HERE / "requirements.txt"
    mark = place / ".installed"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    (CACHE.parent / ".gitignore").write_text("*\n")
    if mark.exists() and mark.read_text() == wanted:
        return python
    print("installing the peers into .cache/bench/venv", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)], check=True)
    except subprocess.CalledProcessError:
        print("pip could not install the peers: see its last lines above.", file=sys.stderr)
    else:
        mark.write_text(wanted)
    return python


def count_of_many() -> int:
    """Raise the limit on open files as far as it goes; return how many connections fit under it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or hard >= MANY + SPARE_FILES:
        return MANY
    print(f"Only {hard:,} files may be open (ulimit -Hn): rows with {MANY:,} connections have fewer.", file=sys.stderr)
    return max(hard - SPARE_FILES, 100)


def measure(bench: Bench, key: str) -> Row:
    """Measure one row; one that fails says so in its place and does not keep the others from being measured."""
    print(f"{key}", flush=True)
    try:
        return ROWS[key](bench)
    except (ChildFailedError, LoadFailedError) as exc:
        print(f"  failed: {exc}", file=sys.stderr)
        failure = str(exc).splitlines()[0]
    except OSError as exc:
        traceback.print_exc()
        failure = str(exc)
    return Row(key, "could not be measured", [Entry("–", "", remarks=[failure])])


def keep(rows: list[Row], about: dict[str, object], *, is_kept: bool) -> Path:
    """Print the page and write both files, into the results where they are kept. Return the JSON's path."""
    place = RESULTS if is_kept else CACHE
    page = render(rows, about)
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "latest.json", rows, about)
    (place / "latest.md").write_text(page)
    print(f"\n{page}\nwritten to {place / 'latest.md'} and latest.json")
    return place / "latest.json"


def draw(peers_python: Path, results: Path, folder: Path) -> None:
    """Draw the results; without matplotlib there are no pictures, and the table all the same."""
    done = subprocess.run([str(peers_python), str(HERE / "plots.py"), str(results), str(folder)], check=False)
    print(f"drawn into {folder}" if done.returncode == 0 else "the pictures could not be drawn", flush=True)


if __name__ == "__main__":
    sys.exit(main())
