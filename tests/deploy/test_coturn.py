"""deploy/coturn.conf under the real coturn: who gets a relay, where it may send, and how much one user may have."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator

import pytest
from aioice import stun
from aioice.turn import TurnTransport, create_turn_endpoint

from tellwire.ice import IceServer, IceServers
from tests.turn import Turn, turn_server

PRIVATE = (
    "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1", "172.31.255.255",
    "192.0.2.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
)  # fmt: skip
PUBLIC = ("9.9.9.9", "172.32.0.1", "100.128.0.1", "192.169.0.1")
"""A permission alone sends nothing there."""


@pytest.fixture(scope="module")
def turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turn]:
    with turn_server(tmp_path_factory.mktemp("turn"), loopback=False) as turn:
        yield turn


def credentials(turn: Turn, user: str = "ada", at: float | None = None) -> IceServer:
    servers, _ = IceServers(turn.settings()).list_for(user, time.time() if at is None else at)
    return servers[-1]


async def relayed(turn: Turn, server: IceServer, transport: str = "udp") -> TurnTransport:
    """Ask for a relay, from another port where coturn refuses one for what it remembers of it (437; RFC 8656, 7.4).

    Of some 20,000 requests it also leaves one without an answer, however often that is sent.
    """
    while True:
        try:
            relay, _ = await create_turn_endpoint(
                asyncio.DatagramProtocol, ("127.0.0.1", turn.port), server.username, server.credential,
                transport=transport,
            )  # fmt: skip
        except stun.TransactionTimeout:
            continue
        except stun.TransactionFailed as exc:
            if exc.response.attributes["ERROR-CODE"][0] != 437:
                raise
        else:
            return relay


async def permitted(turn: Turn, server: IceServer, addresses: tuple[str, ...], transport: str = "udp") -> list[str]:
    """Ask for a relay, and for the permission to send to addresses; return those that were granted."""
    relay = await relayed(turn, server, transport)
    try:
        granted = []
        # What aioice offers in public binds a channel, which sends to the peer at once.
        inner = relay._TurnTransport__inner_protocol  # type: ignore[attr-defined]
        for address in addresses:
            request = stun.Message(message_method=stun.Method.CREATE_PERMISSION, message_class=stun.Class.REQUEST)
            request.attributes["XOR-PEER-ADDRESS"] = (address, 9)
            try:
                await inner.request_with_retry(request)
            except stun.TransactionFailed as exc:
                assert exc.response.attributes["ERROR-CODE"][0] == 403  # noqa: PT017  # several of them in a row
            else:
                granted.append(address)
        return granted
    finally:
        await inner.delete()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_relay_sends_to_public_addresses_only(turn: Turn, transport: str) -> None:
    granted = asyncio.run(permitted(turn, credentials(turn), PRIVATE + PUBLIC, transport))
    assert granted == list(PUBLIC)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda turn: credentials(turn, at=time.time() - 10_000),
        lambda turn: IceServer((), credentials(turn).username, "c29tZXRoaW5nIGVsc2U="),
        lambda turn: IceServer((), credentials(turn, "eve").username, credentials(turn, "ada").credential),
        lambda turn: IceServer((), "9999999999:eve", credentials(turn).credential),
    ],
    ids=["expired", "guessed", "somebody else's", "prolonged"],
)
def test_wrong_credentials_get_no_relay(turn: Turn, wrong: Callable[[Turn], IceServer]) -> None:
    with pytest.raises(stun.TransactionFailed) as caught:
        asyncio.run(permitted(turn, wrong(turn), ()))
    assert caught.value.response.attributes["ERROR-CODE"][0] == 401


def test_one_user_has_a_quota_whatever_its_credentials_are(turn: Turn) -> None:
    async def fill() -> int:
        relays = []
        try:
            for number in range(40):
                # Every second another name: they are the same user's.
                server = credentials(turn, "greedy", time.time() + number)
                relays.append(await relayed(turn, server))
        except stun.TransactionFailed as exc:
            assert exc.response.attributes["ERROR-CODE"][0] == 486  # noqa: PT017
        finally:
            for relay in relays:
                await relay._TurnTransport__inner_protocol.delete()  # type: ignore[attr-defined]
        return len(relays)

    assert asyncio.run(fill()) == 24


def test_every_line_is_one_that_coturn_knows(turn: Turn) -> None:
    assert not re.search(r"(?i)unknown|unrecognized|bad configuration|warning", turn.log.read_text())
