"""Long payloads in parts (spec, section 17.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellwire.protocol.codecs import CODECS, Codec
from tellwire.protocol.parts import Joiner, is_part, split
from tellwire.protocol.pushes import Heartbeat, Pong


@given(st.binary(min_size=1, max_size=5000), st.integers(2, 2000))
def test_what_is_split_is_joined_again(payload: bytes, limit_bytes: int) -> None:
    parts = list(split(payload, limit_bytes))
    assert all(is_part(part) and len(part) <= limit_bytes for part in parts)
    joiner = Joiner(len(payload))
    found = [joiner.add(part) for part in parts]
    assert found == [*[None] * (len(parts) - 1), payload]
    assert joiner.is_empty


def test_joiner_keeps_no_more_than_its_limit() -> None:
    joiner = Joiner(100)
    joiner.add(b"\1" + bytes(60))
    assert not joiner.is_empty
    with pytest.raises(OverflowError, match="at most 100 bytes"):
        joiner.add(b"\0" + bytes(60))


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_no_push_looks_like_a_part(codec: Codec) -> None:
    for push in (Pong(1), Heartbeat("a.1")):
        assert not is_part(codec.encode(push))
