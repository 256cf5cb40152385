"""Server-Sent Events: the writer, and the parser however its bytes are cut (HTML standard, section 9.2)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellwire.protocol import sse
from tellwire.protocol.sse import Event, EventParser, write_event, write_retry

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
# Streams in which the letters that mean something are likely.
streams = st.lists(
    st.sampled_from(
        [b"data", b"event", b"id", b"retry", b":", b" ", b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"12", b"x"]
    )
    | st.sampled_from(["\ufeff".encode(), "é".encode(), "\u2028".encode(), b"\xff", b"\xe2\x80"]),
    max_size=40,
).map(b"".join)


def read(*chunks: bytes) -> list[Event]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def read_plainly(stream: bytes) -> list[Event]:
    """Read a whole stream as the standard says it, section 9.2.6, word by word."""
    text = stream.decode(errors="replace").removeprefix("\ufeff")
    events: list[Event] = []
    last_id = id_buffer = event = ""
    data = ""
    for line in re.split(r"\r\n|\r|\n", text)[:-1]:
        if not line:
            last_id = id_buffer
            if data:
                events.append(Event(event or "message", data[:-1], last_id))
            data = event = ""
            continue
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        match name:
            case "data":
                data += value + "\n"
            case "event":
                event = value
            case "id" if "\0" not in value:
                id_buffer = value
    return events


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    places = sorted({place % (len(stream) + 1) for place in places})
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


@given(streams)
def test_parser_reads_what_the_standard_says(stream: bytes) -> None:
    assert read(stream) == read_plainly(stream)


@given(streams, st.lists(st.integers(0, 200), max_size=12))
def test_any_cut_of_a_stream_gives_the_same_events(stream: bytes, places: list[int]) -> None:
    assert read(*cut(stream, places)) == read(stream)


@given(streams)
def test_a_stream_byte_by_byte_gives_the_same_events(stream: bytes) -> None:
    assert read(*(stream[i : i + 1] for i in range(len(stream)))) == read(stream)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_arbitrary_bytes_harm_no_parser(stream: bytes, places: list[int]) -> None:
    assert read(*cut(stream, places)) == read_plainly(stream)


@given(
    texts,
    texts.filter(lambda t: not set(t) & set("\r\n")),
    st.none() | st.from_regex(r"[a-z0-9]{1,8}\.[0-9]{1,9}", fullmatch=True),
)
def test_what_is_written_is_read(data: str, event: str, id_: str | None) -> None:
    (got,) = read(write_event(data, event or "message", id_))
    ends_joined = re.sub(r"\r\n|\r", "\n", data)
    assert got == Event(event or "message", ends_joined, id_ or "")


def test_a_stream_without_its_last_line_end_dispatches_nothing() -> None:
    assert read(b"data: 1\n") == []
    assert read(b"data: 1\n\ndata: 2") == [Event("message", "1", "")]


def test_an_id_without_data_is_kept_and_nothing_dispatched() -> None:
    parser = EventParser()
    assert parser.feed(b"id: k.7\n\n") == []
    assert parser.last_event_id == "k.7"
    assert parser.feed(b"data: x\n\n") == [Event("message", "x", "k.7")]


def test_an_id_counts_only_once_its_block_ends() -> None:
    parser = EventParser("k.1")
    parser.feed(b"id: k.2\n")
    assert parser.last_event_id == "k.1"
    parser.feed(b"\n")
    assert parser.last_event_id == "k.2"


def test_an_id_with_nul_is_ignored() -> None:
    assert read(b"id: a\ndata: 1\n\nid: b\0\ndata: 2\n\n")[1].id == "a"


@pytest.mark.parametrize(("value", "retry_ms"), [(b"250", 250), (b"1.5", None), (b"-1", None), (b"", None)])
def test_retry_takes_digits_only(value: bytes, retry_ms: int | None) -> None:
    parser = EventParser()
    parser.feed(b"retry: " + value + b"\n\n")
    assert parser.retry_ms == retry_ms


def test_write_retry_is_a_block_of_its_own() -> None:
    parser = EventParser()
    assert parser.feed(write_retry(1500) + b"data: 1\n\n") == [Event("message", "1", "")]
    assert parser.retry_ms == 1500


def test_the_keep_alive_is_no_event() -> None:
    assert read(sse.KEEP_ALIVE, sse.KEEP_ALIVE) == []


def test_an_event_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_MAX_BYTES", 100)
    parser = EventParser()
    parser.feed(b"data: " + b"x" * 90)
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        parser.feed(b"x" * 10)


def test_many_lines_of_one_event_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_MAX_BYTES", 100)
    parser = EventParser()
    for _ in range(14):
        parser.feed(b"data: 123456\n")
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        parser.feed(b"data: 123456\n")


def test_events_of_a_good_size_are_never_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_MAX_BYTES", 100)
    parser = EventParser()
    assert sum(len(parser.feed(b"data: " + b"x" * 60 + b"\n\n")) for _ in range(20)) == 20
