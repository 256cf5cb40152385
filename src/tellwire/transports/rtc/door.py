"""One peer's connection: from the answered offer to the door that the hub writes to.

::

    ANSWERED ──a signed check──▶ SHAKING ──the channel opens──▶ OPEN ──close──▶ CLOSING ──▶ GONE
         └───────────── rtc_open_s ───────────┘ ──▶ GONE              (until the peer has `closing`, or 1 s)
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from aiortc.rtcdatachannel import RTCDataChannel

from tellwire.errors import BadRequest, CloseCode, RequestError, TellwireError
from tellwire.limits import Visit
from tellwire.message import Appended
from tellwire.node import Caller
from tellwire.protocol.codecs import CODECS, Codec
from tellwire.protocol.commands import Publish
from tellwire.protocol.encodings import Batch, ChannelEncoding, Payload, channel_encoding
from tellwire.protocol.parts import Joiner, is_part, split
from tellwire.protocol.pushes import Closing, Push
from tellwire.protocol.session import Session, describe
from tellwire.subscriber import Subscriber
from tellwire.transports.conversation import Conversation
from tellwire.transports.rtc.association import WINDOW_BYTES, Association, Violation
from tellwire.transports.rtc.description import MESSAGE_MAX_BYTES, Offer
from tellwire.transports.rtc.port import Address, Port
from tellwire.transports.writer import SLOT_MAX_BYTES

if TYPE_CHECKING:
    from tellwire.transports.rtc.connections import Connections

RELIABLE = "tellwire"
"""Label of the channel that carries the session."""

UNRELIABLE = "tellwire.unreliable"
"""Label of the channel whose messages may be lost."""

LINGER_S = 1.0
"""Longest that a peer may take to acknowledge what it was closed with."""

CHANNELS_MAX = 8
"""Channels that a peer may open, with those that are closed again for their labels."""


class State(Enum):
    """Where a connection is."""

    ANSWERED = "answered"
    SHAKING = "shaking"
    OPEN = "open"
    CLOSING = "closing"
    GONE = "gone"


class RtcDoor:
    """One peer: what the port, the association and the hub know of it."""

    hears = True

    def __init__(self, home: Connections, offer: Offer, caller: Caller, since: str | None, visit: Visit) -> None:
        self.home = home
        self.offer = offer
        self.caller = caller
        self.since = since
        self.visit = visit
        self.ufrag = home.fresh_name(9)
        self.password = home.fresh_name(24)
        self.id = home.fresh_id()
        self.addresses: list[Address] = []
        self.state = State.ANSWERED
        self.writable = False
        self.heard_at = 0.0
        self.slot = 0
        self.subscriber: Subscriber | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._route: tuple[Port, Address] | None = None
        self._association: Association | None = None
        self._conversation: Conversation | None = None
        self._encoding: ChannelEncoding | None = None
        self._codec: Codec | None = None
        self._reliable: RTCDataChannel | None = None
        self._unreliable: RTCDataChannel | None = None
        self._opened = 0
        limit = min(offer.message_max_bytes or MESSAGE_MAX_BYTES, MESSAGE_MAX_BYTES)
        self._message_max_bytes = limit
        self._joiner = Joiner(home.node.limits.frame_max_bytes)
        # What came while nothing may be taken: as much as the window lets a peer send.
        self._held: deque[tuple[bytes, bool]] = deque()
        self._held_bytes = 0
        self._is_paused = False
        self._ephemeral_in_flight = 0

    # From the port

    def reached(self, port: Port, address: Address, *, is_nominated: bool) -> None:
        if self._route is None or is_nominated:
            self._route = (port, address)
        if self._association is None and self.state is State.ANSWERED:
            self.state = State.SHAKING
            offer = self.offer
            self._association = Association(self.home.certificate, self.home.tasks, self._send, self)
            self._association.start(
                offer.fingerprints,
                is_client=offer.is_passive,
                port=offer.sctp_port,
                max_bytes=offer.message_max_bytes,
            )

    def received(self, data: bytes) -> None:
        if self._association is not None:
            self._association.take(data)

    def _send(self, data: bytes) -> None:
        if self._route is not None:
            port, address = self._route
            port.send(data, address)

    # From the association (see `Handler`)

    def opened(self, channel: RTCDataChannel) -> None:
        self._opened += 1
        if self._opened > CHANNELS_MAX:
            raise Violation(CloseCode.POLICY_VIOLATION, f"a connection opens at most {CHANNELS_MAX} channels")
        if channel.label == RELIABLE and self._reliable is None and self.state is State.SHAKING:
            self._open(channel)
        elif channel.label == UNRELIABLE and self._unreliable is None:
            # As unreliable as the peer made it; stacks differ in how well they tell.
            self._unreliable = channel
        else:
            channel.close()

    def closed(self, stream: int) -> None:
        if self._unreliable is not None and stream == self._unreliable.id:
            self._unreliable = None
        elif self._reliable is not None and stream == self._reliable.id:
            self.lost("the peer closed the channel")

    def message(self, stream: int, payload: bytes, *, binary: bool) -> None:
        if self.state is not State.OPEN:
            return
        if self._unreliable is not None and stream == self._unreliable.id:
            self._take_ephemeral(payload, binary=binary)
        elif self._reliable is not None and stream == self._reliable.id:
            if self._is_full or self._held:
                self._hold(payload, binary)
            else:
                self._take(payload, binary)

    def heard(self) -> None:
        self.heard_at = self.home.now()

    def drained(self) -> None:
        association = self._association
        if association is None:
            return
        if self.state is State.CLOSING:
            if association.is_idle:
                self.home.drop(self)
            return
        if not self.writable and self.subscriber is not None and association.backlog < SLOT_MAX_BYTES:
            self.writable = self.state is State.OPEN
            self.subscriber.advance()
        if self._held:
            self._release()

    def violated(self, exc: Violation) -> None:
        if self.state is State.OPEN:
            self.close(exc.code, exc.reason)
        else:
            self.lost(exc.reason)

    def lost(self, reason: str) -> None:
        if self.state is not State.GONE:
            self.home.drop(self)

    # The session

    def _open(self, channel: RTCDataChannel) -> None:
        node = self.home.node
        codec = CODECS.get(channel.protocol)
        if codec is None or not channel.ordered or channel.maxRetransmits is not None or channel.maxPacketLifeTime:
            raise Violation(CloseCode.POLICY_VIOLATION, "the channel is not what the spec says in section 17.3")
        self._codec = codec
        self._encoding = channel_encoding(codec)
        self._reliable = channel
        self.writable = True
        try:
            self.subscriber = node.admit(self, self._encoding, self.caller, beats=False)
        except TellwireError as exc:
            node.counters.rejects[exc.code] += 1
            self._put(codec.encode(describe(exc, None)))
            self._close_with(Closing(exc.close_code or CloseCode.TRY_AGAIN_LATER, exc.detail))
            return
        self.state = State.OPEN
        self._conversation = Conversation(node, self, self.subscriber, Session(codec))
        self.home.opened(self)
        if node.own_channels(self.caller):
            self._conversation.open(self.since)

    @property
    def _is_full(self) -> bool:
        """Whether the peer has to take what waits for it before more of it is taken."""
        association = self._association
        return self._is_paused or (
            association is not None and association.backlog > self.home.node.limits.pending_max_bytes
        )

    def _take(self, payload: bytes, binary: bool) -> None:
        assert self._codec is not None
        assert self._conversation is not None
        if binary and is_part(payload):
            try:
                whole = self._joiner.add(payload)
            except OverflowError as exc:
                self.close(CloseCode.MESSAGE_TOO_BIG, str(exc))
                return
            if whole is not None:
                self._conversation.receive(whole, binary=self._codec.binary)
        elif not self._joiner.is_empty:
            self.close(CloseCode.PROTOCOL_ERROR, "a message came between the parts of another")
        else:
            self._conversation.receive(payload, binary=binary)

    def _hold(self, payload: bytes, binary: bool) -> None:
        size = len(payload) + 64
        if self._held_bytes + size > WINDOW_BYTES + MESSAGE_MAX_BYTES:
            raise Violation(CloseCode.MESSAGE_TOO_BIG, "more came than the receiver window had room for")
        self._held.append((payload, binary))
        self._held_bytes += size
        assert self._association is not None
        self._association.hold(size)

    def _release(self) -> None:
        before = self._held_bytes
        while self._held and not self._is_full and self.state is State.OPEN:
            payload, binary = self._held.popleft()
            self._held_bytes -= len(payload) + 64
            self._take(payload, binary)
        if self._association is not None and before > self._held_bytes:
            self._association.release(before - self._held_bytes)

    def _take_ephemeral(self, payload: bytes, *, binary: bool) -> None:
        """Publish what came over the unreliable channel; it is not answered, as one that is lost is not either."""
        node, codec = self.home.node, self._codec
        assert codec is not None
        try:
            if binary is not codec.binary:
                raise BadRequest(f"{UNRELIABLE} speaks {codec.name}, as {RELIABLE} does")
            command = codec.decode(payload)
            if type(command) is not Publish or not command.ephemeral:
                error = BadRequest(f"only a publish with ephemeral: true goes over {UNRELIABLE}")
                error.ref = command.ref
                raise error
        except RequestError as exc:
            self._refuse(exc, None)
            return
        if self._ephemeral_in_flight >= node.limits.in_flight_max:
            return  # ephemeral messages may be dropped, and this peer sends more than can be taken
        node.counters.commands["publish"] += 1
        self._ephemeral_in_flight += 1
        ref = command.ref

        def done(_: Appended | None, exc: BaseException | None) -> None:
            self._ephemeral_in_flight -= 1
            if isinstance(exc, TellwireError):
                self._refuse(exc, ref)
            elif exc is not None:
                node.hub.report("an ephemeral publish failed", exc)

        node.tasks.start(node.publish(command, self.caller, packed=codec.binary, lasts=True), done)

    def _refuse(self, exc: TellwireError, ref: int | str | None) -> None:
        self.home.node.counters.rejects[exc.code] += 1
        # A peer that sends nonsense without end, and takes no answer, gets none.
        if self.state is State.OPEN and not self._is_full:
            self.send(describe(exc, ref))

    # The door (see `Wire`)

    def write(self, batch: Batch) -> None:
        unreliable = self._unreliable
        if unreliable is None:
            for payload in batch:
                self._put(payload)
        else:
            assert self.subscriber is not None
            may_lose = self.subscriber.unreliable
            for payload in batch:
                if (
                    type(payload) is Payload
                    and (payload.ephemeral or (may_lose is not None and payload.channel in may_lose))
                    and len(payload) <= self._message_max_bytes
                ):
                    self._put_on(unreliable, payload)
                else:
                    self._put(payload)
        self._has_put()

    def send(self, push: Push) -> None:
        assert self._encoding is not None
        for payload in self._encoding.push(push):
            self._put(payload)
        self._has_put()

    def _put(self, payload: bytes) -> None:
        """Queue a payload on the reliable channel, in parts where it is too long for one message."""
        assert self._association is not None
        assert self._reliable is not None
        if len(payload) <= self._message_max_bytes:
            self._put_on(self._reliable, payload)
            return
        for part in split(payload, self._message_max_bytes):
            self._association.put(self._reliable, part, binary=True)

    def _put_on(self, channel: RTCDataChannel, payload: bytes) -> None:
        assert self._association is not None
        assert self._codec is not None
        self._association.put(channel, payload, binary=self._codec.binary)

    def _has_put(self) -> None:
        assert self._association is not None
        if self._association.backlog >= SLOT_MAX_BYTES:
            self.writable = False
        self.home.due(self)

    def flush(self) -> None:
        """Send what was put, and take more of the log where the peer can; once for all of a turn of the loop."""
        if self._association is not None and self.state is not State.GONE:
            self._association.flush()
            if not self.writable:
                self.drained()

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        if self._held:
            self._release()

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        if self.state is not State.OPEN:
            return
        assert self._conversation is not None
        self._conversation.end(code, reason)
        self._close_with(Closing(code, reason, reconnect_in_ms))

    def _close_with(self, closing: Closing) -> None:
        """Say why, and go when the peer has it."""
        self.state = State.CLOSING
        self.writable = False
        self._held.clear()
        self.send(closing)
        self.stop_timer()
        if closing.code == CloseCode.DEAD:
            # Whoever is not heard of hardly hears this.
            self.flush()
            self.home.drop(self)
        else:
            self.timer = asyncio.get_running_loop().call_later(LINGER_S, self.home.drop, self)

    def beat(self, now: float, silence_s: float) -> None:
        """Give a sign of life, or cut a peer of which nothing was heard for `silence_s`."""
        if self.state is not State.OPEN or self.subscriber is None:
            return
        if now - self.heard_at > silence_s:
            self.close(CloseCode.DEAD, f"nothing was heard of this connection for {silence_s:g} s")
        elif self.writable and self._encoding is not None:
            self.write(self._encoding.beat(str(self.subscriber.cursor)))

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def leave(self) -> None:
        """Let go of everything; called once, by whoever drops it."""
        self.state = State.GONE
        self.writable = False
        self.stop_timer()
        if self._conversation is not None:
            self._conversation.end()
        self._held.clear()
        self.visit.leave()
        if self._association is not None:
            self._association.abort()
