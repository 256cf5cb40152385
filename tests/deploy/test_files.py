"""The settings and the systemd unit that the documentation shows can be used, and agree with the defaults."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tellwire.cli import main
from tellwire.limits import Limits
from tests.deploy.proxies import BACKEND, DEPLOYING
from tests.docs.examples import file
from tests.wires import WATCHDOG_S

KEY = "a secret that is long enough for HS256"


@pytest.fixture
def unit() -> configparser.ConfigParser:
    """Return the unit, read as what it nearly is."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # the way to keep its keys' case
    parser.read_string(file(DEPLOYING, "tellwire.service"))
    return parser


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
    assert float(unit["Service"]["TimeoutStopSec"]) > Limits.drain_s + 5
    assert int(unit["Service"]["LimitNOFILE"]) > Limits.connections_max


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here, of Debian's package systemd")
    path = tmp_path / "tellwire.service"
    path.write_text(file(DEPLOYING, "tellwire.service").replace("/opt/tellwire/.venv/bin/tellwire", sys.executable))
    done = subprocess.run(
        [program, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False, timeout=WATCHDOG_S
    )
    # It also complains about whatever units this machine has.
    assert [line for line in done.stderr.splitlines() if "tellwire" in line] == []


def test_proxies_wait_for_longer_than_a_heartbeat_and_a_poll() -> None:
    text = DEPLOYING.read_text()
    for timeout in ("proxy_read_timeout 75s", "timeout server  75s", "timeout tunnel  75s", "timeout client  75s"):
        assert timeout in text
    assert 2.5 * Limits.heartbeat_s < 75
