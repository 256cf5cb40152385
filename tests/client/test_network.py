"""The client over real networks that fail, and real servers that die: every message once, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from tellwire.client import Client, Published, Settings, State, Subscription, TransportName, connect
from tellwire.client.messages import ELSEWHERE, ORDER
from tests.client.proxy import Proxy
from tests.serving import Server

LINES: dict[TransportName, str] = {
    "grpc": "PRI * HTTP/2.0",
    "websocket": "/v1/ws",
    "sse": "/v1/events",
    "longpoll": "wait=",
}
"""What is in the first line of requests of each transport, and not in those of the transports after it."""

QUICK = Settings(
    poll_s=0.05,
    long_poll_s=1,
    try_timeout_s=2.0,
    upgrade_after_s=1.2,
    outbox_max_messages=20_000,
    chance=lambda: 0.0,
)

ALL = (*ELSEWHERE, *ORDER)

GRPC_STATUS = "_AioCall._handle_status_once_received"

every = pytest.mark.parametrize("name", ALL)


def run(test: Callable[[], Any]) -> None:
    """Run a test in a loop, and see that it leaves no task behind."""

    async def watched() -> None:
        await test()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        # gRPC's own end when its core has taken note of the end, which it does in a thread.
        assert {getattr(task.get_coro(), "__qualname__", "") for task in left} <= {GRPC_STATUS}, left
        if left:
            await asyncio.wait(left)

    asyncio.run(watched())


def port_of(server: Server, name: TransportName) -> int:
    """Return the port that a transport goes to."""
    return server.grpc_port if name == "grpc" else server.port


def client_over(
    proxy: Proxy, transports: Sequence[TransportName], settings: Settings = QUICK, grpc: Proxy | None = None
) -> Client:
    """Connect through a proxy; to the port of gRPC through `grpc`, where that is not the only one."""
    if transports == ["grpc"]:
        return connect(f"grpc://127.0.0.1:{proxy.port}", settings=settings)
    where = None if grpc is None else f"grpc://127.0.0.1:{grpc.port}"
    return connect(proxy.url, grpc=where, transports=transports, settings=settings)


async def until(client: Client, is_so: Callable[[State], bool]) -> None:
    """Wait for a state of a client."""
    changed = asyncio.Event()
    off = client.on_state(lambda state: changed.set())
    while not is_so(client.state):
        changed.clear()
        await changed.wait()
    off()


class Traffic:
    """Messages of two channels: one that others publish to, and one that the client publishes to itself."""

    def __init__(self, server: Server, client: Client, channel: str) -> None:
        self.server = server
        self.client = client
        self.theirs, self.mine = channel, f"{channel}-mine"
        self.gaps: list[Any] = []
        self.readings: list[Subscription] = [
            client.subscribe(name, since="earliest", on_gap=self.gaps.append) for name in (self.theirs, self.mine)
        ]
        self.sent = [0, 0]
        self.answers: list[asyncio.Task[Published]] = []

    async def flow(self, theirs: int, mine: int) -> None:
        """Publish so many on each side."""
        (first, second), self.sent = self.sent, [self.sent[0] + theirs, self.sent[1] + mine]
        for number in range(second, second + mine):
            self.answers.append(asyncio.create_task(self.client.publish(self.mine, number)))
        if theirs:
            numbers = range(first, first + theirs)
            batch = [{"channel": self.theirs, "data": number, "id": f"{self.theirs}-{number}"} for number in numbers]
            await asyncio.to_thread(self.server.publish_all, batch)

    async def check(self) -> None:
        """Wait for all of them; each has to have come once and in order, and to be in the log once."""
        await asyncio.gather(*self.answers)
        for reading, count in zip(self.readings, self.sent, strict=True):
            had = [(await anext(reading)).data for _ in range(count)]
            assert had == list(range(count))
            assert not reading._queue
        assert self.gaps == []


@pytest.mark.parametrize(("before", "after"), list(permutations(ALL, 2)))
def test_nothing_is_lost_or_doubled_between_two_transports(
    server: Server, channel: str, before: TransportName, after: TransportName
) -> None:
    async def test() -> None:
        transports = [name for name in ALL if name in (before, after)]
        is_better = transports[0] == after
        async with Proxy(server.port) as proxy, Proxy(server.grpc_port) as grpc:
            if is_better:
                proxy.forbidden = grpc.forbidden = {LINES[after]}
            async with client_over(proxy, transports, grpc=grpc) as client:
                traffic = Traffic(server, client, channel)
                await until(client, lambda state: state.transport == before)
                for _ in range(5):
                    await traffic.flow(570, 100)
                if is_better:
                    proxy.forbidden = grpc.forbidden = set()
                else:
                    proxy.forbidden = grpc.forbidden = {LINES[before]}
                    proxy.cut()
                    grpc.cut()
                for _ in range(5):
                    await traffic.flow(570, 100)
                await until(client, lambda state: state.transport == after)
                for _ in range(5):
                    await traffic.flow(570, 100)
                await traffic.check()
                await until(client, lambda state: state.transport == after)

    run(test)


@every
def test_server_that_is_killed_and_comes_back_loses_nothing(
    start_server: Callable[..., Server], tmp_path: Path, channel: str, name: TransportName
) -> None:
    def start() -> Server:
        return start_server(server={"broker": f"sqlite:///{tmp_path / 'log.db'}", "grpc_port": 0})

    async def test() -> None:
        server = start()
        async with Proxy(port_of(server, name)) as proxy, client_over(proxy, [name]) as client:
            traffic = Traffic(server, client, channel)
            for _ in range(2):
                await traffic.flow(200, 100)
                await until(client, lambda state: state.name == "connected")
                await traffic.flow(0, 100)
                server.kill()
                server.wait()
                await traffic.flow(0, 100)
                traffic.server = server = await asyncio.to_thread(start)
                proxy.upstream = port_of(server, name)
                await traffic.flow(200, 100)
            await traffic.check()
            page = await client.history(traffic.mine, limit=1000)
            assert [message.data for message in page.messages] == list(range(800))
            positions = {message.position for message in page.messages}
            assert {(await answer).position for answer in traffic.answers} == positions

    run(test)


@every
def test_connections_that_are_cut_again_and_again(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        async with Proxy(port_of(server, name)) as proxy, client_over(proxy, [name]) as client:
            traffic = Traffic(server, client, channel)
            proxy.pieces = 7
            for _ in range(2):
                await traffic.flow(100, 100)
                proxy.cut()
                await traffic.flow(100, 100)
                await until(client, lambda state: state.name == "connected")
            await traffic.check()

    run(test)


@pytest.mark.parametrize("name", ["grpc", "websocket", "sse"])
def test_line_that_delivers_garbage_once_in_a_while(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        async with Proxy(port_of(server, name)) as proxy, client_over(proxy, [name]) as client:
            traffic = Traffic(server, client, channel)
            for _ in range(2):
                proxy.corrupt_after = 3000
                await traffic.flow(100, 100)
                await asyncio.gather(*traffic.answers)
            proxy.corrupt_after = None
            await traffic.check()

    run(test)


@every
def test_line_that_is_slow_and_late(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        async with Proxy(port_of(server, name)) as proxy, client_over(proxy, [name]) as client:
            proxy.delay_s = 0.02
            proxy.pieces = 50
            traffic = Traffic(server, client, channel)
            for _ in range(4):
                await traffic.flow(100, 50)
            await traffic.check()

    run(test)


@pytest.mark.parametrize("name", ["grpc", "websocket", "sse"])
def test_line_that_swallows_everything(start_server: Callable[..., Server], channel: str, name: TransportName) -> None:
    server = start_server(limits={"heartbeat_s": 0.4}, server={"grpc_port": 0})
    settings = Settings(heartbeat_s=0.4, try_timeout_s=2.0, chance=lambda: 0.0)

    async def test() -> None:
        async with Proxy(port_of(server, name)) as proxy, client_over(proxy, [name], settings) as client:
            traffic = Traffic(server, client, channel)
            await until(client, lambda state: state.name == "connected")
            await traffic.flow(50, 50)
            proxy.is_silent = True
            await traffic.flow(50, 50)
            await until(client, lambda state: state.name == "disconnected")
            proxy.is_silent = False
            await traffic.flow(50, 50)
            await traffic.check()

    run(test)


def test_proxy_that_forbids_websockets_and_buffers_streams(server: Server, channel: str) -> None:
    async def test() -> None:
        async with Proxy(server.port) as proxy:
            proxy.refused = {"/v1/ws"}
            proxy.buffered = {"/v1/events"}
            async with client_over(proxy, ORDER) as client:
                subscription = client.subscribe(channel)
                await until(client, lambda state: state.transport == "longpoll")
                await client.publish(channel, "through")
                assert (await anext(subscription)).data == "through"

    run(test)


@pytest.mark.parametrize("name", ["grpc", "websocket"])
def test_server_that_drains_is_left_and_found_again(
    start_server: Callable[..., Server], tmp_path: Path, name: TransportName
) -> None:
    def start() -> Server:
        return start_server(server={"broker": f"sqlite:///{tmp_path / 'log.db'}", "grpc_port": 0})

    async def test() -> None:
        server = start()
        async with Proxy(port_of(server, name)) as proxy, client_over(proxy, [name]) as client:
            traffic = Traffic(server, client, "a")
            await until(client, lambda state: state.name == "connected")
            await traffic.flow(100, 100)
            server.terminate()
            await until(client, lambda state: state.name == "disconnected")
            await asyncio.to_thread(server.wait)
            traffic.server = server = await asyncio.to_thread(start)
            proxy.upstream = port_of(server, name)
            await traffic.flow(100, 100)
            await traffic.check()

    run(test)
