"""All data channels of this process: the ports, the certificate, who is there, and the bounds on how many."""

from __future__ import annotations

import asyncio
import errno
import re
import secrets
import socket
import string
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec
from aioice.ice import get_host_addresses

from tellwire.errors import CloseCode, RateLimited, TooManyConnections
from tellwire.limits import Bucket, Buckets
from tellwire.node import Caller, Node
from tellwire.tasks import Tasks
from tellwire.transports.rtc.association import Certificate
from tellwire.transports.rtc.description import read_offer, write_answer
from tellwire.transports.rtc.door import LINGER_S, RtcDoor, State
from tellwire.transports.rtc.endpoint import Accepted
from tellwire.transports.rtc.port import Port
from tellwire.transports.rtc.settings import RtcSettings

SLOTS = 20
"""Into how many turns a round of signs of life is spread."""

SILENT_BEATS = 2.4
"""Signs of life that may be unanswered before a peer is dead: 12 s with those of 5 s."""

PUMP_MAX = 64
"""Connections whose datagrams are sent in one turn of the loop; then what came meanwhile is read."""

PORTS_TRIED = 64
"""Ports that are tried from `rtc_port` on: each process of one server takes its own."""

NAME_LETTERS = string.ascii_letters + string.digits

ID = re.compile(r"[A-Za-z0-9]{24}\.([A-Za-z0-9_-]{12})")
"""What a connection is called: a secret of 143 bits, and the name of its node, so that only that one is asked."""

END = "end_data_channels"
"""What a node is asked that has a connection which is to end."""


class _EndWanted(msgspec.Struct, omit_defaults=True):
    """Which connection is to end, and for whom."""

    id: str
    user: str | None = None


class _Pace:
    """How often something is done: for each caller, and in all."""

    def __init__(self, node: Node, settings: RtcSettings, what: str) -> None:
        self._node = node
        self._settings = settings
        self._what = what
        self._all = Bucket(settings.rtc_offers_per_s, settings.rtc_offers_per_s)
        self._each = Buckets(settings.rtc_offers_per_caller_s, settings.rtc_offers_per_caller_s)

    def take(self, caller: Caller) -> None:
        """Count one; raises RateLimited. What is refused to one caller takes nothing from the others."""
        now = time.monotonic()
        name, wait_s = "rtc_offers_per_caller_s", self._each.take(caller.key, 1, now)
        if not wait_s:
            name, wait_s = "rtc_offers_per_s", self._all.take(1, now)
        if wait_s:
            self._node.counters.limit_hit(name)
            at_most = getattr(self._settings, name)
            raise RateLimited(f"too many {self._what}: at most {at_most:g} a second are taken", wait_s)


