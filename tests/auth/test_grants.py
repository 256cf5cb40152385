"""What patterns allow."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellwire.auth import Grants, InvalidGrants, Operation

NAMES = st.text("ab:", max_size=8)
PATTERNS = st.text("ab:*", min_size=1, max_size=8)


def fits(pattern: str, name: str) -> bool:
    """The model: what a regular expression says."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None


@given(patterns=st.lists(PATTERNS, max_size=5), name=NAMES)
def test_patterns_fit_as_the_model_says(patterns: list[str], name: str) -> None:
    expected = any(fits(pattern, name) for pattern in patterns)
    assert Grants.of({"publish": patterns}).may("publish", name) is expected


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("news", ["news"], ["", "new", "news:", "xnews", "NEWS"]),
        ("news:*", ["news:", "news:a", "news:a:b"], ["news", "new", "xnews:a"]),
        ("*", ["", "a", "a:b"], []),
        ("**", ["", "a"], []),
        ("*:log", [":log", "a:log", "a:b:log"], ["log", "a:log:b"]),
        ("a*a", ["aa", "aba", "aaa"], ["a", "ab"]),
        ("room:*:chat:*", ["room:1:chat:", "room:1:2:chat:x"], ["room:chat:", "room:1:chat"]),
        ("ab*ab*ab", ["ababab", "ab-ab-ab", "abababab"], ["abab", "ababa", "aababab"]),
        ("a.c", ["a.c"], ["abc"]),
        ("a?[b]", ["a?[b]"], ["axb"]),
        ("ä*", ["ä1"], ["a1"]),
    ],
)
def test_pattern(pattern: str, fitting: list[str], others: list[str]) -> None:
    grants = Grants.of({"subscribe": ["elsewhere", pattern]})
    assert [name for name in fitting if not grants.may("subscribe", name)] == []
    assert [name for name in others if grants.may("subscribe", name)] == []


def test_each_operation_has_patterns_of_its_own() -> None:
    grants = Grants.of({"subscribe": ["a"], "call": ["b"]})
    operations: tuple[Operation, ...] = ("subscribe", "publish", "presence", "call", "admin")
    assert [grants.may(operation, "a") for operation in operations] == [True, False, False, False, False]
    assert [grants.may(operation, "b") for operation in operations] == [False, False, False, True, False]


def test_channels_may_be_subscribed_to_and_nothing_else() -> None:
    grants = Grants.of({"publish": ["x"]}, channels=["inbox:alice"])
    assert grants.may("subscribe", "inbox:alice")
    assert not grants.may("publish", "inbox:alice")
    assert not grants.may("subscribe", "inbox:bob")


def test_ready_made_grants() -> None:
    assert not Grants.NONE.may("subscribe", "a")
    assert Grants.ALL.may("subscribe", "a")
    assert Grants.ALL.may("call", "a")
    assert not Grants.ALL.may("admin", "stats")
    assert Grants.EVERYTHING.may("admin", "stats")


def test_grants_cannot_be_changed_and_compare_by_what_they_say() -> None:
    source = {"subscribe": ["a"]}
    grants = Grants.of(source)
    source["subscribe"].append("b")
    assert not grants.may("subscribe", "b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        grants.can = ()  # type: ignore[misc]
    assert grants == Grants.of({"subscribe": ["a"]}) != Grants.of({"publish": ["a"]})
    assert len({grants, Grants.of({"subscribe": ["a"]})}) == 1


def test_unknown_operations_grant_nothing() -> None:
    assert Grants.of({"fly": ["*"], "Subscribe": ["*"], "read": 5}) == Grants.NONE


@pytest.mark.parametrize(
    ("can", "says"),
    [
        ({"subscribe": "news:*"}, "can.subscribe has to be a list"),
        ({"publish": {"a": 1}}, "can.publish has to be a list"),
        ({"publish": None}, "can.publish has to be a list"),
        ({"call": ["a", 5]}, "can.call holds something that is not a text"),
        ({"presence": [""]}, "can.presence holds a pattern of 0 characters"),
        ({"presence": ["x" * 256]}, "can.presence holds a pattern of 256 characters"),
        ({"subscribe": ["a"] * 600, "publish": ["a"] * 401}, "can holds 1001 patterns"),
    ],
)
def test_what_is_no_list_of_patterns_is_refused(can: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidGrants, match=re.escape(says)):
        Grants.of(can)


def test_as_many_and_as_long_patterns_as_are_taken() -> None:
    hostile = "*".join("a" * 127 + "b")[:255]
    grants = Grants.of({"subscribe": [hostile] * 999 + ["x" * 255]})
    assert not grants.may("subscribe", "a" * 255)
    assert grants.may("subscribe", "x" * 255)


@given(st.recursive(st.none() | st.integers() | st.text(string.printable), lambda item: st.lists(item)))
def test_anything_else_is_refused_in_words(value: object) -> None:
    with contextlib.suppress(InvalidGrants):
        Grants.of({"subscribe": value})
