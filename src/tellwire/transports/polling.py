"""Short and long polling: a request that asks what is new, and one that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from abc import abstractmethod
from collections.abc import Sequence

import msgspec

from tellwire.brokers.base import Slice
from tellwire.errors import BadRequest, CloseCode, Expired, Forbidden, Internal, Revoked, TellwireError
from tellwire.hub import Placement
from tellwire.message import Gap, Position
from tellwire.node import Caller, Node, check_count
from tellwire.protocol.codecs import JSON
from tellwire.protocol.encodings import OBJECTS
from tellwire.protocol.pushes import GapPush
from tellwire.transports.direct import RESPONSE, DirectResponse
from tellwire.transports.requests import (
    Answer,
    Endpoint,
    Gone,
    Query,
    RawHeaders,
    Receive,
    Scope,
    Send,
    handshake,
    problem,
)

LIMIT = 1000
"""Messages in one answer, where the request does not say."""

CALLBACK_MAX_CHARS = 64
CALLBACK_PATTERN = r"^[A-Za-z_$][A-Za-z0-9_$]*(\.[A-Za-z_$][A-Za-z0-9_$]*)*$"
_CALLBACK = re.compile(CALLBACK_PATTERN)

_REFUSALS: dict[CloseCode, type[TellwireError]] = {
    CloseCode.EXPIRED: Expired, CloseCode.REVOKED: Revoked, CloseCode.FORBIDDEN: Forbidden,
}  # fmt: skip
"""Why a poll that waits is ended without the cursor to ask again with."""


class PollDoor:
    """A poll that waits: the first batch, or the end of the wait, is its answer.

    Subclasses write the answer: on the transport, without a task for the wait, or for ASGI.
    """

    __slots__ = ("_answered", "_callback", "_gap", "_limit", "_node", "_start", "_timer", "subscriber", "writable")

    hears = False

    def __init__(self, node: Node, limit: int, placement: Placement, caller: Caller, callback: str | None) -> None:
        self.writable = True
        self._node = node
        self._limit = limit
        self._callback = callback
        self._start = placement.cursor
        self._gap = placement.gap
        self._answered = False
        self._timer: asyncio.TimerHandle | None = None
        self.subscriber = node.admit(self, OBJECTS, caller, beats=False)

    def wait(self, wait_s: float) -> None:
        """Begin to wait, where no answer came already; what may be missing is told at once."""
        if not self._answered:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(0 if self._gap else wait_s, self.give_up)

    def write(self, batch: tuple[bytes, ...] | GapPush) -> None:
        if isinstance(batch, GapPush):
            # The cursor is past what may come right behind it; so it goes out together with that, or without by itself.
            self._gap = join_gaps(self._gap, Gap(batch.from_, batch.to, batch.reason, tuple(batch.channels)))
            self.wait(0)
        else:
            self.answer(batch)

    def give_up(self) -> None:
        """Answer with nothing, and the newest cursor."""
        self._node.hub.flush()
        self.answer(())

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        """Answer with what there is: nothing, and the cursor to ask again with, or why that would be in vain."""
        if code in _REFUSALS and not self._answered:
            self.end()
            self.put(problem(_REFUSALS[code](reason)))
            return
        self.answer(())

    def answer(self, frames: tuple[bytes, ...]) -> None:
        """Answer, once, with messages and the cursor after them."""
        if self._answered:
            return
        names, cursor = list(self.subscriber.channels), self.subscriber.cursor
        self.end()
        if len(frames) <= self._limit:
            self.put(write_page(frames, cursor, self._gap))
            return
        # More came at once than were asked for: the log gives just the first of them, and their place.
        node = self._node
        read = node.broker.read(names, self._start, node.limits.request_max_bytes, self._limit)
        node.tasks.start(read, self._read_again)

    def _read_again(self, slice_: Slice | None, exc: BaseException | None) -> None:
        if slice_ is not None:
            page = write_slice(slice_, join_gaps(self._gap, slice_.gap), skip=self.subscriber.session)
            self._node.counters.delivered(len(slice_.messages), len(page.body))
            self.put(page)
        else:
            self.put(problem(exc if isinstance(exc, TellwireError) else Internal("reading from the log failed")))

    def end(self) -> None:
        """Wait no longer."""
        self._answered = True
        self.writable = False
        if self._timer is not None:
            self._timer.cancel()
        self._node.dismiss(self.subscriber)

    @abstractmethod
    def put(self, answer: Answer) -> None:
        """Send the answer."""


class DirectPollDoor(PollDoor):
    """A waiting poll that answers on the transport."""

    __slots__ = ("_direct", "_extra")

    def __init__(
        self,
        node: Node,
        limit: int,
        placement: Placement,
        caller: Caller,
        callback: str | None,
        direct: DirectResponse,
        extra: RawHeaders,
    ) -> None:
        super().__init__(node, limit, placement, caller, callback)
        self._direct = direct
        self._extra = extra

    def put(self, answer: Answer) -> None:
        direct = self._direct
        answer = wrap(answer, self._callback)
        if not direct.transport.is_closing():
            direct.transport.write(direct.head(answer.status, answer.headers(self._extra)) + answer.body)
            direct.release()

    def on_writable(self) -> None:
        """Nothing was written that could have filled the socket."""

    def on_full(self) -> None:
        """As above."""

    def on_gone(self) -> None:
        self.end()

    def shutdown(self) -> None:
        self.answer(())


class AsgiPollDoor(PollDoor):
    """A waiting poll whose answer is awaited."""

    __slots__ = ("future",)

    def __init__(self, node: Node, limit: int, placement: Placement, caller: Caller, callback: str | None) -> None:
        super().__init__(node, limit, placement, caller, callback)
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def put(self, answer: Answer) -> None:
        if not self.future.done():
            self.future.set_result(wrap(answer, self._callback))


class PollEndpoint(Endpoint):
    """``GET /v1/messages``: with ``wait`` long polling, without it short polling; with ``before`` history.

    With ``jsonp`` it answers scripts, too (``callback``).
    """

    def __init__(self, node: Node, *, jsonp: bool = False) -> None:
        super().__init__(node)
        self._jsonp = jsonp

    async def identify(self, scope: Scope) -> Caller:
        query = Query(scope)
        transport = "longpoll" if query.text("wait") else "poll"
        is_script = query.text("callback") is not None
        if is_script and not self._jsonp:
            raise BadRequest("callback: this server does not answer scripts; it does with the setting jsonp")
        # A script can be of any site, and whoever loads it has no say in that: only a token in its address counts.
        said = handshake(self.node, scope, transport, with_cookies=not is_script)
        return Caller(await self.node.entrance.need_identity(said), transport, said.address)

    def refuse(self, scope: Scope, exc: TellwireError) -> Answer:
        try:
            callback = check_callback(Query(scope).text("callback")) if self._jsonp else None
        except TellwireError:
            callback = None
        return wrap(super().refuse(scope, exc), callback)

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        node = self.node
        query = Query(scope)
        callback = check_callback(query.text("callback"))
        caller.session = query.session
        attendance = query.attendance
        channels = query.need_channels(node.own_channels(caller))
        wanted = await node.reading.wanted_of(caller, channels, query.policy, attendance)
        limit = query.integer("limit")
        limit = LIMIT if limit is None else check_count("limit", limit, least=1)
        since, last = query.start(scope)
        before = query.text("before")
        if before is not None:
            if since is not None or last is not None:
                raise BadRequest("before excludes since and last: it pages backwards, they page forwards")
            return self._page(await node.reading.read_back(wanted, before, limit=limit), callback)
        wait_s = min(query.seconds("wait"), node.limits.poll_wait_max_s)
        if not wait_s:
            if attendance == "enter":
                await node.members.attend(caller, channels)
            slice_ = await node.reading.read(wanted, since, limit=limit, last=last, on_gap=query.on_gap)
            return self._page(slice_, callback, caller.session)
        placement = await node.reading.place(wanted, since, last, query.on_gap)
        direct: DirectResponse | None = scope.get("extensions", {}).get(RESPONSE)
        try:
            if attendance == "enter":
                await node.members.attend(caller, channels, wait_s=wait_s)
            door: DirectPollDoor | AsgiPollDoor
            if direct is not None:
                door = DirectPollDoor(node, limit, placement, caller, callback, direct, extra)
            else:
                door = AsgiPollDoor(node, limit, placement, caller, callback)
        except BaseException:
            node.hub.let_go(placement.subscriptions)
            raise
        if isinstance(door, DirectPollDoor):
            assert direct is not None
            if direct.transport.is_closing():
                door.end()
            direct.take(door)
        node.hub.join(door.subscriber, placement)
        door.wait(wait_s)
        return await self._await(door, receive) if isinstance(door, AsgiPollDoor) else None

    def _page(self, slice_: Slice, callback: str | None, skip: str | None = None) -> Answer:
        answer = write_slice(slice_, slice_.gap, skip=skip)
        self.node.counters.delivered(len(slice_.messages), len(answer.body))
        return wrap(answer, callback)

    async def _await(self, door: AsgiPollDoor, receive: Receive) -> Answer:
        """Wait for the answer, or for the peer to go away."""
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((gone, door.future), return_when=asyncio.FIRST_COMPLETED)
            if not door.future.done():
                raise Gone
            return door.future.result()
        finally:
            door.end()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone


def check_callback(name: str | None) -> str | None:
    """Return the name of a script's function; raise BadRequest for what could be anything else."""
    if name is not None and (len(name) > CALLBACK_MAX_CHARS or _CALLBACK.fullmatch(name) is None):
        raise BadRequest(
            f"callback={name[:40]!a} is no name of a function: letters, digits, _ and $, in parts joined by dots, "
            f"at most {CALLBACK_MAX_CHARS} characters"
        )
    return name


