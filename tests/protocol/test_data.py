"""The data of messages between JSON and MessagePack (spec, section 9)."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellwire.errors import InvalidData, Malformed, RequestError
from tellwire.protocol.data import DEPTH_MAX, check_data, check_json, check_packed, to_json, to_packed

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode

# Without surrogates, which UTF-8 has not.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
json_values = st.recursive(
    scalars | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts.filter(lambda t: t != "$bytes"), inner, max_size=4)
    ),
    max_leaves=12,
)
packed_values = st.recursive(
    scalars | texts | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts.filter(lambda t: t != "$bytes"), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_json_goes_to_messagepack_and_back(value: Any) -> None:
    text = check_json(json.dumps(value).encode())
    packed = to_packed(text)
    assert unpack(packed) == value
    assert json.loads(to_json(packed)) == value


@given(packed_values)
def test_messagepack_goes_to_json_and_back(value: Any) -> None:
    packed = check_packed(pack(value))
    text = to_json(packed)
    assert unpack(to_packed(check_json(text))) == value


@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_are_kept_or_refused(data: bytes, packed: bool) -> None:
    try:
        kept = check_data(data, packed=packed)
    except RequestError:
        return
    # What was let in can be had in either language.
    if packed:
        check_json(to_json(kept))
    else:
        check_packed(to_packed(kept))


@given(st.text(alphabet='{}[]",:\\u0019.eE-+ntrfalsu$byd8\r\n ', max_size=60))
def test_text_that_looks_like_json_is_kept_or_refused(text: str) -> None:
    try:
        kept = check_json(text.encode())
    except RequestError:
        return
    assert b"\n" not in kept
    assert b"\r" not in kept
    check_packed(to_packed(kept))


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_line_ends_between_tokens_become_spaces(end: bytes) -> None:
    kept = check_json(b"{" + end + b'"a":' + end + b"1}" + end)
    assert json.loads(kept) == {"a": 1}
    assert b"\n" not in kept
    assert b"\r" not in kept


def test_line_ends_in_a_string_stay_escaped() -> None:
    text = b'"a\\r\\nb"'
    assert check_json(text) == text
    assert unpack(to_packed(text)) == "a\r\nb"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_depth_is_counted_alike_in_both_languages(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"

    def nested(depth: int) -> bytes:
        return opening * depth + b"1" + closing * depth

    def nested_packed(depth: int) -> bytes:
        return (b"\x91" if opening == b"[" else b"\x81\xa1a") * depth + b"\x01"

    assert to_packed(check_json(nested(DEPTH_MAX))) == nested_packed(DEPTH_MAX)
    assert to_json(check_packed(nested_packed(DEPTH_MAX))) == nested(DEPTH_MAX)
    for check, data in ((check_json, nested(DEPTH_MAX + 1)), (check_packed, nested_packed(DEPTH_MAX + 1))):
        with pytest.raises(InvalidData, match="nested more than 100 deep"):
            check(data)


@pytest.mark.parametrize("text", [b'"%b"' % (b"[{" * DEPTH_MAX), b"[%b]" % b",".join([b"[{}]"] * DEPTH_MAX)])
def test_many_brackets_are_not_taken_for_deep_ones(text: bytes) -> None:
    assert check_json(text) == text


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_endless_nesting_is_refused(depth: int) -> None:
    with pytest.raises(InvalidData):
        check_json(b"[" * depth + b"]" * depth)
    with pytest.raises(InvalidData):
        check_packed(b"\x91" * depth + b"\xc0")


def test_bytes_are_base64_in_json() -> None:
    assert to_json(pack(b"\x00\xff")) == b'{"$bytes":"AP8="}'
    assert unpack(to_packed(b'{"a":[{"$bytes":"AP8="}]}')) == {"a": [b"\x00\xff"]}


def test_bytes_are_found_under_an_escaped_key() -> None:
    assert unpack(to_packed(b'{"\\u0024bytes":"AP8="}')) == b"\x00\xff"


@pytest.mark.parametrize(
    "text",
    [
        b'{"$bytes":"not base64"}', b'{"$bytes":1}', b'{"$bytes":"AP8=","more":1}',
        b'{"$bytes":"\\u00e9"}', '{"$bytes":"AP8é"}'.encode(), b'{"$bytes":"AP8"}',
    ],
)  # fmt: skip
def test_what_only_resembles_bytes_stays_as_it_is(text: bytes) -> None:
    assert unpack(to_packed(text)) == json.loads(text)


def test_integers_beyond_64_bits_become_floats_for_messagepack() -> None:
    text = check_json(b'{"big":18446744073709551616,"small":-9223372036854775809,"fits":18446744073709551615}')
    assert unpack(to_packed(text)) == {"big": 2.0**64, "small": -(2.0**63), "fits": 2**64 - 1}
    assert unpack(to_packed(b"9" * 400)) == "9" * 400  # no float reaches so far


def test_integers_beyond_64_bits_become_floats_beside_bytes() -> None:
    text = b'{"big":18446744073709551616,"raw":{"$bytes":"AP8="}}'
    assert unpack(to_packed(text)) == {"big": 2.0**64, "raw": b"\x00\xff"}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_refused(number: float) -> None:
    for value in (number, [number], {"a": number}):
        with pytest.raises(InvalidData, match="NaN or an infinity"):
            check_packed(pack(value))
    with pytest.raises(InvalidData):
        check_json(b"1e999")


@pytest.mark.parametrize("value", [{1: 2}, {b"a": 1}, [{None: 1}]])
def test_keys_other_than_strings_are_refused(value: Any) -> None:
    with pytest.raises(InvalidData, match="keys must be strings"):
        check_packed(pack(value))


@pytest.mark.parametrize("packed", [b"\xd4\x05a", b"\xd6\xff\x00\x00\x00\x00", b"\x91\xd4\x05a"])
def test_messagepack_extensions_are_refused(packed: bytes) -> None:
    with pytest.raises(InvalidData, match="which JSON has not"):
        check_packed(packed)


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_is_not_data(packed: bool) -> None:
    with pytest.raises(Malformed, match="data is empty"):
        check_data(b"", packed=packed)
