"""How large the JavaScript client is for who loads it: bundled, minified and gzipped."""

from __future__ import annotations

import gzip
from pathlib import Path

from npm import npm_install, run

CLIENT = Path(__file__).resolve().parent.parent / "clients" / "js" / "src" / "tellwire.js"
LATER = ("./room/room.js", "./transports/webrtc.js")


def bundle_bytes(cache: Path) -> tuple[int, int]:
    """Return the bundle's size minified, and gzipped as a server does it that has all the time.

    Raises:
        ChildFailedError: esbuild could not be installed, or could not bundle.
    """
    esbuild = npm_install(cache / "node") / ".bin" / "esbuild"
    command = [str(esbuild), str(CLIENT), "--bundle", "--minify", "--format=esm", "--target=es2022"]
    # What is imported only when it is asked for is a file of its own in every bundle.
    minified = run([*command, *(f"--external:{path}" for path in LATER)])
    return len(minified), len(gzip.compress(minified, compresslevel=9, mtime=0))