def wrap(answer: Answer, callback: str | None) -> Answer:
    """Make a script of an answer, for a page that cannot read it otherwise; None leaves it as it is.

    A script is loaded with status 200 or not at all, so an error is told in it.
    """
    if callback is None:
        return answer
    # Two characters end a line in older JavaScript and not in JSON. The comment keeps a plugin from taking the answer
    # for a file of its own that begins with the callback's name.
    text = answer.body.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return Answer(200, b"/**/%b(%b);" % (callback.encode(), text), b"text/javascript; charset=utf-8", answer.fields)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def join_gaps(first: Gap | None, second: Gap | None) -> Gap | None:
    """Make one gap of two that follow each other: an answer has a field for one."""
    if first is None or second is None:
        return first or second
    channels = dict.fromkeys((*first.channels, *second.channels))
    reason = "epoch" if "epoch" in (first.reason, second.reason) else first.reason
    return Gap(first.from_, second.to, reason, tuple(channels))


def write_page(frames: Sequence[bytes], cursor: Position, gap: Gap | None) -> Answer:
    """Make the answer to a poll, of message objects that were written already."""
    messages = b",".join(frames)
    gap_json = msgspec.json.encode(gap)
    return Answer(200, b'{"messages":[%b],"cursor":"%b","gap":%b}' % (messages, str(cursor).encode(), gap_json))


def write_slice(slice_: Slice, gap: Gap | None, *, skip: str | None = None) -> Answer:
    """Make the answer to a poll, of what was read; without what the session `skip` asked not to get."""
    frames = [JSON.message(message) for message in slice_.messages if not message.skip or message.skip != skip]
    return write_page(frames, slice_.position, gap)
