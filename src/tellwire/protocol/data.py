"""The data of messages between JSON and MessagePack.

What one client publishes in JSON another reads in MessagePack, and the other way round. Bytes, which JSON has not,
stand there as ``{"$bytes": "base64"}``. Data is kept as it was published and translated once for each codec that is
read; so what cannot be translated has to be refused when it is published.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import msgspec

from tellwire.errors import InvalidData, Malformed

BYTES_KEY = "$bytes"
DEPTH_MAX = 100
"""Most maps and lists within each other in data: below what the decoders of common languages take."""

_decode_json = msgspec.json.Decoder().decode
_decode_packed = msgspec.msgpack.Decoder().decode
_CR, _LF = b"\r\n"
_UNBREAKABLE = bytes.maketrans(b"\r\n", b"  ")


def check_json(text: bytes) -> bytes:
    """Return the text of one JSON value, as it was given but on one line; raise InvalidData where it is none.

    Line ends can only stand between the tokens of JSON (RFC 8259, sections 2 and 7), where a space means the same.
    """
    try:
        value = _decode_json(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidData(f"data is not a JSON value that can be carried: {exc}") from None
    # A value is nested no deeper than it has brackets, so that few have to be walked through. Nothing else that the
    # walk looks for comes out of JSON: its keys are strings, and the decoder refuses numbers beyond a double.
    if text.count(b"[") + text.count(b"{") > DEPTH_MAX:
        _check_tree(value, 1)
    if _LF in text or _CR in text:  # as numbers: found six times as fast as texts of one byte
        return text.translate(_UNBREAKABLE)
    return text


def check_packed(packed: bytes) -> bytes:
    """Return one MessagePack object as it was given; raise InvalidData for what JSON could not carry either."""
    try:
        value = _decode_packed(packed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as exc:
        raise InvalidData(f"data is not a MessagePack object that can be carried: {exc}") from None
    if type(value) not in (str, bytes, bool, int):
        _check_tree(value, 1)
    return packed


def _check_tree(value: Any, depth: int) -> None:
    """Refuse what only one of the languages has; `depth` is that of `value` if it is a map or a list."""
    kind = type(value)
    if depth > DEPTH_MAX and kind in (dict, list):
        raise InvalidData(f"data is nested more than {DEPTH_MAX} deep")
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise InvalidData(f"a map in data has the key {key!r}; keys must be strings, as in JSON")
            _check_tree(item, depth + 1)
    elif kind is list:
        for item in value:
            _check_tree(item, depth + 1)
    elif kind is float:
        if not math.isfinite(value):
            raise InvalidData("data holds a NaN or an infinity, which JSON has not")
    elif kind not in (str, int, bool, bytes, type(None)):
        raise InvalidData(f"data holds a MessagePack {kind.__name__}, which JSON has not")


def to_packed(text: bytes) -> bytes:
    """Translate checked JSON to MessagePack; integers beyond 64 bits become floats, as most readers of JSON do."""
    value = _decode_json(text)
    try:
        return msgspec.msgpack.encode(_from_json(value) if _may_hold_bytes(text) else value)
    except OverflowError:
        return msgspec.msgpack.encode(_shrink(value))


def to_json(packed: bytes) -> bytes:
    """Translate checked MessagePack to JSON."""
    return msgspec.json.encode(_for_json(_decode_packed(packed)))


def to_value(data: bytes, *, packed: bool) -> Any:
    """Return data that was checked as a Python value, with bytes as bytes whichever language it is in."""
    if packed:
        return _decode_packed(data)
    value = _decode_json(data)
    return _from_json(value) if _may_hold_bytes(data) else value


def _may_hold_bytes(text: bytes) -> bool:
    # Any letter of the key may be written as an escape.
    return b"$bytes" in text or b"\\u" in text


def _from_json(value: Any) -> Any:
    if type(value) is dict:
        if len(value) == 1 and type(text := value.get(BYTES_KEY)) is str:
            try:
                return base64.b64decode(text, validate=True)
            except ValueError:  # also of text beyond ASCII, which is no binascii.Error
                return value
        return {key: _from_json(item) for key, item in value.items()}
    if type(value) is list:
        return [_from_json(item) for item in value]
    return _shrink(value)


def _shrink(value: Any) -> Any:
    if type(value) is int and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return str(value)
    if type(value) is dict:
        return {key: _shrink(item) for key, item in value.items()}
    if type(value) is list:
        return [_shrink(item) for item in value]
    return value


def _for_json(value: Any) -> Any:
    if type(value) is bytes:
        return {BYTES_KEY: base64.b64encode(value).decode("ascii")}
    if type(value) is dict:
        return {key: _for_json(item) for key, item in value.items()}
    if type(value) is list:
        return [_for_json(item) for item in value]
    return value


def check_data(data: bytes, *, packed: bool) -> bytes:
    """Return data as it is kept, or raise InvalidData; see check_json and check_packed."""
    if not data:
        raise Malformed("data is empty")
    return check_packed(data) if packed else check_json(data)
