# mypy: ignore-errors
"""What a type checker says of an application: nothing, but where a comment says so (see test_typing)."""

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, assert_type

from tellwire import (
    Appended,
    Client,
    ConnectRequest,
    Disconnected,
    Gap,
    Grants,
    Identity,
    Occupancy,
    Publishing,
    Received,
    Subscription,
    Tellwire,
)
from tellwire import nothing as nothing  # error: attr-defined

tellwire = Tellwire(broker="memory://", token_key="k" * 32, origins=["https://example.org"])
Tellwire(brokr="memory://")  # error: call-arg
Tellwire(token_key=b"bytes")  # error: arg-type


@tellwire.on_connect
async def on_connect(request: ConnectRequest) -> Identity | None:
    user = request.cookies.get("user")
    return Identity(user=user, grants=Grants.of({"subscribe": ["news"]})) if user else None


@tellwire.on_connect  # error: type-var
def says_a_text(request: ConnectRequest) -> str:
    return "ann"


@tellwire.on_connect  # error: type-var
async def takes_nothing() -> None: ...


@tellwire.authorize
def authorize(client: Client, operation: str, name: str) -> bool | None:
    return name.endswith(client.user or "") or None


@tellwire.authorize  # error: type-var
async def says_a_number(client: Client, operation: str, name: str) -> int:
    return 1


@tellwire.on_subscribe
async def on_subscribe(client: Client, channel: str) -> None: ...


@tellwire.on_subscribe  # error: type-var
def says_yes(client: Client, channel: str) -> bool:
    return True


@tellwire.on_publish
def on_publish(client: Client, message: Publishing) -> Publishing:
    return replace(message, data={"by": client.user, "was": message.data})


@tellwire.on_publish
def for_all_of_them(client: Client | None, message: Publishing) -> Awaitable[None]:
    return on_subscribe(Client("", Identity(), ""), message.channel)


@tellwire.on_publish  # error: type-var
def says_other_data(client: Client, message: Publishing) -> dict[str, Any]:
    return {}


@tellwire.on_disconnect
def on_disconnect(gone: Disconnected) -> None:
    print(gone.user, gone.reason)


@tellwire.on_disconnect  # error: type-var
def takes_a_client(client: Client) -> None: ...


@tellwire.rpc
def add(client: Client, data: list[int]) -> int:
    return sum(data)


@tellwire.rpc("subtract")
async def subtract(client: Client, data: Any) -> float:
    return float(data[0] - data[1])


@tellwire.rpc  # error: type-var
def takes_only_data(data: Any) -> int:
    return 1


@tellwire.rpc("divide")  # error: type-var
def takes_too_much(client: Client, data: Any, more: Any) -> int:
    return 1


async def main() -> None:
    assert_type(add(Client("", Identity(), ""), [1]), int)
    assert_type(await tellwire.publish("news", {"any": [b"thing"]}, id="1"), Appended)
    assert_type(tellwire.publish_sync("news", 1, timeout_s=1), Appended)
    await tellwire.publish("news")  # error: call-arg
    await tellwire.publish("news", 1, evnt="x")  # error: call-arg
    history = await tellwire.read("news", "weather", last=10)
    assert_type(history.gap, Gap | None)
    assert_type(await tellwire.presence("news"), Occupancy)
    assert_type(tellwire.token("ann", subscribe=["news"]), str)
    messages = tellwire.subscribe("news", since=history.cursor)
    assert_type(messages, Subscription)
    async with tellwire.lifespan(), messages:
        async for item in messages:
            assert_type(item, Received | Gap)
            print(item.data)  # error: union-attr
            if isinstance(item, Gap):
                print(item.reason, item.channels)
            else:
                print(item.position, item.data)
