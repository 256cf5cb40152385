"""Every example that is marked in the documentation does what its page shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.examples import Runner, examples, unvolatile
from tests.serving import ROOT, Server

PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if examples(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_do_what_their_page_shows(page: Path, start_server: Callable[..., Server]) -> None:
    found = examples(page)
    with Runner(start_server().port) as runner:
        for example in found:
            output = runner.run(example)
            assert unvolatile(output) == unvolatile(example.output), f"{page.name}, line {example.line}: {example.text}"
        for example, output in runner.finish():
            assert unvolatile(output) == unvolatile(example.output), f"{page.name}, line {example.line}: {example.text}"


def test_pages_for_newcomers_have_examples() -> None:
    assert {"README.md", "getting-started.md", "publishing.md"} <= {page.name for page in PAGES}
