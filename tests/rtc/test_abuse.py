"""Peers that send what they should not: they are cut, the process stays small, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.rtc.conftest import RTC
from tests.rtc.peers import Peer, run
from tests.serving import Server


@pytest.fixture
def rtc_only(start_server: Callable[..., Server]) -> Server:
    """A server whose memory is its own."""
    return start_server(rtc=RTC)


async def _is_well(peer: Peer) -> None:
    assert (await peer.ask(type="ping"))["type"] == "pong"


def test_message_of_4_mib_is_refused_while_it_comes(rtc_only: Server) -> None:
    async def test() -> None:
        async with Peer(rtc_only) as other, Peer(rtc_only) as peer:
            await peer.ask(type="connect")
            before = rtc_only.rss
            peer.channel.transport._remote_max_message_size = 0  # as a peer that does not care
            peer.channel.send(b"\1" + bytes(4 * 1024 * 1024))
            assert (await peer.read_closing())["code"] == 1009
            assert rtc_only.rss - before < 3_000_000
            await _is_well(other)

    run(test())


def test_payload_in_endless_parts_is_refused(rtc_only: Server) -> None:
    async def test() -> None:
        async with Peer(rtc_only) as other, Peer(rtc_only) as peer:
            await peer.ask(type="connect")
            for _ in range(40):
                peer.channel.send(b"\1" + bytes(60_000))
            assert (await peer.read_closing())["code"] == 1009
            await _is_well(other)

    run(test())


def test_200_channels_end_the_connection(rtc_only: Server) -> None:
    async def test() -> None:
        async with Peer(rtc_only) as other, Peer(rtc_only) as peer:
            await peer.ask(type="connect")
            for number in range(200):
                peer.connection.createDataChannel(f"more {number}")
            assert (await peer.read_closing())["code"] == 1008
            await peer.ended.wait()
            await _is_well(other)

    run(test())


def test_channel_with_another_label_is_closed(rtc_only: Server) -> None:
    async def test() -> None:
        async with Peer(rtc_only) as peer:
            await peer.ask(type="connect")
            closed = asyncio.Event()
            peer.connection.createDataChannel("chat").on("close", closed.set)
            await closed.wait()
            await _is_well(peer)

    run(test())


@pytest.mark.parametrize(
    "options",
    [{"ordered": False}, {"maxRetransmits": 0}, {"protocol": "chat"}, {"maxPacketLifeTime": 5}],
    ids=["unordered", "lossy", "protocol", "lifetime"],
)
def test_reliable_channel_that_is_not_is_refused(rtc_only: Server, options: dict[str, Any]) -> None:
    async def test() -> None:
        peer = Peer(rtc_only, **options)
        await peer.offer()
        await peer.ended.wait()
        await peer.connection.close()

    run(test())


def test_commands_without_end_from_a_peer_that_takes_no_answers(rtc_only: Server) -> None:
    """No more of it is taken, once so much waits for it."""

    async def ignore(data: bytes) -> None:
        """Nothing is acknowledged, so that nothing more can be sent."""

    async def test() -> None:
        async with Peer(rtc_only) as other, Peer(rtc_only) as peer:
            await peer.ask(type="connect")
            before = rtc_only.rss
            for _ in range(20_000):
                peer.say(type="ping", ref="x" * 1000)
            await peer.ask(type="ping", ref="y")
            sctp: Any = peer.channel.transport
            sctp._handle_data = ignore
            await _is_well(other)
            assert rtc_only.rss - before < 20_000_000

    run(test())


def test_datagrams_of_strangers_are_passed_over(rtc_only: Server) -> None:
    async def test() -> None:
        async with Peer(rtc_only) as peer:
            await peer.ask(type="connect")
            pair = peer.connection.sctp.transport.transport._connection._nominated[1]  # type: ignore[union-attr]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.connect(("127.0.0.1", pair.remote_addr[1]))
                for first in (0x00, 0x01, 0x14, 0x16, 0x17, 0x80, 0xFF):
                    for size in (0, 1, 19, 20, 100, 1400):
                        stranger.send(bytes([first]) + os.urandom(size))
                stun = bytes.fromhex("000100002112a442") + os.urandom(12)
                stranger.send(stun)
                stranger.setblocking(False)
                await _is_well(peer)
                with pytest.raises(BlockingIOError):
                    stranger.recv(1500)

    run(test())
    assert rtc_only.log == ""
