"""tellwire serve: what it says when it starts, and why it does not."""

from __future__ import annotations

import json
import logging
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tellwire.cli.start import _JsonFormatter, _TextFormatter
from tests.cli.commands import Running, run
from tests.serving import WATCHDOG_S, Certificate

Start = Callable[..., Running]


def curl(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line that was printed for people to try."""
    assert line.lstrip().startswith("curl ")
    return subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=WATCHDOG_S, check=False)


def test_greeting_says_where_who_and_what_to_try(start: Start) -> None:
    serving = start("serve", "--port", "0")
    title, who, where_kept, *tries = serving.lines(7)
    found = re.fullmatch(r"Tellwire \S+ listens on (http://127\.0\.0\.1:\d+)", title)
    assert found is not None
    assert "open, on loopback only" in who
    assert "memory://" in where_kept
    _, read, publish, page = tries
    assert read.strip() == f"curl -N '{found[1]}/v1/events?channel=news'"
    assert page.strip() == f"{found[1]}/  in a browser"

    reading = subprocess.Popen(shlex.split(read), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert reading.stdout is not None
    assert reading.stdout.readline().startswith("retry:")
    published = curl(publish)
    assert "position" in json.loads(published.stdout)
    assert any(line == 'data: "hello"\n' for line in reading.stdout)
    reading.kill()
    reading.wait(WATCHDOG_S)
    reading.stdout.close()

    page_answer = curl(f"curl -s {page.split()[0]}")
    assert "<!doctype html>" in page_answer.stdout.lower()
    assert serving.end(signal.SIGINT) == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_stops_when_it_is_told(start: Start, name: str) -> None:
    serving = start("serve", "--port", "0", "--drain-s", "0.1")
    serving.lines(7)
    assert serving.end(getattr(signal, name)) == 0
    assert "Traceback" not in serving.err.read()


def test_with_a_certificate_it_speaks_https(start: Start, certificate: Certificate) -> None:
    serving = start("serve", "--port", "0", "--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key))
    *_, publish, page = serving.lines(7)
    assert page.strip().startswith("https://")
    assert "position" in json.loads(curl(publish).stdout)


def test_open_server_says_so(start: Start) -> None:
    serving = start("serve", "--port", "0", "--host", "0.0.0.0", "--open")
    title, who, *_, publish, _ = serving.lines(7)
    assert "http://0.0.0.0:" in title
    assert who.strip().startswith("open: everybody who can reach this address")
    assert " http://127.0.0.1:" in publish
    assert "position" in json.loads(curl(publish).stdout)


def test_settings_come_from_everywhere(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "tellwire.toml"
    file.write_text(
        f"[server]\nport = 1\nbroker = 'sqlite:///{tmp_path}/log.db'\n[namespaces.tight]\nephemeral = true\n"
    )
    serving = start("serve", "--config", str(file), "--port", "0", TELLWIRE_LOG_FORMAT="json")
    *_, where_kept, _, _, publish, _ = serving.lines(7)
    assert f"sqlite:///{tmp_path}/log.db" in where_kept
    assert json.loads(curl(publish.replace('"news"', '"tight:a"')).stdout)["position"] is None


def refusal(*args: str, **variables: str) -> str:
    done = run("serve", *args, **variables)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is taken by another program" in refusal("--port", str(port))


def test_address_of_another_machine_is_refused() -> None:
    says = refusal("--port", "0", "--host", "192.0.2.1", "--open")
    assert "192.0.2.1 cannot be listened on" in says


def test_beyond_loopback_it_wants_to_be_told(tmp_path: Path) -> None:
    assert "--host: 0.0.0.0 can be reached from other machines" in refusal("--host", "0.0.0.0")
    assert "TELLWIRE_HOST: :: can be reached" in refusal(TELLWIRE_HOST="::")
    file = tmp_path / "t.toml"
    file.write_text("[server]\nhost = '0.0.0.0'\n")
    assert f"{file}:2: 0.0.0.0 can be reached" in refusal("--config", str(file))


def test_missing_certificate_is_named(certificate: Certificate) -> None:
    assert "--tls-cert: there is no file 'none.pem'" in refusal("--tls-cert", "none.pem", "--tls-key", "none.pem")
    assert "--tls-cert: tls_cert needs tls_key beside it" in refusal("--tls-cert", str(certificate.cert))


def test_file_that_is_no_certificate_is_named(certificate: Certificate, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("hello")
    says = refusal("--port", "0", "--tls-cert", str(wrong), "--tls-key", str(certificate.key))
    assert f"{wrong} and {certificate.key} are not a certificate and its key" in says


def test_log_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert f"{folder}/log.db" in refusal("--port", "0", "--broker", f"sqlite:///{folder}/log.db")
    other = tmp_path / "text.db"
    other.write_text("this is not a database " * 100)
    assert f"{other} is not a SQLite database" in refusal("--port", "0", "--broker", f"sqlite:///{other}")
    assert "names no file" in refusal("--port", "0", "--broker", "sqlite://")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--port", "http"], "--port: port takes a whole number from 0 to 65535, not 'http'"),
        (["--broker", "pigeon://x"], "--broker: 'pigeon://x' names no broker"),
        (["--namespace", "chat"], "--namespace: 'chat' is not NAME:KEY=VALUE"),
        (["--config", "/nowhere.toml"], "/nowhere.toml: the settings file cannot be read"),
    ],
)
def test_wrong_setting_is_named(args: list[str], says: str) -> None:
    assert says in refusal(*args)


def test_unknown_flag_has_a_suggestion() -> None:
    done = run("serve", "--prot", "1")
    assert done.returncode == 2
    assert "--port" in done.stderr


def test_every_command_has_help() -> None:
    top = run("--help").stdout
    for name in ("serve", "pub", "sub", "tail", "history", "version"):
        assert re.search(rf"^  {name} ", top, re.MULTILINE)
        done = run(name, "--help")
        assert done.returncode == 0
        assert "Examples:" in done.stdout or name == "version"


@pytest.mark.parametrize("formatter", [_JsonFormatter(), _TextFormatter("%(levelname)s %(message)s")])
def test_no_token_gets_into_a_log(formatter: logging.Formatter) -> None:
    secret = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"
    try:
        raise ValueError(f"GET /v1/ws?token={secret}")
    except ValueError:
        failure = sys.exc_info()
    record = logging.LogRecord("t", logging.ERROR, "f", 1, "Authorization: Bearer %s failed", (secret,), failure)
    text = formatter.format(record)
    assert "failed" in text
    assert "ValueError" in text
    assert secret not in text


def test_closed_server_is_greeted_as_one(start: Start) -> None:
    serving = start("serve", "--port", "0", TELLWIRE_TOKEN_KEY="k" * 32)
    _, who, _, _, export, read, publish, _ = serving.lines(8)
    assert "closed" in who
    assert "TOKEN=" in export
    assert "$TOKEN" in read
    may = run("token", "--subscribe", "news", "--publish", "news", TELLWIRE_TOKEN_KEY="k" * 32).stdout.strip()
    assert json.loads(curl(publish).stdout)["code"] == "unauthorized"
    assert json.loads(curl(publish.replace("$TOKEN", may)).stdout)["position"]
