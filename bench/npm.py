"""What comes from npm: installed once, into a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from children import ChildFailedError

PACKAGES = {"esbuild": "0.28.2", "socket.io": "4.8.4", "ws": "8.23.0"}
INSTALL_S = 300
"""Seconds after which npm is taken for hung."""


def npm_missing() -> str | None:
    """Say what nothing of this can be had without."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return "npm is not installed. On Debian or Ubuntu: sudo apt-get install nodejs npm"
    return None


def npm_install(place: Path) -> Path:
    """Install the packages, once for each set of their versions; return the folder that has them.

    Raises:
        ChildFailedError: npm could not.
    """
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    mark = place / ".installed"
    if not mark.exists() or mark.read_text() != " ".join(wanted):
        place.mkdir(parents=True, exist_ok=True)
        run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(place), *wanted])
        mark.write_text(" ".join(wanted))
    return place / "node_modules"


def run(command: Sequence[str]) -> bytes:
    """Run a program and return what it prints; raises ChildFailedError with its last words."""
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=INSTALL_S).stdout
    except subprocess.CalledProcessError as exc:
        last = exc.stderr.decode(errors="replace").strip()[-2000:]
        raise ChildFailedError(f"{Path(command[0]).name} ended with {exc.returncode}: {last}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ChildFailedError(f"{Path(command[0]).name}: {exc}") from exc
