"""The two languages that commands and pushes are written in: JSON and MessagePack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import msgspec
from msgspec import Raw

from tellwire.errors import BadRequest, Malformed, UnknownCommand
from tellwire.message import Message
from tellwire.protocol.commands import COMMANDS, AnyCommand
from tellwire.protocol.data import to_json, to_packed
from tellwire.protocol.internal import is_internal, push_of
from tellwire.protocol.pushes import MessagePush, Push

_NAMES = ", ".join(str(command.__struct_config__.tag) for command in COMMANDS)


class Codec(ABC):
    """One language of the wire: bytes to commands, and pushes to bytes."""

    name: str
    subprotocol: str
    """How the WebSocket handshake calls it (RFC 6455, section 1.9)."""
    binary: bool
    """Whether it goes in binary frames; the other kind is refused with 1003."""
    _module: Any
    """msgspec.json or msgspec.msgpack."""

    def __init__(self) -> None:
        self._decode = self._module.Decoder(AnyCommand).decode
        self._encode = self._module.Encoder().encode

    def decode(self, payload: bytes) -> AnyCommand:
        """Read one command.

        Raises Malformed (not of this language at all), UnknownCommand or BadRequest; the last two carry the command's
        ``ref`` as ``exc.ref``, if it had one, so that the answer finds its question.
        """
        try:
            command: AnyCommand = self._decode(payload)
        except msgspec.ValidationError as exc:
            raise self._explain(payload, exc) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Malformed(f"not {self.name}: {exc}") from None
        return command

    def encode(self, push: Push) -> bytes:
        """Write one push or reply."""
        encoded: bytes = self._encode(push)
        return encoded

    def message(self, message: Message) -> bytes:
        """Write the push that carries a message."""
        if is_internal(message.channel):
            return self.encode(push_of(message, self._translate))
        encoded: bytes = self._encode(
            MessagePush(
                message.channel,
                message.id,
                message.time,
                message.event,
                Raw(self.data(message)),
                message.seq,
                message.key,
                not message.seq,
                message.trace,
            )
        )
        return encoded

    @staticmethod
    @abstractmethod
    def _translate(text: bytes) -> bytes:
        """Turn JSON into this language."""

    @abstractmethod
    def data(self, message: Message) -> bytes:
        """Return the data of a message in this language."""

    def _explain(self, payload: bytes, exc: msgspec.ValidationError) -> BadRequest:
        error: BadRequest
        try:
            whole = self._module.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as worse:
            return Malformed(f"not {self.name}: {worse}")
        if not isinstance(whole, dict):
            error = BadRequest(f"a command is an object with a type, such as {_NAMES}; got {type(whole).__name__}")
            whole = {}
        elif "type" not in whole:
            error = BadRequest(f"a command needs a type: one of {_NAMES}")
        elif whole["type"] not in _NAMES.split(", "):
            shown = ascii(whole["type"])[:40]
            error = UnknownCommand(f"no command is called {shown}; there are {_NAMES}")
        else:
            error = BadRequest(f"{whole['type']}: {exc}")
        ref = whole.get("ref")
        error.ref = ref if type(ref) in (int, str) else None
        return error


class _Json(Codec):
    name = "JSON"
    subprotocol = "tellwire.v1.json"
    binary = False
    _module = msgspec.json

    @staticmethod
    def _translate(text: bytes) -> bytes:
        return text

    def data(self, message: Message) -> bytes:
        return to_json(message.data) if message.packed else message.data


class _MessagePack(Codec):
    name = "MessagePack"
    subprotocol = "tellwire.v1.msgpack"
    binary = True
    _module = msgspec.msgpack

    @staticmethod
    def _translate(text: bytes) -> bytes:
        return to_packed(text)

    def data(self, message: Message) -> bytes:
        return message.data if message.packed else to_packed(message.data)


JSON: Codec = _Json()
MSGPACK: Codec = _MessagePack()
CODECS: dict[str, Codec] = {codec.subprotocol: codec for codec in (JSON, MSGPACK)}
"""WebSocket subprotocol -> codec, in the server's order of preference."""
