"""What comes over the wire, as the client reads it: one Struct for all pushes, replies and answers."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tellwire.client.failures import Failure, lost, told
from tellwire.client.messages import Member, Message, Signal
from tellwire.errors import InvalidData
from tellwire.message import Gap, GapReason
from tellwire.protocol.commands import Command
from tellwire.protocol.data import check_packed, to_value
from tellwire.protocol.pushes import PUSHES

_KNOWN = frozenset(str(push.__struct_config__.tag) for push in PUSHES)


class MemberIn(msgspec.Struct):
    """A member, its info and state still in the language of the wire."""

    client: str
    user: str | None = None
    info: Raw | UnsetType = UNSET
    state: Raw | UnsetType = UNSET
    entered: int = 0


class ErrorIn(msgspec.Struct):
    """What failed in a list of publishes."""

    code: str
    message: str = ""
    head: str | None = None
    retry_after_ms: float | None = None


class Incoming(msgspec.Struct, rename={"from_": "from"}):
    """Anything that a server says; which fields there are depends on ``type`` (spec, sections 6 and 7)."""

    type: str = ""
    ref: int | str | None = None
    channel: str = ""
    seq: int = 0
    id: str = ""
    time: int = 0
    event: str = "message"
    data: Raw | UnsetType = UNSET
    key: str | None = None
    ephemeral: bool = False
    trace: str = ""
    position: str | None = None
    duplicate: bool = False
    cursor: str = ""
    gap: Gap | None = None
    messages: list[Raw] = []
    from_: str = ""
    to: str = ""
    reason: str = ""
    channels: tuple[str, ...] = ()
    epoch: str = ""
    client: str = ""
    user: str | None = None
    heartbeat_ms: float = 25_000
    expires_in_ms: float | None = None
    member: MemberIn | None = None
    members: list[MemberIn] | None = None
    clients: int = 0
    users: int = 0
    code: int | str | None = None
    message: str = ""
    head: str | None = None
    retry_after_ms: float | None = None
    reconnect_in_ms: float | None = None
    error: ErrorIn | None = None

    @property
    def failure(self) -> Failure:
        """The failure that an ``error`` stands for."""
        return told(str(self.code), self.message, head=self.head, retry_after_ms=self.retry_after_ms)

    @property
    def as_gap(self) -> Gap:
        """The gap that a push of this name is."""
        return Gap(self.from_, self.to, cast("GapReason", self.reason), self.channels)


class Language:
    """JSON or MessagePack, both ways."""

    def __init__(self, module: Any, *, packed: bool) -> None:
        self.packed = packed
        self._module = module
        self._decode = module.Decoder(Incoming).decode
        self._encode = module.Encoder().encode

    @property
    def subprotocol(self) -> str:
        """How the WebSocket handshake calls it."""
        return "tellwire.v1.msgpack" if self.packed else "tellwire.v1.json"

    def encode(self, command: Command) -> bytes | str:
        """Write a command as the content of one frame."""
        encoded: bytes = self._encode(command)
        return encoded if self.packed else encoded.decode()

    def decode(self, payload: bytes | str) -> Incoming:
        """Read a push or an answer; one of an unknown type comes with nothing but that.

        Raises Failure for what is neither.
        """
        try:
            incoming: Incoming = self._decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as exc:
            kind = self._type_of(payload)
            # "A client must ignore one that it does not know": its fields may be of any kind.
            if kind is not None and kind not in _KNOWN:
                return Incoming(type=kind)
            raise lost(f"what came is not of this protocol: {exc}") from exc
        return incoming

    def decode_list(self, payload: bytes) -> list[Incoming]:
        """Read the answer to a list of publishes."""
        try:
            answers: list[Incoming] = self._module.decode(payload, type=list[Incoming])
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise lost(f"what came is not an answer to a list: {exc}") from exc
        return answers

    def _type_of(self, payload: bytes | str) -> str | None:
        try:
            whole = self._module.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            return None
        kind = whole.get("type") if isinstance(whole, dict) else None
        return kind if isinstance(kind, str) else None

    def value(self, raw: Raw | UnsetType) -> Any:
        """Return data as a Python value, with bytes as bytes."""
        return None if isinstance(raw, UnsetType) else to_value(bytes(raw), packed=self.packed)

    def message(self, push: Incoming, epoch: str) -> Message:
        """Return the message of a push."""
        return Message(
            channel=push.channel,
            data=self.value(push.data),
            id=push.id,
            event=push.event,
            key=push.key,
            seq=push.seq,
            position=f"{epoch}.{push.seq}" if push.seq else None,
            time=push.time,
            ephemeral=push.ephemeral,
            trace=push.trace,
        )

    def member(self, member: MemberIn) -> Member:
        """Return a member as applications see it."""
        return Member(member.client, member.user, self.value(member.info), self.value(member.state), member.entered)

    def signal(self, push: Incoming) -> Signal:
        """Return the signal of a push."""
        return Signal(
            channel=push.channel,
            sender=push.from_,
            user=push.user,
            event=push.event,
            data=self.value(push.data),
            id=push.id,
            time=push.time,
            seq=push.seq,
        )


JSON = Language(msgspec.json, packed=False)
PACKED = Language(msgspec.msgpack, packed=True)


def pack(value: Any) -> bytes:
    """Return data as MessagePack; raises InvalidData for what cannot be carried."""
    try:
        packed = msgspec.msgpack.encode(value)
    except (TypeError, OverflowError, ValueError, RecursionError, msgspec.MsgspecError) as exc:
        raise InvalidData(f"data cannot be carried: {exc}") from exc
    return check_packed(packed)
