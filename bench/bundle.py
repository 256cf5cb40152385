"""How large the JavaScript client is for who loads it: bundled, minified and gzipped."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from children import ChildFailedError

CLIENT = Path(__file__).resolve().parent.parent / "clients" / "js" / "src" / "tellwire.js"
ESBUILD = "esbuild@0.28.2"
INSTALL_S = 300
"""Seconds after which npm is taken for hung."""


def bundle_missing() -> str | None:
    """Say what the bundle cannot be made without."""
    if shutil.which("npm") is None:
        return "npm is not installed. On Debian or Ubuntu: sudo apt-get install nodejs npm"
    return None


def bundle_bytes(cache: Path) -> tuple[int, int]:
    """Return the bundle's size minified, and gzipped as a server does it that has all the time.

    Raises:
        ChildFailedError: esbuild could not be installed, or could not bundle.
    """
    esbuild = _installed(cache / "node")
    minified = _run([str(esbuild), str(CLIENT), "--bundle", "--minify", "--format=esm", "--target=es2022"])
    return len(minified), len(gzip.compress(minified, compresslevel=9, mtime=0))


def _installed(place: Path) -> Path:
    """Install esbuild in a folder of its own, once for each version of it."""
    mark = place / ".installed"
    if not mark.exists() or mark.read_text() != ESBUILD:
        place.mkdir(parents=True, exist_ok=True)
        _run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(place), ESBUILD])
        mark.write_text(ESBUILD)
    return place / "node_modules" / ".bin" / "esbuild"


def _run(command: Sequence[str]) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=INSTALL_S).stdout
    except subprocess.CalledProcessError as exc:
        last = exc.stderr.decode(errors="replace").strip()[-2000:]
        raise ChildFailedError(f"{Path(command[0]).name} ended with {exc.returncode}: {last}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ChildFailedError(f"{Path(command[0]).name}: {exc}") from exc
