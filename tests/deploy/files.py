"""The files under deploy/, as the tests use them."""

from __future__ import annotations

from tests.serving import ROOT

DEPLOY = ROOT / "deploy"
DEPLOYING = ROOT / "docs" / "deploying.md"

BACKEND = "127.0.0.1:8000"
SECOND = "127.0.0.1:8001"


def deployed(name: str) -> str:
    """Return the text of a file under deploy/."""
    return (DEPLOY / name).read_text()
