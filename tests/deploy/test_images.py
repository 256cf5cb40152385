"""The Dockerfile and the compose file, as far as that can be seen without an engine: no image is built here."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml  # comes with what reads OpenAPI documents

from tellwire.config import load_settings
from tellwire.limits import Limits
from tests.deploy.files import DEPLOY, deployed
from tests.deploy.proxies import nginx_before, wanted
from tests.ports import free_port
from tests.redis_servers import SERVER, RedisServer, needs_redis
from tests.serving import ROOT, WATCHDOG_S, Server
from tests.wires import At, WebSocket


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, one line each."""
    text = re.sub(r"\\\n\s*", " ", deployed("Dockerfile"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def only(name: str) -> str:
    """Return the argument of an instruction that comes once."""
    (argument,) = [argument for each, argument in instructions() if each == name]
    return argument


def ignored(path: str) -> bool:
    """Tell whether .dockerignore keeps a path from the builder; the last rule that fits counts."""
    found = False
    for line in deployed("Dockerfile.dockerignore").splitlines():
        if line and not line.startswith("#"):
            rule = line.removeprefix("!")
            if fnmatch.fnmatch(path, rule) or path.startswith(f"{rule}/"):
                found = not line.startswith("!")
    return found


def environment() -> dict[str, str]:
    """Return what the image sets, without its PATH."""
    pairs = dict(pair.split("=", 1) for pair in shlex.split(only("ENV")))
    return {name: value for name, value in pairs.items() if name != "PATH"}


@pytest.fixture(scope="module")
def compose() -> Any:
    """Return the compose file."""
    return yaml.safe_load(deployed("compose.yaml"))


def test_image_has_what_it_copies() -> None:
    copied = [argument.split()[:-1] for name, argument in instructions() if name == "COPY" and "--from" not in argument]
    paths = [path for some in copied for path in some]
    assert {"pyproject.toml", "src", "clients/js/src"} <= set(paths)
    for path in paths:
        assert (ROOT / path).exists(), path
        assert not ignored(path), path
    for path in (".git", ".venv", "tests/serving.py", "docs/deploying.md"):
        assert ignored(path), path


def test_image_is_nobodys_and_stops_as_it_should() -> None:
    names = [name for name, _ in instructions()]
    assert only("STOPSIGNAL") == "SIGTERM"
    assert int(only("USER")) > 0
    assert names.index("USER") < names.index("CMD")
    assert all("apt" not in argument and "curl" not in argument for name, argument in instructions() if name == "RUN")


@needs_redis
def test_command_and_health_check_of_the_image_work(tmp_path: Path) -> None:
    command, healthy = json.loads(only("CMD")), json.loads(only("HEALTHCHECK").partition(" CMD ")[2])
    bin_ = Path(sys.executable).parent
    env = {**os.environ, **environment(), "TELLWIRE_PORT": str(free_port()), "TELLWIRE_HOST": "127.0.0.1"}
    env["PATH"] = f"{bin_}:{env['PATH']}"

    def is_healthy() -> bool:
        return subprocess.run(healthy, env=env, capture_output=True, check=False, timeout=WATCHDOG_S).returncode == 0

    assert not is_healthy()
    with subprocess.Popen(
        [str(bin_ / command[0]), *command[1:]], cwd=tmp_path, env=env, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        assert b"listens on" in server.stdout.readline()
        assert any(is_healthy() for _ in range(3)), "asked as often as the image has it asked"
        server.send_signal(signal.SIGTERM)
        assert server.wait(WATCHDOG_S) == 0


def test_image_refuses_to_be_open_by_accident(tmp_path: Path) -> None:
    command = json.loads(only("CMD"))
    env = {name: value for name, value in os.environ.items() if not name.startswith("TELLWIRE_")}
    env |= {**environment(), "TELLWIRE_PORT": "0"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=WATCHDOG_S,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--open" in done.stderr


@pytest.mark.soak
def test_image_can_be_installed(tmp_path: Path) -> None:
    # The steps of the first stage, in folders of the test's own; pip asks the package index as in the build.
    folder, target = tmp_path / "src", tmp_path / "opt"
    venv.create(target, with_pip=True)
    for name, argument in instructions():
        if name == "COPY" and "--from" not in argument:
            for path in argument.split()[:-1]:
                source, place = ROOT / path, folder / path
                place.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, place)
        elif name == "RUN" and "pip install" in argument:
            step = argument.partition("&& ")[2].replace("/opt/tellwire", str(target))
            subprocess.run(["sh", "-ec", step], cwd=folder, check=True, timeout=280)
    done = subprocess.run(
        [target / "bin" / "tellwire", "version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.startswith("tellwire ")


def test_servers_of_the_compose_file_have_settings_that_there_are(compose: Any) -> None:
    for name in ("one", "two"):
        service = compose["services"][name]
        variables = {**environment(), **service["environment"]}
        settings = load_settings({}, variables, None)
        assert settings.server.broker.startswith("redis://redis:")
        assert settings.server.open
        assert len(settings.server.trusted_proxies) == 3
        assert float(service["stop_grace_period"].removesuffix("s")) > Limits.drain_s + 5
        assert (
            DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]
        ).resolve() == DEPLOY / "Dockerfile"
        for needed in service["depends_on"]:
            assert "healthcheck" in compose["services"][needed]


def test_compose_file_mounts_what_there_is_and_is_for_this_machine_alone(compose: Any) -> None:
    (mount,) = compose["services"]["nginx"]["volumes"]
    assert (DEPLOY / mount.split(":")[0]).is_file()
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
    published = {service.split(":")[0] for service in re.findall(r"server (\w+:\d+)", deployed("compose.nginx.conf"))}
    assert published == {"one", "two"}


@needs_redis
def test_redis_of_the_compose_file_keeps_what_it_acknowledged(compose: Any, tmp_path: Path) -> None:
    program, *options = compose["services"]["redis"]["command"]
    assert program == "redis-server"
    assert SERVER is not None
    redis = RedisServer(tmp_path, *options)
    redis.start()
    try:
        redis.command("SET a 1")
        redis.kill()
        redis.start()
        assert redis.command("GET a") == b"$1\r\n1\r\n"
    finally:
        redis.kill()


def test_site_of_the_compose_file_is_the_other_one_without_tls() -> None:
    def location(name: str) -> str:
        found = re.search(r"^    location / \{.*?^    \}$", deployed(name), re.DOTALL | re.MULTILINE)
        assert found is not None
        return found[0]

    assert location("nginx.conf") == location("compose.nginx.conf")
    for line in ("client_max_body_size 2m;", "keepalive 64;", "default upgrade;"):
        assert line in deployed("nginx.conf")
        assert line in deployed("compose.nginx.conf")


def test_site_of_the_compose_file_works(server: Server, channel: str, tmp_path: Path) -> None:
    site = deployed("compose.nginx.conf")
    for name in ("one:8000", "two:8000"):
        assert name in site
        site = site.replace(name, f"127.0.0.1:{server.port}")
    with nginx_before(wanted("nginx"), tmp_path, site) as port, WebSocket(At(port)) as socket:
        socket.ask(type="subscribe", channel=channel)
        server.publish(channel, 1)
        assert socket.read()["data"] == 1
