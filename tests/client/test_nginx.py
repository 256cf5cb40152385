"""The Python client behind a real nginx: what does not get through is left for what does."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tellwire.client import TransportName, connect
from tests.client.test_network import QUICK
from tests.nginx import BARE, CHUNKED, DEAF, DOCUMENTED, FORBIDDING, Through, through
from tests.serving import Server

__all__ = ["through"]

# No better transport is to be tried again while the test looks, since none would get through.
SETTLED = replace(QUICK, upgrade_after_s=600.0, try_timeout_s=4.0)

PATIENT = replace(SETTLED, try_timeout_s=60.0)
"""For what gets through or is refused at once, however long that takes here: there is nothing that never comes."""


@pytest.mark.parametrize(
    ("location", "transport"),
    [
        pytest.param(BARE, "sse", id="bare"),
        pytest.param(FORBIDDING, "sse", id="forbidding"),
        pytest.param(DEAF, "longpoll", id="deaf"),
        pytest.param(CHUNKED, "sse", id="chunked"),
        pytest.param(DOCUMENTED, "websocket", id="documented"),
    ],
)
def test_is_live_over_the_first_that_gets_through(
    server: Server, through: Through, channel: str, location: str, transport: TransportName
) -> None:
    nginx = through(server, location)

    async def test() -> None:
        settings = SETTLED if location is DEAF else PATIENT
        async with connect(f"http://127.0.0.1:{nginx.port}", settings=settings) as client:
            subscription = client.subscribe(channel)
            await subscription.ready()
            await client.connected()
            assert client.state.transport == transport
            messages = aiter(subscription)
            for number in range(0, 20, 2):
                server.publish(channel, number)
                assert (await anext(messages)).data == number
                await client.publish(channel, number + 1)
                assert (await anext(messages)).data == number + 1

    asyncio.run(test())
