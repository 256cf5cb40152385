from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellwire.errors import InvalidChannel
from tellwire.names import CHANNEL_MAX_CHARS, Namespace, Namespaces, check_channel

FIRST = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
ALLOWED = FIRST + "_-.:/@=+~#$!"


@pytest.mark.parametrize(
    "name", ["a", "0", "news", "room:42", "a.b/c@d=e+f~g#h$i!j_k-l", "a:", "a" * CHANNEL_MAX_CHARS]
)
def test_channel_may_be_called(name: str) -> None:
    assert check_channel(name) == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "is empty; it needs 1 to 255 characters"),
        ("a" * 256, "at most 255 characters; this one has 256"),
        ("a..b", "may not hold '..'"),
        ("..", "must begin with a letter or digit"),
        (":a", "must begin with a letter or digit"),
        ("_a", "must begin with a letter or digit"),
        ("a b", "may hold A-Z a-z 0-9"),
        ("a\n", "may hold"),
        ("a\0", "may hold"),
        ("a*", "may hold"),
        ("a?", "may hold"),
        ("a,b", "may hold"),
        ("é", "must begin"),
        ("a٣", "may hold"),
    ],
)
def test_channel_may_not_be_called(name: str, sentence: str) -> None:
    with pytest.raises(InvalidChannel, match=sentence):
        check_channel(name)


@given(st.text() | st.text(ALLOWED))
def test_channel_of_any_name_is_taken_or_refused(name: str) -> None:
    fine = 0 < len(name) <= 255 and name[0] in FIRST and all(char in ALLOWED for char in name) and ".." not in name
    refused = ""
    try:
        check_channel(name)
    except InvalidChannel as exc:
        refused = exc.detail
    assert fine is not bool(refused)
    assert refused.isascii()
    assert len(refused) < 800


def test_namespace_is_found_by_what_stands_before_the_colon() -> None:
    game, default = Namespace("game"), Namespace(history_messages=7)
    namespaces = Namespaces([game, default])
    assert namespaces.default is default
    for channel in ("game:1", "game:", "game:1:2"):
        assert namespaces.of(channel) is game
    for channel in ("game", "games:1", "1:game", "default", "default:x", "unknown:1"):
        assert namespaces.of(channel) is default
    assert [each for each in namespaces if not each.name.startswith("$")] == [game, default]


def test_namespaces_have_a_default_without_being_told() -> None:
    assert Namespaces().of("a") == Namespace("default")
    assert {each.name for each in Namespaces([Namespace("game")])} == {
        "game",
        "default",
        "$presence",
        "$client",
        "$control",
    }


@pytest.mark.parametrize("name", ["", "a:b", "a b", "-a", "a" * 65, "é", "a\n"])
def test_namespace_may_not_be_called(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a namespace: 1 to 64 characters out of A-Z a-z 0-9 _ \. -"):
        Namespace(name)