class Connections:
    """The data channels of this process (see `RtcHost`).

    Args:
        node: Whom they talk to.
        settings: How many, and where.
        host: Where the server listens, for the addresses that are offered.
    """

    def __init__(self, node: Node, settings: RtcSettings, host: str = "127.0.0.1") -> None:
        self.node = node
        self.settings = settings
        self.offer_max_bytes = settings.rtc_offer_max_bytes
        self.tasks = Tasks()
        self.addresses: list[tuple[str, int]] = []
        """Where peers are told to send to."""
        self._host = host
        self._certificate: Certificate | None = None
        self._ports: list[Port] = []
        self._doors: dict[str, RtcDoor] = {}  # by what peers call them in their checks
        self._by_id: dict[str, RtcDoor] = {}
        # Those that are not open yet, the oldest first.
        self._pending: OrderedDict[RtcDoor, None] = OrderedDict()
        self._slots: list[set[RtcDoor]] = [set() for _ in range(SLOTS)]
        self._turn = 0
        self._beat: asyncio.TimerHandle | None = None
        self._due: dict[RtcDoor, None] = {}
        self._is_pumping = False
        self._offers = _Pace(node, settings, "offers of data channels")
        self._ends = _Pace(node, settings, "ends of other nodes' data channels")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._empty = asyncio.Event()

    async def open(self) -> None:
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        self.node.roster.answer_with(END, self._answer_end)
        if not type(self._loop).__module__.startswith("uvloop"):
            # Measured: asyncio's own loop takes one datagram in a turn, and the kernel drops what comes meanwhile.
            raise ValueError("rtc needs uvloop as the event loop; run the server with it, or leave rtc off")
        self._certificate = Certificate.generateCertificate()
        self._certificate.prepare()
        offered = self.settings.rtc_address or tuple(_addresses_of(self._host))
        # An address that is not of this machine is its NAT's, which sends to any that is; for one of our own a socket
        # has to be bound to it, as the peer takes answers only from where it asked.
        any_of = {address: "::" if ":" in address else "0.0.0.0" for address in offered if not _is_own(address)}  # noqa: S104
        ports = {each: await self._bind(each) for each in sorted(set(any_of.values()))}
        for address in offered:
            port = ports[any_of[address]] if address in any_of else await self._bind(address)
            self.addresses.append((address, port.number))
        self._tick()

    async def _bind(self, address: str) -> Port:
        port = Port(self._doors.get)
        first = self.settings.rtc_port
        last = min(first + PORTS_TRIED, 65_536) if first else 1
        for number in range(first, last):
            try:
                await port.open(address, number)
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE or number == last - 1:
                    raise
            else:
                break
        self._ports.append(port)
        return port

    @property
    def certificate(self) -> Certificate:
        assert self._certificate is not None
        return self._certificate

    def __len__(self) -> int:
        return len(self._doors)

    def now(self) -> float:
        """Return the time by the loop's clock, in seconds."""
        assert self._loop is not None
        return self._loop.time()

    def fresh_name(self, chars: int) -> str:
        """Return a secret of letters and digits, which are what ICE takes (RFC 8839, section 5.4)."""
        return "".join(secrets.choice(NAME_LETTERS) for _ in range(chars))

    def fresh_id(self) -> str:
        """Return what a new connection is called among all of all nodes (see `ID`)."""
        return f"{self.fresh_name(24)}.{self.node.name}"

    async def accept(self, offer: bytes, caller: Caller, since: str | None) -> Accepted:
        self._offers.take(caller)
        read = read_offer(offer)
        node = self.node
        node.check_room(caller)
        if len(self._doors) >= self.settings.rtc_connections:
            if not self._pending:
                node.counters.limit_hit("rtc_connections")
                raise TooManyConnections("this server has as many data channels as it may; try again later")
            self.drop(next(iter(self._pending)))
        visit = node.turnstile.enter(caller.address)
        caller.heartbeat_s = self.settings.rtc_ping_s
        door = RtcDoor(self, read, caller, since, visit)
        self._doors[door.ufrag] = self._by_id[door.id] = door
        self._pending[door] = None
        self._empty.clear()
        assert self._loop is not None
        door.timer = self._loop.call_later(self.settings.rtc_open_s, self._lose_patience, door)
        answer = write_answer(
            read,
            number=time.time_ns() // 1000,
            ufrag=door.ufrag,
            password=door.password,
            fingerprints=self.certificate.fingerprints,
            addresses=self.addresses,
        )
        return Accepted(door.id, answer)

    def _lose_patience(self, door: RtcDoor) -> None:
        self.node.counters.limit_hit("rtc_open_s")
        self.drop(door)

    async def end(self, id_: str, caller: Caller) -> bool:
        named = ID.fullmatch(id_)
        if named is None:
            return False
        wanted = _EndWanted(id_, caller.user)
        if named[1] == self.node.name:
            return self._end_here(wanted)
        self._ends.take(caller)  # it is a message to all nodes
        said = await self.node.roster.ask_one(named[1], END, wanted)
        return said is not None and said["ended"]

    async def _answer_end(self, node: Node, wanted: bytes) -> tuple[Any, Iterable[Any]]:
        return {"ended": self._end_here(msgspec.json.decode(wanted, type=_EndWanted))}, ()

    def _end_here(self, wanted: _EndWanted) -> bool:
        """End a connection that this node has; False where it has none that is the user's."""
        door = self._by_id.get(wanted.id)
        if door is None or door.state is State.CLOSING or door.caller.user != wanted.user:
            return False
        if door.state is State.OPEN:
            # It is dropped once its peer has read why.
            door.close(CloseCode.NORMAL, "the client ended the session")
        else:
            self.drop(door)
        return True

    # For the doors

    def opened(self, door: RtcDoor) -> None:
        """Take note that a connection is used from now on."""
        self._pending.pop(door, None)
        door.stop_timer()
        door.slot = self._turn % SLOTS
        self._slots[door.slot].add(door)

    def drop(self, door: RtcDoor) -> None:
        """Let go of a connection; may be called twice."""
        if self._doors.pop(door.ufrag, None) is None:
            return
        del self._by_id[door.id]
        self._pending.pop(door, None)
        self._slots[door.slot].discard(door)
        self._due.pop(door, None)
        door.leave()
        for port in self._ports:
            port.forget(door)
        if not self._doors:
            self._empty.set()

    def due(self, door: RtcDoor) -> None:
        """Send a connection's datagrams soon.

        Not at once: a message for a thousand readers is a thousand datagrams, and all that comes meanwhile would be
        lost once the socket's buffer is full.
        """
        self._due[door] = None
        if not self._is_pumping:
            self._is_pumping = True
            assert self._loop is not None
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        due = self._due
        for _ in range(min(PUMP_MAX, len(due))):
            door = next(iter(due))
            del due[door]
            door.flush()
        self._is_pumping = bool(due)
        if due:
            assert self._loop is not None
            self._loop.call_soon(self._pump)

    def _tick(self) -> None:
        assert self._loop is not None
        period_s = self.settings.rtc_ping_s
        self._beat = self._loop.call_later(period_s / SLOTS, self._tick)
        self._turn += 1
        now = self.now()
        for door in tuple(self._slots[self._turn % SLOTS]):
            door.beat(now, period_s * SILENT_BEATS)

    async def aclose(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        for door in list(self._doors.values()):
            if door.state is State.OPEN:
                door.close(CloseCode.GOING_AWAY, "the server stops")
            elif door.state is not State.CLOSING:
                self.drop(door)
        if self._doors:
            # Each lingers until its peer has what it was closed with.
            try:
                async with asyncio.timeout(2 * LINGER_S):
                    await self._empty.wait()
            except TimeoutError:
                for door in list(self._doors.values()):
                    self.drop(door)
        await self.tasks.aclose()
        self._close_ports()

    def _close_ports(self) -> None:
        for port in self._ports:
            port.close()
        self._ports = []


def _is_own(address: str) -> bool:
    """Tell whether an address is of this machine."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
        return True


def _addresses_of(host: str) -> Sequence[str]:
    """Return the addresses at which a server that listens at `host` can be reached."""
    try:
        address = ip_address(host)
    except ValueError:
        found: str = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)[0][4][0]  # type: ignore[assignment]
        address, host = ip_address(found), found
    if not address.is_unspecified:
        return [host]
    return get_host_addresses(use_ipv4=address.version == 4, use_ipv6=address.version == 6) or ["127.0.0.1"]
