"""A reader: its cursor, and how it catches up with the log.

A reader's channels stand together at one place, the connection's. While it is caught up (``live``) that place is the
hub's own, and nothing is kept or counted for it. When its socket is full it leaves the live set with its place where it
stood, and reads on from the log as the socket drains; a slow reader is only a cursor that lags.

A channel that is added later stands by itself (``joining``) until it has caught up. The group that is furthest behind
moves on, no further than to where the next one stands, and there they become one. So across all its channels a
connection sees messages in ``seq`` order, but for what a joining channel is behind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from tellwire.errors import CloseCode, TellwireError
from tellwire.log import Entry, Tail
from tellwire.message import Gap, Message, Position
from tellwire.names import Policy
from tellwire.protocol.commands import OnGap
from tellwire.protocol.encodings import Batch, Encoding
from tellwire.protocol.pushes import GapPush

if TYPE_CHECKING:
    from tellwire.hub import Hub

CONFLATE_MAX_BYTES = 4 * 1024 * 1024
"""How much a reader with the policy ``latest`` looks through at a time for the newest of each key."""


class Door(Protocol):
    """What a transport gives to the hub: where a reader's bytes go.

    Plain functions that cannot wait and do not raise. A door that is not writable may still be written to, but only
    what is bounded by what its peer does.
    """

    writable: bool
    """False while the socket (or whatever is behind the door) has not taken all that was written."""

    hears: bool
    """Whether a living peer answers heartbeats, so that its silence means something."""

    def write(self, batch: Batch) -> None:
        """Send a batch, whole and in order; clear ``writable`` where not all of it was taken at once."""

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        """Say why, if this wire can, and close."""


class NoDoor:
    """The door of a reader that is gone: nothing goes out."""

    writable = False
    hears = False

    def write(self, batch: Batch) -> None:
        """Nobody is there to read it."""

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        """It is closed."""


NO_DOOR = NoDoor()


class Caller(Protocol):
    """Who is behind a connection, as far as reading goes."""

    @property
    def client(self) -> str:
        """The client's name, for others to see."""

    @property
    def session(self) -> str | None:
        """The secret text by which ``echo: false`` knows the client."""

    @property
    def transport(self) -> str:
        """The wire's name."""


class Subscription:
    """One channel of one reader."""

    __slots__ = ("on_gap", "policy", "tail", "told")

    def __init__(self, tail: Tail, policy: Policy, on_gap: OnGap) -> None:
        self.tail = tail
        self.policy = policy
        self.on_gap = on_gap
        self.told = 0  # seq up to which the reader knows that messages may be missing


