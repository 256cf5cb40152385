from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellwire.errors import InvalidCursor
from tellwire.message import CURSOR_MAX_BYTES, SEQ_MAX, Cursor, Gap, Message, Position, parse_since, trace_of

EPOCHS = st.from_regex(r"[A-Za-z0-9]{1,32}", fullmatch=True).filter(str.isascii)
POSITIONS = st.builds(Position, EPOCHS, st.integers(0, SEQ_MAX))


@given(POSITIONS)
def test_position_is_read_back_as_it_was_written(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(st.lists(POSITIONS, min_size=1, max_size=5).map(tuple))
def test_cursor_is_read_back_as_it_was_written(parts: tuple[Position, ...]) -> None:
    assert Cursor.parse(str(Cursor(parts))) == Cursor(parts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "k.",
        ".1",
        "k.-1",
        "k.01",
        "k.1.2",
        "k. 1",
        "k.1 ",
        "k.1\n",
        "k.١",
        "ключ.1",
        "k-1.1",
        "k" * 33 + ".1",
        f"k.{SEQ_MAX + 1}",
        "k." + "9" * 1000,
        "k.1e3",
    ],
)
def test_position_refuses_what_is_none(text: str) -> None:
    with pytest.raises(InvalidCursor, match=r"is not a position; one looks like k3f9q2ab\.1042"):
        Position.parse(text)
    with pytest.raises(InvalidCursor):
        Cursor.parse(text)
    with pytest.raises(InvalidCursor):
        Cursor.parse(f"k.1,{text}")


@given(st.text())
def test_cursor_of_any_text_is_read_or_refused(text: str) -> None:
    refused = ""
    try:
        assert str(Cursor.parse(text)) == text
    except InvalidCursor as exc:
        refused = exc.detail
    assert refused.isprintable()
    assert len(refused) < 800


def test_cursor_of_too_many_parts_is_refused_unread() -> None:
    with pytest.raises(InvalidCursor, match=f"at most {CURSOR_MAX_BYTES} bytes; this one has 7999"):
        Cursor.parse(",".join(["abcde.1"] * 1000))


def test_position_error_shortens_and_escapes_what_it_shows() -> None:
    with pytest.raises(InvalidCursor) as caught:
        Position.parse("\x1b[31m" + "x" * 1000)
    assert "\\x1b[31mxxx" in caught.value.detail
    assert len(caught.value.detail) < 150


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, "now"),
        ("now", "now"),
        ("earliest", "earliest"),
        (0, 0),
        ("0", 0),
        ("1042", 1042),
        (SEQ_MAX, SEQ_MAX),
        (str(SEQ_MAX), SEQ_MAX),
        ("k.0", Cursor((Position("k", 0),))),
        ("k.1,l.2", Cursor((Position("k", 1), Position("l", 2)))),
    ],
)
def test_since_is_a_cursor_a_number_or_a_word(given: str | int | None, read: object) -> None:
    assert parse_since(given) == read


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (-1, "out of range"),
        (SEQ_MAX + 1, "out of range"),
        (str(SEQ_MAX + 1), "out of range"),
        ("-1", "besides cursors, an integer, 'now' and 'earliest' are understood"),
        ("007", "besides cursors"),
        ("Now", "besides cursors"),
        ("", "besides cursors"),
        ("9" * 100, "besides cursors"),
    ],
)
def test_since_refuses_anything_else(given: str | int, sentence: str) -> None:
    with pytest.raises(InvalidCursor, match=sentence):
        parse_since(given)


def test_position_orders_by_seq_within_an_epoch() -> None:
    assert Position("k", 9) < Position("k", 10)


def test_message_size_counts_all_of_its_texts() -> None:
    small = Message("a", 1, "i", 0, b"", event="")
    assert small.size == 122
    assert Message("aa", 1, "ii", 0, b"1234", event="eee", key="kkkkk").size == small.size + 1 + 1 + 4 + 3 + 5
    assert Message("a", 1, "i", 0, b"", event="", trace="t" * 55).size == small.size + 55


def test_gap_is_written_with_from() -> None:
    gap = Gap("k.1", "k.5", "trimmed", ("a",))
    assert msgspec.to_builtins(gap) == {"from": "k.1", "to": "k.5", "reason": "trimmed", "channels": ("a",)}


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("text", [f"00-{TRACE}", f"01-{TRACE}", f"cc-{TRACE}-what-will-be"])
def test_trace_is_kept_as_far_as_it_is_understood(text: str) -> None:
    assert trace_of(text) == f"00-{TRACE}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        TRACE,
        f"ff-{TRACE}",
        f"00-{TRACE}-more",
        f"00-{TRACE}x",
        f"00-{TRACE}\n",
        f"01-{TRACE}more",
        f"00-{TRACE.upper()}",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        f"01-{TRACE}-{'x' * 1_000_000}",
        f"00-{TRACE.replace('4', chr(0x664))}",
    ],
)
def test_trace_that_is_none_is_left_out(text: str) -> None:
    assert trace_of(text) == ""
