"""The client against real servers, over each transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jwt
import pytest
from msgspec import structs

from tellwire.client import Client, Member, Message, Settings, Subscription, TransportName, connect, connect_sync
from tellwire.client.messages import ELSEWHERE, ORDER, Published
from tellwire.errors import Conflict, Forbidden, InvalidData, NotFound, TooLarge, Unauthorized
from tests.serving import Server

ALL = (*ELSEWHERE, *ORDER)

GRPC_STATUS = "_AioCall._handle_status_once_received"

transport = pytest.mark.parametrize("name", ALL)

QUICK = Settings(poll_s=0.05)


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


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


def client_of(server: Server, name: TransportName, **options: Any) -> Client:
    where = f"grpc://127.0.0.1:{server.grpc_port}" if name == "grpc" else url(server)
    return connect(where, transports=(name,), **{"settings": QUICK, **options})


async def take(subscription: Subscription, count: int) -> list[Any]:
    """Return the data of the next messages."""
    found: list[Any] = []
    while len(found) < count:
        found.append((await anext(subscription)).data)
    return found


@transport
def test_messages_come_as_they_were_published(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        async with client_of(server, name) as client, client.subscribe(channel) as subscription:
            await subscription.ready()
            data = {"text": "\x85 \u2028 é", "bytes": b"\x00\xff", "list": [1, 2.5, None, True, 2**60]}
            published = await client.publish(channel, data, event="greeting", key="k", id="m-1")
            message = await anext(subscription)
            assert message == Message(
                channel=channel,
                data=data,
                id="m-1",
                event="greeting",
                key="k",
                seq=message.seq,
                position=published.position,
                time=message.time,
            )
            assert subscription.cursor == published.position

    run(test)


@transport
def test_channels_are_read_from_where_they_were_asked_for(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        positions = [server.publish(f"{channel}-{number % 3}", number) for number in range(30)]
        async with client_of(server, name) as client:
            first = client.subscribe(f"{channel}-0", since="earliest")
            second = client.subscribe(f"{channel}-1", since=positions[10])
            third = client.subscribe(f"{channel}-2", last=2)
            assert await take(first, 10) == list(range(0, 30, 3))
            assert await take(second, 6) == list(range(13, 30, 3))
            assert await take(third, 2) == [26, 29]
            late = client.subscribe(channel, since="earliest")
            await late.ready()
            await client.publish(channel, "late")
            await client.publish(f"{channel}-0", "first")
            assert await take(late, 1) == ["late"]
            assert await take(first, 1) == ["first"]

    run(test)


async def publish_many(client: Client, channel: str, count: int) -> list[asyncio.Task[Published]]:
    """Publish numbers all at once, and read them in their order; return what is to be acknowledged."""
    subscription = client.subscribe(channel)
    await subscription.ready()
    answers = [asyncio.create_task(client.publish(channel, number)) for number in range(count)]
    assert await take(subscription, count) == list(range(count))
    return answers


@transport
def test_thousands_of_publishes_keep_their_order(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        async with client_of(server, name) as client:
            answers = await publish_many(client, channel, 900)
            await client.flush()
            assert not any(answer.duplicate for answer in await asyncio.gather(*answers))

    run(test)


@pytest.mark.parametrize("name", ["websocket", "sse"])
def test_publishes_past_the_rate_keep_their_order(
    start_server: Callable[..., Server], channel: str, name: TransportName
) -> None:
    server = start_server(limits={"publishes_per_s": 500})

    async def test() -> None:
        async with client_of(server, name) as client:
            await asyncio.gather(*await publish_many(client, channel, 1000))

    run(test)


@transport
def test_reader_that_does_not_read_holds_a_bounded_queue(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        settings = Settings(poll_s=0.05, queue_max_messages=10)
        async with client_of(server, name, settings=settings) as client:
            subscription = client.subscribe(channel, since="earliest")
            other = client.subscribe(f"{channel}-other")
            await subscription.ready()
            await other.ready()
            for number in range(200):
                await client.publish(channel, number)
            await client.publish(f"{channel}-other", "seen")
            assert await take(other, 1) == ["seen"]
            assert len(subscription._queue) <= 10
            before = subscription.cursor
            assert await take(subscription, 200) == list(range(200))
            assert before is not None

    run(test)


@transport
def test_what_the_server_refuses_is_raised(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        async with client_of(server, name) as client:
            first = await client.publish(channel, 1)
            await client.publish(channel, 2, expect=first.position)
            with pytest.raises(Conflict) as caught:
                await client.publish(channel, 3, expect=first.position)
            assert caught.value.head is not None
            again = await client.publish(channel, 3, expect=str(caught.value.head), id="once")
            assert (await client.publish(channel, 3, id="once")) == type(again)(again.position, duplicate=True)
            with pytest.raises(TooLarge):
                await client.publish(f"tight:{channel}", "x" * 100)
            with pytest.raises(NotFound):
                await client.call("nothing")
            for bad in (float("nan"), {1: 2}, object(), {"set": {1.5, float("inf")}}):
                with pytest.raises(InvalidData):
                    await client.publish(channel, bad)

    run(test)


@transport
def test_history_is_paged_backwards(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        positions = [server.publish(channel, number) for number in range(25)]
        async with client_of(server, name) as client:
            page = await client.history(channel, limit=10)
            assert [message.data for message in page.messages] == list(range(15, 25))
            page = await client.history(channel, before=page.messages[0].position, limit=100)
            assert [message.position for message in page.messages] == positions[:15]
            assert page.gap is None

    run(test)


@transport
def test_presence_and_signals(server: Server, channel: str, name: TransportName) -> None:
    async def test() -> None:
        async with (
            client_of(server, name, session="a-" + channel) as one,
            client_of(server, name, session="b-" + channel) as two,
        ):
            room = one.presence(channel)
            await room.enter({"at": b"\x01"})
            signals = one.signals()
            other = two.presence(channel)
            await other.enter()
            assert all(member.entered for member in other.members.values())
            there = {client: structs.replace(member, entered=0) for client, member in other.members.items()}
            assert there == {
                one.client_id: Member(str(one.client_id), state={"at": b"\x01"}),
                two.client_id: Member(str(two.client_id)),
            }
            while two.client_id not in room.members:
                await anext(room)
            assert (room.clients, room.users) == (2, 2)
            await other.enter("busy")
            while room.members[str(two.client_id)].state != "busy":
                await anext(room)
            sent = await two.send(channel, str(one.client_id), [1], event="hint", id="s-1")
            signal = await anext(signals)
            assert (signal.sender, signal.data, signal.event, signal.id) == (two.client_id, [1], "hint", "s-1")
            assert (await two.send(channel, str(one.client_id), [1], id="s-1")) == type(sent)(
                sent.position, duplicate=True
            )
            await other.leave()
            while two.client_id in room.members:
                await anext(room)

    run(test)


@transport
def test_wrong_credentials_are_the_end(start_server: Callable[..., Server], name: TransportName) -> None:
    server = start_server(auth={"token_key": "x" * 32}, server={"grpc_port": 0})

    async def test() -> None:
        for transports in ((name,), ORDER):
            grpc = f"grpc://127.0.0.1:{server.grpc_port}"
            async with connect(url(server), token="no.token.this", grpc=grpc, transports=transports) as client:
                subscription = client.subscribe("a")
                with pytest.raises(Unauthorized):
                    await client.publish("a", 1)
                with pytest.raises(Unauthorized):
                    await anext(subscription)
                with pytest.raises(Unauthorized):
                    await client.connected()
                assert client.state.name == "failed"

    run(test)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_blocking_client_does_the_same(server: Server, channel: str, scheme: str) -> None:
    port = server.grpc_port if scheme == "grpc" else server.port
    with connect_sync(f"{scheme}://127.0.0.1:{port}") as client, client.subscribe(channel) as subscription:
        subscription.ready()
        client.connected()
        for number in range(10):
            client.publish(channel, number)
        found: list[int] = []
        places: list[tuple[int, int]] = []
        for message in subscription:
            found.append(message.data)
            places.append((message.seq, int(str(subscription.cursor).partition(".")[2])))
            if message.data == 9:
                break
        # What is handed out is in the cursor, and what is still to come is not; the log may go on with other channels.
        for (seq, cursor), (following, _) in pairwise([*places, (2**63, 0)]):
            assert seq <= cursor < following
        assert found == list(range(10))
        with pytest.raises(TimeoutError):
            subscription.next(timeout_s=0.01)
        client.publish(channel, "after")
        after = subscription.next()
        assert after is not None
        assert after.data == "after"
        assert [message.data for message in client.history(channel, limit=2).messages] == [9, "after"]
        with client.presence(channel) as room, client.signals() as signals:
            room.enter("here")
            assert [member.state for member in room.members.values()] == ["here"]
            client.send(channel, str(client.client_id), "to myself")
            assert next(signals).data == "to myself"
        with pytest.raises(NotFound):
            client.call("nothing")
    client.close()


@transport
def test_tokens_that_last_a_second_are_renewed_and_nothing_is_missed(
    start_server: Callable[..., Server], name: TransportName
) -> None:
    key = "x" * 32
    server = start_server(auth={"token_key": key, "token_leeway_s": 0.0}, server={"grpc_port": 0})
    rights = {"subscribe": ["*"], "publish": ["*"]}
    made = 0

    async def token() -> str:
        nonlocal made
        made += 1
        return jwt.encode({"sub": "ada", "exp": time.time() + 1.5, "can": rights}, key, "HS256")

    async def test() -> None:
        async with client_of(server, name, token=token) as client, client.subscribe("a") as subscription:
            await subscription.ready()
            number = 0
            while made < 4:
                await client.publish("a", number)
                assert (await anext(subscription)).data == number
                number += 1
                await asyncio.sleep(0.02)

    run(test)


def test_token_that_may_not_is_told_so(start_server: Callable[..., Server]) -> None:
    key = "x" * 32
    server = start_server(auth={"token_key": key}, server={"grpc_port": 0})
    token = jwt.encode({"sub": "ada", "can": {"subscribe": ["a"]}}, key, "HS256")

    async def test() -> None:
        for name in ALL:
            async with client_of(server, name, token=token) as client:
                first, second = client.subscribe("a"), client.subscribe("b")
                await first.ready()
                with pytest.raises(Forbidden):
                    await second.ready()
                with pytest.raises(Forbidden):
                    await client.publish("a", 1)
                with pytest.raises(Forbidden):
                    await client.call("m")
                assert client.state.name == "connected"

    run(test)
