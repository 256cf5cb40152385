"""What the figures were measured on and with, so that they can be compared at all."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from npm import PACKAGES as NPM_PACKAGES

PACKAGES = (
    "aiohttp", "aiortc", "channels", "django", "grpcio", "httptools", "msgspec", "nats_py", "picows", "python_socketio",
    "redis", "socketify", "starlette", "uvicorn", "uvloop", "websockets",
)  # fmt: skip
PROGRAMS = {
    "node": "--version",
    "redis-server": "--version",
    "nats-server": "--version",
    "pushpin": "--version",
    "condure": "--version",
    "centrifugo": "version",
    "mercure": "version",
}
"""Of engines and peers, with what makes each tell its version."""


def describe_machine(project_python: Path, peers_python: Path) -> dict[str, object]:
    """Return hardware, system and versions."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
        "system": _system(),
        "python": _first_line([str(project_python), "--version"]),
        "gcc": _first_line(["gcc", "--version"]),
        "nginx": _first_line(["nginx", "-v"]) or _first_line(["/usr/sbin/nginx", "-v"]),
        "nchan": _first_line(["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"]),
        **{program: _program_version(program, argument) for program, argument in PROGRAMS.items()},
        "npm_packages": NPM_PACKAGES,
        "commit": _first_line(["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]),
        "tellwire_packages": _versions(project_python),
        "peers_packages": _versions(peers_python),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _program_version(program: str, argument: str) -> str | None:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    return _first_line([path, argument]) if path else None


def _first_line(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout or done.stderr).strip().splitlines()[0]


def _versions(python: Path) -> dict[str, str]:
    found = {}
    for place in python.parent.parent.glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = place.name.removesuffix(".dist-info").partition("-")
        if name.lower() in PACKAGES:
            found[name.lower()] = version
    return dict(sorted(found.items()))
