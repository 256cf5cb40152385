"""The files under deploy/ can be used, agree with the defaults, and are those that the documentation shows."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tellwire.cli import main
from tellwire.limits import Limits
from tests.deploy.files import BACKEND, DEPLOY, DEPLOYING, deployed
from tests.docs.examples import file
from tests.wires import WATCHDOG_S

SHOWN = ("nginx.conf", "Caddyfile", "haproxy.cfg", "tellwire.service")
KEY = "a secret that is long enough for HS256"


@pytest.fixture
def unit() -> configparser.ConfigParser:
    """Return the unit, read as what it nearly is; of a key that comes twice the last."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # the way to keep its keys' case
    parser.read_string(deployed("tellwire.service"))
    return parser


def analyze(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Ask systemd-analyze about the unit, with a program that there is."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here, of Debian's package systemd")
    path = tmp_path / "tellwire.service"
    path.write_text(deployed("tellwire.service").replace("/opt/tellwire/.venv/bin/tellwire", sys.executable))
    return subprocess.run(
        [program, *command, str(path)], capture_output=True, text=True, check=False, timeout=WATCHDOG_S
    )


@pytest.mark.parametrize("name", SHOWN)
def test_page_shows_the_files_as_they_are(name: str) -> None:
    assert file(DEPLOYING, name) == deployed(name)


@pytest.mark.parametrize("name", [*SHOWN, "Dockerfile", "compose.yaml"])
def test_page_links_to_the_files(name: str) -> None:
    assert f"(../deploy/{name})" in DEPLOYING.read_text()
    assert (DEPLOY / name).is_file()


def test_settings_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "tellwire.toml"
    # The directory of the log is made by systemd; here it is another.
    path.write_text(file(DEPLOYING, "tellwire.toml").replace("/var/lib/tellwire", str(tmp_path)))
    done = CliRunner().invoke(main, ["check-config", "--config", str(path)], env={"TELLWIRE_TOKEN_KEY": KEY})
    assert done.exit_code == 0, done.stderr
    assert "server.origins = ('https://push.example.org',)" in done.stdout
    assert BACKEND.endswith(":8000")
    assert "port = 8000" in path.read_text()


def test_unit_starts_a_command_that_there_is(unit: configparser.ConfigParser, tmp_path: Path) -> None:
    program, command, option, path = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "tellwire"
    assert (command, option, path) == ("serve", "--config", "/etc/tellwire/tellwire.toml")
    name, _, credential = unit["Service"]["Environment"].partition("=")
    assert credential == "%d/" + unit["Service"]["LoadCredential"].partition(":")[0]
    key = tmp_path / "token.key"
    key.write_text(KEY)
    done = CliRunner().invoke(main, ["check-config", "--host", "0.0.0.0"], env={name: str(key)})
    assert done.exit_code == 0, done.stderr


def test_unit_gives_time_to_stop_and_descriptors(unit: configparser.ConfigParser) -> None:
    assert float(unit["Service"]["TimeoutStopSec"]) > Limits.drain_delay_s + Limits.drain_s + 5
    assert int(unit["Service"]["LimitNOFILE"]) > Limits.connections_max


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    done = analyze(tmp_path, "verify", "--man=no")
    # It also complains about whatever units this machine has.
    assert [line for line in done.stderr.splitlines() if "tellwire" in line] == []


def test_systemd_calls_the_unit_safe(tmp_path: Path) -> None:
    done = analyze(tmp_path, "security", "--offline=true")
    found = re.search(r"Overall exposure level for tellwire.service: ([0-9.]+)", done.stdout)
    if found is None:
        pytest.skip(f"this systemd-analyze does not look at files: {done.stderr.strip()}")
    assert float(found[1]) < 2.5, done.stdout


@pytest.mark.parametrize("name", ["nginx.conf", "compose.nginx.conf", "haproxy.cfg"])
def test_proxies_wait_for_longer_than_a_heartbeat_and_a_poll(name: str) -> None:
    timeouts = dict(re.findall(r"(?:timeout (\w+)|proxy_(?:read|send)_timeout) +(\d+)s", deployed(name)))
    timeouts = {what: seconds for what, seconds in timeouts.items() if what not in ("connect", "check")}
    assert timeouts
    assert all(float(seconds) >= max(2.5 * Limits.heartbeat_s, Limits.poll_wait_max_s) for seconds in timeouts.values())
