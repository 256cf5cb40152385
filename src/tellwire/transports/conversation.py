"""A conversation in commands and pushes, as every wire that goes both ways carries it.

Commands of one connection take effect in the order in which they came. Those that only append may wait for the log side
by side, since their places are given when they begin; all others wait for those before them. What was sent behind a
publish that was refused for a moment is refused, too, where the client wants its order kept.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Protocol

from tellwire.errors import CloseCode, Internal, RequestError, TellwireError, TooManyConnections, Unauthorized
from tellwire.node import Node
from tellwire.protocol.commands import AnyCommand, Connect, Publish, Refresh
from tellwire.protocol.pushes import Push
from tellwire.protocol.session import CLOSED, ProtocolViolation, Queue, Session, describe
from tellwire.subscriber import Door, NoDoor, Subscriber


class Wire(Door, Protocol):
    """A door that also goes the other way."""

    def send(self, push: Push) -> None:
        """Send something of the server's own."""

    def pause_reading(self) -> None:
        """Take nothing more from the peer until resume_reading; may be called twice."""

    def resume_reading(self) -> None:
        """Take from the peer again; may be called twice."""


class NoWire(NoDoor):
    """The wire of a conversation that is over: nothing comes, either."""

    def send(self, push: Push) -> None:
        """Nobody is there to read it."""

    def pause_reading(self) -> None:
        """Nothing comes."""

    def resume_reading(self) -> None:
        """Nothing comes."""


NO_WIRE = NoWire()


class Conversation:
    """One connection's commands on their way to the node, and the answers on their way back."""

    __slots__ = (
        "_barrier", "_in_flight", "_node", "_queue", "_resuming", "_session", "_waiting", "_wire", "subscriber",
    )  # fmt: skip

    def __init__(self, node: Node, wire: Wire, subscriber: Subscriber, session: Session) -> None:
        self._node = node
        self._wire = wire
        self._session = session
        self._waiting: deque[tuple[AnyCommand, bool]] | None = None
        self._queue: Queue | None = None  # of a client that wants its publishes in order
        self._in_flight = 0
        self._barrier = False
        self._resuming = False
        self.subscriber = subscriber

    def receive(self, payload: bytes, *, binary: bool) -> None:
        """Take one payload from the peer."""
        try:
            command = self._session.receive(payload, binary=binary)
        except ProtocolViolation as exc:
            self._wire.close(exc.code, exc.reason)
        except RequestError as exc:
            self.refuse(exc)
        else:
            if command is not None:
                self._take(command, binary)

    def take(self, command: AnyCommand, *, packed: bool) -> None:
        """Take a command that is no payload; `packed` tells that the data in it is MessagePack."""
        if self._session.state is CLOSED:
            return
        try:
            self._session.admit(command)
        except RequestError as exc:
            self.refuse(exc)
        else:
            self._take(command, packed)

    def refuse(self, exc: RequestError) -> None:
        """Answer what is no command that can be carried out."""
        self._node.counters.rejects[exc.code] += 1
        self._wire.send(describe(exc, None))

    @property
    def is_idle(self) -> bool:
        """Whether every command has been answered."""
        return not self._in_flight and not self._waiting

    def _take(self, command: AnyCommand, packed: bool) -> None:
        if not self._waiting and not self._must_wait(command):
            self._begin(command, packed)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append((command, packed))
        self._wire.pause_reading()

    def end(self, code: CloseCode | None = None, reason: str = "") -> None:
        """Take nothing more, and let go of the readings; `code` is what the server closes with, if it does."""
        self._session.close()
        self._waiting = None
        self._node.dismiss(self.subscriber, code, reason)
        self._wire = NO_WIRE

    def _must_wait(self, command: AnyCommand) -> bool:
        if self._barrier or self._in_flight >= self._node.limits.in_flight_max:
            return True
        return self._in_flight > 0 and self._is_barrier(command)

    def _is_barrier(self, command: AnyCommand) -> bool:
        return type(command) is not Publish or self._node.publishes_wait

    def open(self, since: str | None) -> None:
        """Begin to read what the token of the handshake subscribes by itself, before any command is carried out."""
        self._in_flight += 1
        self._barrier = True
        node = self._node
        work = node.subscribe_own(self.subscriber, since, self._wire.send)
        node.tasks.start(work, partial(self._done, Connect(), True))

    def _begin(self, command: AnyCommand, packed: bool) -> None:
        if self._queue is not None and type(command) is Publish:
            refusal = self._queue.refusal_of(command)
            if refusal is not None:
                self._fail(command, refusal)
                return
        elif type(command) is Connect and command.in_order:
            self._queue = Queue()
        barrier = self._is_barrier(command)
        self._in_flight += 1
        self._barrier = barrier
        node = self._node
        node.tasks.start(
            node.handle(self.subscriber, command, self._wire.send, packed=packed),
            partial(self._done, command, barrier),
        )

    def _done(self, command: AnyCommand, barrier: bool, _: None, exc: BaseException | None) -> None:
        self._in_flight -= 1
        if barrier:
            self._barrier = False
        if exc is not None:
            if self._queue is not None and type(command) is Publish:
                self._queue.failed(command, exc)
            self._fail(command, exc)
        if self._waiting and not self._resuming:
            self._resume()

    def _resume(self) -> None:
        """Begin what has waited; not re-entered, as what begins may be done at once."""
        self._resuming = True
        while self._waiting and not self._must_wait(self._waiting[0][0]):
            self._begin(*self._waiting.popleft())
        self._resuming = False
        if self._waiting is not None and not self._waiting:
            self._waiting = None
            self._wire.resume_reading()

    def _fail(self, command: AnyCommand, exc: BaseException) -> None:
        if self.subscriber.closed:
            return
        if not isinstance(exc, TellwireError):
            self._node.hub.report(f"{type(command).__name__.lower()} failed", exc)
            exc = Internal("the server failed to do this; its log says why")
        self._node.counters.rejects[exc.code] += 1
        self._wire.send(describe(exc, command.ref))
        if isinstance(exc, Internal):
            self._wire.close(CloseCode.INTERNAL_ERROR, exc.detail)
        elif isinstance(exc, Unauthorized | TooManyConnections) and type(command) is not Refresh:
            # Whoever does not say who they are, or says it with a token that is not accepted, has no business here.
            self._wire.close(exc.close_code or CloseCode.UNAUTHORIZED, exc.detail)
