"""What strangers send, before it is known who they are: any bytes, and offers with anything wrong in them."""

from __future__ import annotations

import asyncio
import contextlib
import os

from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from tellwire.errors import BadRequest
from tellwire.transports.rtc.description import read_offer, write_answer
from tellwire.transports.rtc.port import Address, Port
from tests.rtc.peers import OFFER

LINES = OFFER.split("\n")

changed = st.lists(
    st.one_of(
        st.sampled_from(LINES),
        st.text(max_size=40),
        st.builds(
            lambda line, at, text: line[:at] + text + line[at:],
            st.sampled_from(LINES),
            st.integers(0, 60),
            st.text(max_size=20),
        ),
    ),
    max_size=40,
)


@given(st.one_of(st.binary(max_size=2000), changed.map(lambda lines: "\n".join(["v=0", *lines]).encode())))
def test_any_offer_is_answered_or_refused(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        offer = read_offer(body)
        answer = write_answer(
            offer, number=1, ufrag="abcd", password="x" * 24, fingerprints=[], addresses=[("127.0.0.1", 9)]
        )
        # Nothing of the offer makes lines of its own in the answer.
        assert all(line[1:2] == "=" for line in answer.decode().split("\r\n")[:-1])


class _Peer:
    password = "0123456789abcdef01234567"  # made up

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.reached_at: list[bool] = []

    def reached(self, port: Port, address: Address, *, is_nominated: bool) -> None:
        self.reached_at.append(is_nominated)

    def received(self, data: bytes) -> None:
        raise AssertionError("nothing was signed")


def _request(ufrag: str, **attributes: object) -> stun.Message:
    return stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes={"USERNAME": f"{ufrag}:them", **attributes})


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda tail: bytes.fromhex("0001") + tail)))
def test_datagrams_of_strangers_reach_nobody(data: bytes) -> None:
    peer = _Peer()
    Port({"known": peer}.get).datagram_received(data, ("192.0.2.1", 5))
    assert not peer.addresses
    assert not peer.reached_at


def test_check_reaches_its_peer_only_when_it_is_signed() -> None:
    peer = _Peer()
    port = Port({"known": peer}.get)
    unsigned = _request("known")
    port.datagram_received(bytes(unsigned), ("192.0.2.1", 5))
    forged = _request("known")
    forged.add_message_integrity(os.urandom(24))
    port.datagram_received(bytes(forged), ("192.0.2.1", 5))
    assert peer.reached_at == []
    for number in range(40):
        signed = _request("known", **({"USE-CANDIDATE": None} if number == 39 else {}))
        signed.add_message_integrity(peer.password.encode())
        port.datagram_received(bytes(signed), ("192.0.2.1", number))
    assert peer.reached_at == [False] * 39 + [True]
    assert len(peer.addresses) == 16, "an address of a peer makes way for its newest"


def test_peer_that_is_controlled_too_is_told_to_change() -> None:
    async def test() -> None:
        peer = _Peer()
        port = Port({"known": peer}.get)
        await port.open("127.0.0.1", 0)
        answers: asyncio.Queue[bytes] = asyncio.Queue()

        class Other(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, address: Address) -> None:
                answers.put_nowait(data)

        loop = asyncio.get_running_loop()
        other, _ = await loop.create_datagram_endpoint(Other, remote_addr=("127.0.0.1", port.number))
        request = _request("known", **{"ICE-CONTROLLED": 1})
        request.add_message_integrity(peer.password.encode())
        other.sendto(bytes(request))
        answer = stun.parse_message(await answers.get())
        assert (answer.message_class, answer.error_code) == (stun.Class.ERROR, 487)
        assert answer.check_message_integrity(peer.password.encode())
        assert peer.reached_at == []
        other.close()
        port.close()
        await asyncio.sleep(0)

    asyncio.run(test())
