"""Where a token is found, and where it must not be seen."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellwire.auth import find_token, redact
from tellwire.errors import Unauthorized
from tests.auth.signing import signed

BEARER = (b"authorization", b"Bearer from-header")
COOKIE = (b"cookie", b"theme=dark; tellwire_token=from-cookie; x=y")


def find(
    headers: list[tuple[bytes, bytes]],
    query: bytes = b"",
    subprotocols: tuple[str, ...] = (),
    cookie: str | None = "tellwire_token",
) -> str | None:
    return find_token(headers, query, subprotocols, cookie)


def test_the_first_place_wins() -> None:
    protocols = ("tellwire.v1.json", "tellwire.token.from-protocol")
    assert find([COOKIE, BEARER], b"a=1&token=from-query", protocols) == "from-header"
    assert find([COOKIE], b"a=1&token=from-query", protocols) == "from-query"
    assert find([COOKIE], b"a=1", protocols) == "from-protocol"
    assert find([COOKIE], b"a=1", protocols[:1]) == "from-cookie"
    assert find([], b"a=1", protocols[:1]) is None


@pytest.mark.parametrize("value", [b"Bearer abc", b"bearer abc", b"BEARER   abc ", b" Bearer abc"])
def test_bearer_is_read_as_servers_do(value: bytes) -> None:
    assert find([(b"authorization", value)]) == "abc"


@pytest.mark.parametrize("value", [b"Basic YTpi", b"Bearer", b"Bearer ", b"", b"abc", b"Bearerabc"])
def test_authorization_of_another_kind(value: bytes) -> None:
    field = (b"authorization", value)
    assert find([field], b"token=abc") == "abc"
    assert find([field, COOKIE]) == "from-cookie"
    with pytest.raises(Unauthorized, match="Authorization: Bearer"):
        find([field])


@pytest.mark.parametrize(
    ("query", "token"),
    [
        (b"token=abc", "abc"),
        (b"channel=a&token=a.b.c&since=1", "a.b.c"),
        (b"token=&token=second", "second"),
        (b"token=a%2Eb", "a.b"),
        (b"token=", None),
        (b"token", None),
        (b"xtoken=abc", None),
        (b"Token=abc", None),
        (b"%74oken=abc", None),
        (b"", None),
        (b"&&&=&", None),
    ],
)
def test_query(query: bytes, token: str | None) -> None:
    assert find([], query) == token


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"tellwire_token=abc", "abc"),
        (b'tellwire_token="abc"', "abc"),
        (b" tellwire_token = abc ", "abc"),
        (b"a=tellwire_token=x; tellwire_token=abc", "abc"),
        (b"tellwire_token=; tellwire_token=abc", "abc"),
        (b"tellwire_token=a=b", "a=b"),
        (b"xtellwire_token=abc", None),
        (b"tellwire_token", None),
        (b";;;=;", None),
        (b"\xff\x00", None),
    ],
)
def test_cookie(value: bytes, token: str | None) -> None:
    assert find([(b"cookie", value)]) == token


def test_cookies_in_several_fields_and_by_another_name() -> None:
    fields = [(b"cookie", b"a=b"), (b"cookie", b"session=abc")]
    assert find(fields, cookie="session") == "abc"
    assert find(fields, cookie="a") == "b"


def test_cookies_count_only_where_they_may() -> None:
    assert find([COOKIE], cookie=None) is None


@given(
    headers=st.lists(
        st.tuples(st.sampled_from([b"authorization", b"cookie", b"host"]), st.binary() | st.just(b"Bearer x")),
        max_size=4,
    ),
    query=st.binary() | st.binary().map(lambda tail: b"token=" + tail),
    subprotocols=st.lists(st.text() | st.text().map("tellwire.token.{}".format), max_size=3),
)
def test_nothing_but_documented_errors(
    headers: list[tuple[bytes, bytes]], query: bytes, subprotocols: list[str]
) -> None:
    try:
        token = find_token(headers, query, subprotocols, "tellwire_token")
    except Unauthorized:
        return
    assert token is None or token


TOKEN = signed({"sub": "alice"})


@pytest.mark.parametrize(
    "line",
    [
        f"GET /v1/events?channel=a&token={TOKEN}&since=1 HTTP/1.1",
        f"?token={TOKEN}",
        f"token={TOKEN}",
        f"Authorization: Bearer {TOKEN}",
        f"authorization: bearer  {TOKEN}",
        f"Sec-WebSocket-Protocol: tellwire.v1.json, tellwire.token.{TOKEN}, x",
        f"Cookie: tellwire_token={TOKEN}; a=b",
        f"Cookie: other={TOKEN}",
        f'{{"type":"connect","token":"{TOKEN}"}}',
        f"next={quote('/v1/events?token=' + TOKEN)}",
        TOKEN,
        f"{TOKEN} and {TOKEN}",
    ],
)
def test_tokens_are_taken_out_of_lines(line: str) -> None:
    shown = redact(line)
    assert "[redacted]" in shown
    assert not any(part in shown for part in TOKEN.split("."))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/v1/events?token=opaque&channel=a", "/v1/events?token=[redacted]&channel=a"),
        ("Authorization: Bearer 0123456789", "Authorization: Bearer [redacted]"),
        ("tellwire.token.opaque, x", "tellwire.token.[redacted], x"),
    ],
)
def test_what_is_no_jwt_is_taken_out_too(line: str, shown: str) -> None:
    assert redact(line) == shown


@pytest.mark.parametrize(
    "line",
    ["", "GET /v1/events?channel=tokens HTTP/1.1", "a Bearer of news", "the token expired 5 minutes ago", "a.b.c"],
)
def test_other_lines_stay(line: str) -> None:
    assert redact(line) == line


@given(st.binary(min_size=1))
def test_what_the_query_gives_is_not_in_the_log(secret: bytes) -> None:
    query = b"channel=c&token=" + quote(secret).encode()
    assert find_token([], query) is not None
    assert redact("/v1/events?" + query.decode()) == "/v1/events?channel=c&token=[redacted]"
