"""The table of codes in the spec is that of the code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from docs import code_tables
from tellwire.errors import CLOSE_MEANINGS, CloseCode, comes_back, error_classes


def codes() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(code_tables.CODES.read_text())
    return loaded


def test_codes_json_is_what_the_code_says() -> None:
    assert code_tables.CODES.read_text() == code_tables.codes_json(), "run make docs"


@pytest.mark.parametrize("page", code_tables.PAGES, ids=lambda page: page.name)
def test_pages_hold_the_tables_as_they_are_now(page: Any) -> None:
    text = page.read_text()
    assert text == code_tables.with_tables(text), "run make docs"
    for name in code_tables.tables():
        assert f"<!-- codes: {name} -->" in text


def test_every_error_and_close_code_is_there_once() -> None:
    listed = [error["code"] for error in codes()["errors"]]
    assert sorted(listed) == sorted(error_classes())
    assert [close["code"] for close in codes()["close_codes"]] == [int(code) for code in CloseCode]
    assert list(CLOSE_MEANINGS) == list(CloseCode)


def test_errors_name_close_codes_that_exist() -> None:
    known = {close["code"] for close in codes()["close_codes"]}
    assert {error["close_code"] for error in codes()["errors"]} - {None} <= known


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1000, False),
        (1001, True),
        (1006, True),
        (1008, False),
        (1012, True),
        (3000, True),
        (4000, True),
        (4499, True),
        (4500, False),
        (4999, False),
    ],
)
def test_the_range_decides_who_comes_back(code: int, expected: bool) -> None:
    assert comes_back(code) is expected
