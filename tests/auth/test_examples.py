"""The examples of the page about authentication, which need a server with a key."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.examples import Runner, examples, unvolatile
from tests.serving import ROOT, Server

PAGE = ROOT / "docs" / "authentication.md"


def test_examples_do_what_their_page_shows(
    start_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KEY_FILE", "JWKS", "AUDIENCE", "ISSUER"):
        monkeypatch.delenv(f"TELLWIRE_TOKEN_{name}", raising=False)
    text = PAGE.read_text()
    key = re.search(r"export TELLWIRE_TOKEN_KEY=(\w+)", text)
    assert key is not None
    monkeypatch.setenv("TELLWIRE_TOKEN_KEY", key[1])  # for programs, which are not run by the page's shell
    page = tmp_path / PAGE.name
    page.write_text(text.replace("<!-- run, with a key -->", "<!-- run -->"))
    found = examples(page)
    assert len(found) > 10
    with Runner(start_server(auth={"token_key": key[1]}).port) as runner:
        for example in found:
            shown = unvolatile(runner.run(example))
            assert shown == unvolatile(example.output), f"{PAGE.name}, line {example.line}: {example.text}"
