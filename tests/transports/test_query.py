"""The parameters of reading requests (spec, section 8.2)."""

from __future__ import annotations

import pytest

from tellwire.errors import BadRequest
from tellwire.transports.requests import Query, Scope


def scope(query: str, **headers: str) -> Scope:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"query_string": query.encode(), "headers": fields}


def start(query: str, **headers: str) -> tuple[str | None, int | None]:
    return Query(scope(query)).start(scope(query, **headers))


def test_reading_begins_where_the_query_says() -> None:
    assert start("channel=a") == (None, None)
    assert start("channel=a&since=k.1") == ("k.1", None)
    assert start("channel=a&last=5") == (None, 5)


def test_last_event_id_comes_before_what_the_address_says() -> None:
    assert start("since=k.1", last_event_id="k.9") == ("k.9", None)
    # An EventSource that was opened with ?last=5 reconnects with the same address.
    assert start("last=5", last_event_id="k.9") == ("k.9", None)


def test_an_empty_last_event_id_says_nothing() -> None:
    assert start("last=5", last_event_id="") == (None, 5)


def test_an_endless_cursor_is_refused() -> None:
    with pytest.raises(BadRequest, match="at most 512 bytes"):
        start("", last_event_id="k.1" * 200)


@pytest.mark.parametrize("value", ["x", "1.5", "%D9%A3", "9" * 20])
def test_whole_numbers_are_whole(value: str) -> None:
    with pytest.raises(BadRequest, match="not a whole number"):
        Query(scope(f"limit={value}")).integer("limit")


@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf", "1e10"])
def test_seconds_are_finite_and_not_negative(value: str) -> None:
    with pytest.raises(BadRequest, match="not a number of seconds"):
        Query(scope(f"wait={value}")).seconds("wait")


def test_channels_are_named_once_each_in_their_order() -> None:
    assert Query(scope("channel=b&channel=a&channel=b")).need_channels() == ["b", "a"]
    with pytest.raises(BadRequest, match="no channel is named"):
        Query(scope("since=now")).need_channels()
