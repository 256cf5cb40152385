"""What a WebSocket writes at once: all that one turn of the loop has for it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from websockets.protocol import OPEN as OPEN_STATE

from tellwire.node import Caller
from tellwire.node.entrance import OPEN
from tellwire.protocol.codecs import JSON
from tellwire.testing.doors import settle
from tellwire.testing.harness import on_loop
from tellwire.transports.frames import FrameParser
from tellwire.transports.websocket import WebSocketDoor
from tests.nodes import Bench, bench
from tests.wires import PING, TEXT, write_frame


class Writes(asyncio.Transport):
    """A transport that keeps what is written to it, each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.kept.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing ever waits."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def take(self) -> list[list[str]]:
        """Return the kinds of what each write held since the last time, with a number where there is one."""
        kept, self.kept = self.kept, []
        return [[_kind(payload) for payload in _payloads(written)] for written in kept]


def _payloads(written: bytes) -> list[bytes]:
    """Cut short, unmasked frames apart (RFC 6455, section 5.2)."""
    found = []
    while written:
        size, begin = written[1], 2
        if size == 126:
            size, begin = int.from_bytes(written[2:4], "big"), 4
        found.append(written[begin : begin + size])
        written = written[begin + size :]
    return found


def _kind(payload: bytes) -> str:
    if not payload.startswith(b"{"):
        return f"pong {payload.decode()}"
    push = msgspec.json.decode(payload)
    return f"{push['type']} {push.get('ref', push.get('data'))}"


def member(node: Bench) -> tuple[WebSocketDoor, Writes]:
    """Let somebody in who reads the channel ``room``."""
    parser = FrameParser(state=OPEN_STATE)
    parser.is_before_frame = True
    writes = Writes()
    door = WebSocketDoor(node, Caller(OPEN, "websocket", "127.0.0.1"), JSON, writes, parser, set())
    door.data_received(say(type="subscribe", ref="sub", channel="room"))
    return door, writes


def say(**command: Any) -> bytes:
    """Write a command as a client does."""
    return write_frame(TEXT, msgspec.json.encode(command))


@on_loop
async def test_members_of_a_room_get_answers_and_messages_of_a_turn_in_one_write() -> None:
    async with bench() as node:
        (one, to_one), (two, to_two), (_, to_three) = (member(node) for _ in range(3))
        await settle()
        assert [writes.take() for writes in (to_one, to_two, to_three)] == [[["subscribed sub"]]] * 3
        one.data_received(
            say(type="publish", ref="a", channel="room", data=1) + say(type="publish", ref="b", channel="room", data=2)
        )
        two.data_received(say(type="publish", ref="c", channel="room", data=3))
        assert not to_one.kept, "nothing goes out before the turn is over"
        await settle()
        messages = ["message 1", "message 2", "message 3"]
        assert to_one.take() == [["published a", "published b", *messages]]
        assert to_two.take() == [["published c", *messages]]
        assert to_three.take() == [messages]


@on_loop
async def test_pong_stands_where_its_ping_stood_among_the_commands() -> None:
    async with bench() as node:
        one, to_one = member(node)
        await settle()
        to_one.take()
        one.data_received(say(type="ping", ref=1) + write_frame(PING, b"in between") + say(type="ping", ref=2))
        await settle()
        assert to_one.take() == [["pong 1", "pong in between", "pong 2"]]


@on_loop
async def test_what_a_turn_left_is_not_written_once_the_connection_is_lost() -> None:
    async with bench() as node:
        one, to_one = member(node)
        await settle()
        to_one.take()
        one.data_received(say(type="publish", ref="a", channel="room", data=1))
        one.connection_lost(None)
        await settle()
        assert to_one.take() == []