class Subscriber:
    """One connection's reading: its channels, its place in the log, and its door."""

    __slots__ = (
        "advancing", "caller", "channels", "closed", "door", "encoding", "hub", "joining", "live", "position",
        "reading", "silent_beats", "unreliable",
    )  # fmt: skip

    def __init__(self, hub: Hub, door: Door, encoding: Encoding, caller: Caller) -> None:
        self.hub = hub
        self.door = door
        self.encoding = encoding
        self.caller = caller
        self.channels: dict[str, Subscription] = {}
        self.live = False
        self.position = 0
        self.joining: dict[str, int] = {}
        self.reading = False  # a read from the broker is under way
        self.advancing = False
        self.closed = False
        self.silent_beats = 0
        self.unreliable: set[str] | None = None  # channels whose messages may be lost on their way, where the wire can

    @property
    def client(self) -> str:
        return self.caller.client

    @property
    def session(self) -> str | None:
        return self.caller.session

    @property
    def transport(self) -> str:
        return self.caller.transport

    @property
    def place(self) -> int:
        """The ``seq`` up to which the connection's channels have everything, but for those that are joining."""
        return self.hub.flushed if self.live else self.position

    @property
    def cursor(self) -> Position:
        """What the connection may claim to have on all its channels."""
        return Position(self.hub.epoch, min(self.place, *self.joining.values()) if self.joining else self.place)

    def write_messages(self, messages: Iterable[Message]) -> None:
        """Send messages that come from the broker, without those that this session asked not to get."""
        epoch = self.hub.epoch
        frames = [self.encoding.frame(m, epoch) for m in messages if not m.skip or m.skip != self.session]
        if frames:
            self._write(frames)

    def _write(self, frames: list[bytes]) -> None:
        self.hub.counters.delivered(len(frames), sum(map(len, frames)))
        self.door.write(self.encoding.join(frames))

    def fall_behind(self, place: int, tails: Iterable[Tail]) -> None:
        """Leave the live set at `place`: `tails` have news, and the socket is full."""
        self.live = False
        self.position = place
        self.hub.counters.fell_behind += 1
        if any(self.channels[tail.channel].policy == "disconnect" for tail in tails):
            self.door.close(CloseCode.SLOW, "this reader lagged on a channel whose policy is disconnect")

    def advance(self) -> None:
        """Go on reading as far as the socket takes it; called whenever it may have become writable."""
        # A read that did not have to wait comes back here before it returns; unguarded, as deep as the lag is long.
        if not self.advancing:
            self.advancing = True
            try:
                self._advance()
            finally:
                self.advancing = False

    def _advance(self) -> None:
        while self.door.writable and not self.closed and not self.reading:
            self.hub.flush()
            place = self.place
            names: Collection[str]
            if self.joining:
                name = min(self.joining, key=self.joining.__getitem__)
                until = self.joining[name]
                if until == place:
                    self._join(name)
                    continue
                if until < place:
                    names, after, until = (name,), until, place
                else:
                    names, after = self._joined(), place
            elif self.live:
                return
            else:
                names, after, until = self._joined(), place, self.hub.flushed
                if after >= until:
                    self.live = True
                    return
            if names:
                bite = self.hub.bite(names, after, until, self._bite_bytes())
                if bite is None:
                    self.reading = True
                    self.hub.tasks.start(self._read(names, after, until), self._read_done)
                    continue
                entries, reached = bite
                self._move(names, reached)
                self._write_entries(entries)
            else:
                self._move(names, until)

    def _joined(self) -> list[str]:
        return [name for name in self.channels if name not in self.joining]

    def _join(self, name: str) -> None:
        """Let a channel that has caught up stand where the others do."""
        del self.joining[name]
        self.channels[name].tail.live.setdefault(self.encoding, set()).add(self)

    def _move(self, names: Collection[str], reached: int) -> None:
        """Note how far a group has come; before it is written, so that the door can say where it stands."""
        name = next(iter(names), None)
        if name is not None and name in self.joining:
            self.joining[name] = reached
        else:
            self.position = reached

    def _bite_bytes(self) -> int:
        conflates = any(subscription.policy == "latest" for subscription in self.channels.values())
        return CONFLATE_MAX_BYTES if conflates else self.hub.read_bite_bytes

    def _write_entries(self, entries: Sequence[Entry]) -> None:
        session = self.session
        wanted = [entry for entry in entries if not entry.message.skip or entry.message.skip != session]
        if wanted := self._newest(wanted):
            self._write(self.hub.tails.frames(wanted, self.encoding))

    def _newest(self, entries: list[Entry]) -> list[Entry]:
        """Leave out what a newer entry with the same key replaces, on channels read with the policy ``latest``."""
        return [entry for entry, keep in zip(entries, self._kept([e.message for e in entries]), strict=True) if keep]

    def _kept(self, messages: Sequence[Message]) -> list[bool]:
        """Tell for each message whether it is kept: by policy, the newest of its key. No key is a key too."""
        channels = self.channels
        if all(subscription.policy != "latest" for subscription in channels.values()):
            return [True] * len(messages)
        seen: set[tuple[str, str | None]] = set()
        kept = []
        for message in reversed(messages):
            subscription = channels.get(message.channel)
            key = (message.channel, message.key)
            kept.append(subscription is None or subscription.policy != "latest" or key not in seen)
            seen.add(key)
        kept.reverse()
        return kept

    async def _read(self, names: Collection[str], after: int, until: int) -> None:
        """Read a bite from the broker, for what the tails no longer hold."""
        hub = self.hub
        epoch = hub.epoch
        asked = [self.channels[name] for name in names]
        slice_ = await hub.broker.read(names, Position(epoch, after), self._bite_bytes())
        if self.closed or hub.epoch != epoch or [self.channels.get(name) for name in names] != asked:
            return  # what was asked for is no longer wanted; `advance` asks anew
        hub.recall(names, after, slice_)
        gap = self._untold(slice_.gap)
        if gap is not None and self._jump(gap, until):
            return
        messages = [m for m in slice_.messages if m.seq <= until and (not m.skip or m.skip != self.session)]
        messages = [message for message, keep in zip(messages, self._kept(messages), strict=True) if keep]
        self._move(names, min(slice_.position.seq, until))
        if gap is not None:
            self.tell(gap)
        self.write_messages(messages)

    def _untold(self, gap: Gap | None) -> Gap | None:
        """Leave out of a gap the channels whose reader was told of it: a log says again what is behind its floor."""
        if gap is None:
            return None
        to = Position.parse(gap.to).seq
        names = tuple(name for name in gap.channels if self.channels[name].told < to)
        return Gap(gap.from_, gap.to, gap.reason, names) if names else None

    def note(self, gap: Gap) -> None:
        """Remember what the reader was told."""
        to = Position.parse(gap.to).seq
        for name in gap.channels:
            if name in self.channels:
                self.channels[name].told = to

    def _jump(self, gap: Gap, until: int) -> bool:
        """Let the channels of a gap whose reader wants the newest go on at `until`; False where there are none.

        They wait there for the others, which are read again without them.
        """
        jumping = tuple(name for name in gap.channels if self.channels[name].on_gap == "newest")
        if not jumping:
            return False
        for name in jumping:
            if name not in self.joining:
                self.channels[name].tail.leave(self.encoding, self)
            self.joining[name] = until
        self.tell(Gap(gap.from_, str(Position(self.hub.epoch, until)), gap.reason, jumping))
        return True

    def _read_done(self, _: None, exc: BaseException | None) -> None:
        self.reading = False
        if isinstance(exc, TellwireError):
            self.door.close(exc.close_code or CloseCode.TRY_AGAIN_LATER, exc.detail)
        elif exc is not None:
            self.hub.report("reading on from the log failed", exc)
            self.door.close(CloseCode.INTERNAL_ERROR, "reading from the log failed; the server's log says why")
        else:
            self.advance()

    def tell(self, gap: Gap) -> None:
        """Say, in band, that something may be missing; whoever was reading already fell off by being slow."""
        if gap.reason == "trimmed":
            gap = Gap(gap.from_, gap.to, "slow", gap.channels)
        self.note(gap)
        self.hub.counters.gaps[gap.reason] += 1
        self.door.write(self.encoding.push(GapPush.of(gap)))
