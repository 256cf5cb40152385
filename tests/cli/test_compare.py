"""The command ``tellwire compare``."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tellwire.advise import figures_of
from tellwire.cli.compare import is_worth_keeping, keep
from tellwire.compare.comparison import Comparison
from tellwire.compare.options import Options
from tellwire.compare.path import Path as Way
from tests.cli.commands import COMMAND, environment, run
from tests.guarded import token
from tests.serving import WATCHDOG_S, Server

QUICK = ("--rate", "50", "--seconds", "0.2", "--readers", "1,2", "--payload", "16,64", "--idle", "5", "--poll", "100ms")


def test_table_names_every_transport_and_its_limits(server: Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.port}"
    done = run("compare", url, *QUICK, "--transports", "sse,websocket", XDG_STATE_HOME=str(tmp_path), COLUMNS="120")
    assert done.returncode == 0, done.stderr
    for text in (
        "Server-Sent Events",
        "WebSocket, JSON",
        "p99.9",
        "framing ↓",
        "resume",
        "The load generator's own limit",
    ):
        assert text in done.stdout
    assert f"Compared at {url}" in done.stdout
    assert "A client that is left alone comes to WebSocket" in done.stdout
    assert "Unknown: the server's CPU and memory: its process is not known here" in done.stdout.replace("\n", " ")
    # Not of all transports: the adviser would miss some.
    assert list(tmp_path.rglob("*.json")) == []


def test_json_and_page_hold_the_same_run(server: Server, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    url = f"http://127.0.0.1:{server.port}"
    shaped = ("--delay", "1ms", "--bandwidth", "50mbit", "--loss", "0%", "--pid", str(server.pid))
    done = run("compare", url, *QUICK, *shaped, "--transports", "ndjson", "--json", "--html", str(page))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["settings"]["path"]["delay_ms"] == 1
    assert found["settings"]["path"]["bandwidth_bits_per_s"] == 50_000_000
    assert found["transports"]["ndjson"]["readers"][1]["cpu_us_per_delivery"] is not None
    text = page.read_text()
    held = text.partition('<script type="application/json" id="report">')[2].partition("</script>")[0]
    assert json.loads(held) == found


@pytest.mark.parametrize(
    ("ended", "options", "is_kept"),
    [
        ("complete", Options(), True),
        ("interrupted", Options(), False),
        ("complete", Options(transports=("sse",)), False),
        ("complete", Options(path=Way(delay_s=0.05)), False),
    ],
)
def test_whole_runs_over_the_way_as_it_is_are_for_the_adviser(ended: str, options: Options, is_kept: bool) -> None:
    assert is_worth_keeping({"ended": ended}, options) is is_kept


def test_what_is_kept_is_what_the_adviser_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = Comparison(Options()).found
    keep(found)
    figures = figures_of(None)
    assert figures is not None
    assert figures.document == found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_with_what_was_measured(server: Server, tmp_path: Path, how: signal.Signals) -> None:
    page = tmp_path / "report.html"
    more = ("--rate", "5", "--seconds", "600", "--transports", "sse,websocket", "--json", "--html", str(page))
    process = subprocess.Popen(
        [*COMMAND, "compare", f"http://127.0.0.1:{server.port}", *QUICK, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(XDG_STATE_HOME=str(tmp_path), COLUMNS="100", TTY_COMPATIBLE="1"),
    )
    assert process.stderr is not None
    seen = b""
    while b"bytes" not in seen:  # the bar of the step that will take ten minutes
        chunk = process.stderr.read1()  # type: ignore[attr-defined]  # a pipe is a BufferedReader
        assert chunk, seen
        seen += chunk
    process.send_signal(how)
    out, err = process.communicate(timeout=WATCHDOG_S)
    assert process.returncode == 130, err
    found = json.loads(out)
    assert (found["ended"], found["says"]) == ("interrupted", "it was stopped before the end")
    assert found["transports"]["sse"]["connect_ms"]["runs"] == 5
    assert found["transports"]["websocket"]["status"] == "unmeasured"
    assert page.is_file()


def test_refusals_end_with_a_sentence(guarded: Server) -> None:
    url = f"http://127.0.0.1:{guarded.port}"
    done = run("compare", url, *QUICK, "--transports", "sse", COLUMNS="300", TELLWIRE_TOKEN=token(key="x" * 32))
    assert done.returncode == 1
    assert done.stdout.startswith("Nothing was measured: the server refused it:")
    assert done.stderr.strip().splitlines()[-1].startswith("Error: the server refused it:")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--transports", "pigeon"), "there is no transport 'pigeon'"),
        (("--readers", "many"), "'many' is not whole numbers with commas between them"),
        (("--delay", "soon"), "'soon' is not a time; one looks like 50ms or 0.2s"),
        (("ftp://x",), "'ftp://x' is not the address of a server"),
        (("https://127.0.0.1:1", "--no-websocket"), "read what passes, which TLS does not let them"),
        (("--token", "a.b.c"), "--token goes with the URL of a server"),
        (("--grpc", "grpc://127.0.0.1:1"), "--grpc goes with the URL of a server"),
        (("https://127.0.0.1:1", "--ca-file", __file__), "--ca-file: there is no certificate in PEM to be read from"),
        (("--html", "/nowhere/at/all.html"), "is no directory that can be written to"),
        (("http://127.0.0.1:1", "--pid", "4194304"), "there is no process 4194304 on this machine"),
    ],
)
def test_impossible_wishes_are_said_in_a_sentence(args: tuple[str, ...], says: str) -> None:
    done = run("compare", *args)
    assert done.returncode == 2
    assert says in done.stderr
