"""The Python client on data channels: nothing lost and nothing twice, whatever becomes of the path."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable

import pytest

from tellwire.client import Client, Settings, State, connect
from tests.rtc.conftest import RTC
from tests.rtc.peers import run
from tests.rtc.relay import Relay, ThroughRelay
from tests.serving import Server

PATIENCE = Settings(try_timeout_s=5.0, upgrade_after_s=0.5, chance=lambda: 0.0)


async def _until(client: Client, transport: str, states: list[State]) -> None:
    """Wait until the client is connected over a transport, which it tells by its states."""
    while client.state.transport != transport:
        count = len(states)
        while len(states) == count and client.state.transport != transport:  # noqa: ASYNC110  # states come by a callback
            await asyncio.sleep(0.01)


def test_client_goes_from_data_channels_to_a_websocket_and_back(
    start_server: Callable[..., Server], channel: str
) -> None:
    server = start_server(rtc={**RTC, "rtc_ping_s": 0.4})

    async def test() -> None:
        states: list[State] = []
        async with Relay() as relay:
            client = connect(
                f"http://127.0.0.1:{server.port}",
                transports=("webrtc", "websocket"),
                settings=PATIENCE,
                on_state=states.append,
                http_transport=ThroughRelay(relay),
            )
            async with client:
                reading = client.subscribe(channel, since="earliest")
                await _until(client, "webrtc", states)
                publishes = []
                for number in range(300):
                    publishes.append(asyncio.create_task(client.publish(channel, f"mine {number}")))
                    if number == 100:
                        relay.is_cut = True
                        await _until(client, "websocket", states)
                    elif number == 200:
                        relay.is_cut = False
                        await _until(client, "webrtc", states)
                    await asyncio.sleep(0)
                await asyncio.gather(*publishes)
                had = [(await anext(reading)).data for _ in range(300)]
                assert had == [f"mine {number}" for number in range(300)]

    run(test())


@pytest.mark.parametrize("binary", [False, True])
def test_path_that_loses_is_no_reason_to_lose(rtc_server: Server, channel: str, binary: bool) -> None:
    async def test() -> None:
        async with Relay(seed=7) as relay:
            relay.loss, relay.delay_s = 0.05, 0.005
            client = connect(
                f"http://127.0.0.1:{rtc_server.port}",
                transports=("webrtc",),
                settings=Settings(try_timeout_s=20.0, binary=binary, chance=lambda: 0.0),
                http_transport=ThroughRelay(relay),
            )
            async with client:
                reading = client.subscribe(channel, since="earliest")
                await client.connected()
                publishes = [asyncio.ensure_future(client.publish(channel, number)) for number in range(100)]
                assert [(await anext(reading)).data for _ in range(100)] == list(range(100))
                await asyncio.gather(*publishes)

    run(test())


def test_unreliable_subscription_has_the_newest(rtc_server: Server, channel: str) -> None:
    async def test() -> None:
        async with Relay(seed=3) as relay:
            client = connect(
                f"http://127.0.0.1:{rtc_server.port}", transports=("webrtc",), http_transport=ThroughRelay(relay)
            )
            async with client:
                reading = client.subscribe(channel, unreliable=True)
                await client.connected()
                await reading.ready()
                relay.loss = 0.2
                seqs: list[int] = []

                async def read() -> None:
                    async for message in reading:
                        seqs.append(message.seq)
                        if message.data == "end":
                            return

                reader = asyncio.create_task(read())
                while not reader.done():
                    rtc_server.publish(channel, "end" if len(seqs) > 50 else "position")
                    await asyncio.sleep(0.005)
                await reader
                assert seqs == sorted(set(seqs)), "none twice, none late"

    run(test())


def test_transport_is_refused_where_aiortc_is_missing() -> None:
    program = (
        "import sys; sys.modules['aiortc'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'aiortc' else find(name, *rest)\n"
        "from tellwire.client import connect\n"
        "try: connect('http://127.0.0.1:1', transports=('webrtc',))\n"
        "except ValueError as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "install tellwire[webrtc]" in done.stdout
