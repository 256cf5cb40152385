"""Commands and pushes as the messages of spec/tellwire.proto, both ways; needs the extra tellwire[grpc].

Names are the same on both sides, but for the few in `_RENAMED`. What both sides repeat, `Commands` and `Pushes`, has
one repeated field only: two of them, one behind the other, are one. So frames are joined as bytes, without a parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Proto
from msgspec import UNSET, Raw

from tellwire.errors import BadRequest, Malformed, UnknownCommand, UnsupportedMediaType
from tellwire.message import Gap, Message
from tellwire.protocol.codecs import JSON, MSGPACK, Codec
from tellwire.protocol.commands import COMMANDS, AnyCommand, Command, Publish
from tellwire.protocol.data import check_data, to_json, to_packed, to_value
from tellwire.protocol.encodings import Encoding
from tellwire.protocol.internal import is_internal, push_of
from tellwire.protocol.proto import tellwire_pb2 as pb
from tellwire.protocol.pushes import GapPush, PresencePush, Published, Push, Signal

JSON_TYPE = "application/json"
PACKED_TYPE = "application/msgpack"
BYTES_TYPE = "application/octet-stream"
AS_PUBLISHED = "*/*"

CHUNK_BYTES = 64 * 1024
"""About how many bytes of pushes go in one message: well below the 4 MiB that clients take by default."""

_RENAMED: dict[type, dict[str, str]] = {
    Gap: {"from_": "from_cursor", "to": "to_position"},
    GapPush: {"from_": "from_cursor", "to": "to_position"},
    Signal: {"from_": "sender"},
}
_WORDS: dict[str, dict[str, int]] = {
    "policy": {name.removeprefix("POLICY_").lower(): value for name, value in pb.Policy.items()},
    "on_gap": {name.removeprefix("ON_GAP_").lower(): value for name, value in pb.OnGap.items()},
    "reason": {name.removeprefix("REASON_").lower(): value for name, value in pb.Gap.Reason.items()},
}
"""The words of fields that are an enum here."""
_NUMBERS = {field: {number: word for word, number in words.items()} for field, words in _WORDS.items()}
_UNSAID = {("event", "message"), ("echo", True)}
"""What a field means where it is left out, other than nothing."""

_KINDS: dict[str, type[Command]] = {str(kind.__struct_config__.tag): kind for kind in COMMANDS}
_REQUIRED = {
    kind: [field.name for field in msgspec.structs.fields(kind) if field.required and field.type is str]
    for kind in COMMANDS
}


# Data


def read_data(data: pb.Data) -> tuple[bytes, bool]:
    """Return data that somebody sent, and whether it is MessagePack; nothing is checked but what it says it is."""
    kind = data.content_type
    if kind in ("", JSON_TYPE):
        return data.value, False
    if kind == PACKED_TYPE:
        return data.value, True
    if kind == BYTES_TYPE:
        return msgspec.msgpack.encode(data.value), True
    raise UnsupportedMediaType(f"data is read as {JSON_TYPE}, {PACKED_TYPE} or {BYTES_TYPE}, not {kind[:60]!a}")


def _write_data(target: pb.Data, value: bytes, *, packed: bool) -> None:
    target.value = value
    if packed:
        target.content_type = PACKED_TYPE


# What a client says


def read_command(command: pb.Command, *, packed: bool) -> tuple[AnyCommand, bool]:
    """Return a command, and whether its data is MessagePack.

    What a publish carries stays as it is; other data is put into MessagePack or JSON as `packed` says, so that the
    reply is in that language, too. Raises BadRequest, UnknownCommand and InvalidData with the command's ``ref``.
    """
    ref = command.ref if command.HasField("ref") else None
    try:
        kind = command.WhichOneof("command")
        if kind == "publish":
            return read_publish(command.publish, ref)
        if kind is None:
            names = ", ".join(_KINDS)
            raise UnknownCommand(f"the command is none that this server knows; there are {names}")
        return read_request(_KINDS[kind], getattr(command, kind), ref, packed=packed), packed
    except BadRequest as exc:
        exc.ref = ref
        raise
    except UnsupportedMediaType as exc:
        error = BadRequest(exc.detail)
        error.ref = ref
        raise error from None


def read_publish(request: pb.PublishRequest, ref: int | None = None) -> tuple[Publish, bool]:
    """Return a publish, and whether its data is MessagePack."""
    if request.HasField("data"):
        value, packed = read_data(request.data)
        data: Any = Raw(value)
    else:
        data, packed = UNSET, False
    command = Publish(
        ref=ref,
        channel=request.channel,
        data=data,
        id=request.id if request.HasField("id") else None,
        event=request.event or "message",
        key=request.key if request.HasField("key") else None,
        ephemeral=request.ephemeral,
        expect=request.expect if request.HasField("expect") else None,
        echo=request.echo if request.HasField("echo") else True,
        session=request.session if request.HasField("session") else None,
        trace=request.trace if request.HasField("trace") else None,
        again=request.again,
    )
    return command, packed


def read_request(kind: type[Command], request: Proto, ref: int | None = None, *, packed: bool) -> Any:
    """Return a command of a kind, its data in MessagePack or JSON as `packed` says."""
    fields: dict[str, Any] = dict.fromkeys(_REQUIRED[kind], "")
    for field, value in request.ListFields():
        if isinstance(value, pb.Data):
            given, was_packed = read_data(value)
            checked = check_data(given, packed=was_packed)
            if was_packed is not packed:
                checked = to_packed(checked) if packed else to_json(checked)
            fields[field.name] = Raw(checked)
        elif field.name in _NUMBERS:
            fields[field.name] = _NUMBERS[field.name].get(value) or _no_such(field.name, value)
        else:
            fields[field.name] = value
    return kind(ref=ref, **fields)


def _no_such(field: str, number: int) -> str:
    raise BadRequest(f"{field}: there is no {number}; there are {', '.join(_WORDS[field])}")


def word_of(field: str, number: int) -> str | None:
    """Return the word that an enum of a request stands for, None where it was left out."""
    return (_NUMBERS[field].get(number) or _no_such(field, number)) if number else None


def parse(kind: type[Any], payload: bytes) -> Any:
    """Return a message of a kind; raises Malformed."""
    try:
        return kind.FromString(payload)
    except (DecodeError, UnicodeDecodeError) as exc:
        raise Malformed(f"what came is not a {kind.DESCRIPTOR.full_name}: {exc}") from None


def write_command(command: Command, *, packed: bool) -> bytes:
    """Write a command as a `Commands` of one; data in it is in MessagePack or JSON as `packed` says."""
    commands = pb.Commands()
    each = commands.commands.add()
    if isinstance(command.ref, int):
        each.ref = command.ref
    target: Proto = getattr(each, str(command.__struct_config__.tag))
    target.SetInParent()
    fill(target, command, packed=packed)
    return commands.SerializeToString()


# What the server says


def fill(target: Proto, struct: msgspec.Struct, *, packed: bool) -> None:
    """Set the fields of a message to those of a struct; data in it is in MessagePack or JSON as `packed` says."""
    renamed = _RENAMED.get(type(struct), {})
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if value is None or value is UNSET or name == "ref":
            continue
        field = renamed.get(name, name)
        if field not in target.DESCRIPTOR.fields_by_name:
            continue  # what only other wires can do
        if isinstance(value, Raw):
            _write_data(getattr(target, field), bytes(value), packed=packed)
        elif isinstance(value, msgspec.Struct):
            fill(getattr(target, field), value, packed=packed)
        elif isinstance(value, list | tuple):
            repeated = getattr(target, field)
            for each in value:
                if isinstance(each, msgspec.Struct):
                    fill(repeated.add(), each, packed=packed)
                else:
                    repeated.append(each)
        elif field in _WORDS and target.DESCRIPTOR.fields_by_name[field].enum_type is not None:
            setattr(target, field, _WORDS[field][value])
        elif (field, value) not in _UNSAID:
            # A seq may be given for `since`, which is a text here.
            setattr(target, field, str(value) if field == "since" else value)


def to_proto(push: Push, *, packed: bool) -> pb.Push:
    """Make the message of a push; data in it is in MessagePack or JSON as `packed` says."""
    if type(push) is Published and type(push.ref) is int:  # what there are by far the most of
        return pb.Push(ref=push.ref, published=pb.Published(position=push.position or "", duplicate=push.duplicate))
    wrapped = pb.Push()
    ref = getattr(push, "ref", None)
    if isinstance(ref, int):
        wrapped.ref = ref
    target: Proto = getattr(wrapped, str(push.__struct_config__.tag))
    target.SetInParent()
    fill(target, push, packed=packed)
    if isinstance(push, PresencePush) and push.members is None:
        wrapped.presence.counted_only = True
    return wrapped


def read_fields(message: Proto) -> dict[str, Any]:
    """Return the fields of a message by their names, data as bytes, and messages in it as such dictionaries."""
    fields: dict[str, Any] = {}
    for field, value in message.ListFields():
        if isinstance(value, pb.Data):
            fields[field.name] = value.value
        elif isinstance(value, Proto):
            fields[field.name] = read_fields(value)
        elif field.message_type is not None:
            fields[field.name] = [read_fields(each) for each in value]
        elif field.enum_type is not None:
            fields[field.name] = _NUMBERS[field.name].get(value, "")
        elif field.is_repeated:
            fields[field.name] = tuple(value)
        else:
            fields[field.name] = value
    return fields


class ProtobufEncoding(Encoding):
    """Pushes as `Pushes`, data in one language or, with `as_published`, as it was published.

    A batch is a tuple of texts of `Pushes`, each of about CHUNK_BYTES at most, but for a single larger message.
    """

    def __init__(self, codec: Codec, *, as_published: bool = False) -> None:
        self.codec = codec
        self.key = f"grpc.{'published' if as_published else codec.name}"
        self._as_published = as_published

    def message(self, message: Message, epoch: str) -> pb.Message:
        """Make the message of a message."""
        made = pb.Message(
            channel=message.channel,
            seq=message.seq,
            position=f"{epoch}.{message.seq}" if message.seq else "",
            id=message.id,
            time=message.time,
            event="" if message.event == "message" else message.event,
            key=message.key,
            ephemeral=not message.seq,
            trace=message.trace,
        )
        if not self._as_published:
            _write_data(made.data, self.codec.data(message), packed=self.codec.binary)
        elif message.packed and message.data[:1] in (b"\xc4", b"\xc5", b"\xc6"):  # MessagePack's bin 8, 16 and 32
            made.data.value = to_value(message.data, packed=True)
            made.data.content_type = BYTES_TYPE
        else:
            _write_data(made.data, message.data, packed=message.packed)
        return made

    def frame(self, message: Message, epoch: str) -> bytes:
        if is_internal(message.channel):
            return self._write(push_of(message, to_packed if self.codec.binary else bytes))
        return pb.Pushes(pushes=[pb.Push(message=self.message(message, epoch))]).SerializeToString()

    def _write(self, push: Push) -> bytes:
        return pb.Pushes(pushes=[to_proto(push, packed=self.codec.binary)]).SerializeToString()

    def push(self, push: Push) -> tuple[bytes, ...]:
        return (self._write(push),)

    def join(self, frames: Sequence[bytes]) -> tuple[bytes, ...]:
        batch: list[bytes] = []
        begin = size = 0
        for at, frame in enumerate(frames):
            if size and size + len(frame) > CHUNK_BYTES:
                batch.append(b"".join(frames[begin:at]))
                begin, size = at, 0
            size += len(frame)
        batch.append(b"".join(frames[begin:]))
        return tuple(batch)


def protobuf_encoding(accept: str) -> ProtobufEncoding:
    """Return the one encoding of readers that accept this; raises BadRequest for what is none."""
    if accept in ("", JSON_TYPE):
        return _JSON
    if accept == PACKED_TYPE:
        return _PACKED
    if accept == AS_PUBLISHED:
        return _AS_PUBLISHED
    raise BadRequest(f"tellwire-accept is {JSON_TYPE}, {PACKED_TYPE} or {AS_PUBLISHED}, not {accept[:60]!a}")


_JSON = ProtobufEncoding(JSON)
_PACKED = ProtobufEncoding(MSGPACK)
_AS_PUBLISHED = ProtobufEncoding(JSON, as_published=True)
