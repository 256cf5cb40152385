"""The session over data channels: commands and pushes as on WebSocket, and what may be lost (spec, section 17)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.guarded import bearer, endings, token
from tests.rtc.conftest import RTC
from tests.rtc.peers import Peer, run
from tests.serving import Server
from tests.wires import Http, WebSocket


@pytest.mark.parametrize("packed", [False, True])
def test_session_is_as_on_websocket(rtc_server: Server, channel: str, packed: bool) -> None:
    async def test() -> None:
        async with Peer(rtc_server, packed=packed) as peer:
            connected = await peer.ask(type="connect", ref=1, session="s3cret")
            assert (connected["type"], connected["ref"]) == ("connected", 1)
            assert connected["heartbeat_ms"] == 1000 * RTC["rtc_ping_s"]
            await peer.subscribe(channel, ref=2)
            peer.say(type="publish", channel=channel, data={"n": 1}, ref=3)
            pushes = {(push := await peer.read())["type"]: push for _ in range(2)}
            assert pushes["published"]["ref"] == 3
            assert pushes["message"]["data"] == {"n": 1}
            assert pushes["published"]["position"].endswith(f".{pushes['message']['seq']}")
            present = await peer.ask(type="presence", channel=channel, enter=True, watch=True, ref=4)
            assert [member["client"] for member in present["members"]] == [connected["client"]]
            assert (await peer.read())["type"] == "join"
            assert (await peer.ask(type="ping", ref=5)) == {"type": "pong", "ref": 5}
            assert (await peer.ask(type="nonsense", ref=6))["code"] == "unknown_command"

    run(test())


def test_reader_goes_on_from_its_cursor_after_a_websocket(rtc_server: Server, channel: str) -> None:
    with WebSocket(rtc_server) as wire:
        wire.say(type="subscribe", channel=channel)
        cursor = wire.read()["cursor"]
    for number in range(500):
        rtc_server.publish(channel, number)

    async def test() -> None:
        async with Peer(rtc_server) as peer:
            await peer.subscribe(channel, since=cursor)
            assert await peer.read_data(500) == list(range(500))

    run(test())


def test_token_of_the_offer_says_who_it_is(guarded_rtc_server: Server, channel: str) -> None:
    async def test() -> None:
        own = token("ann", channels=[channel], can={"subscribe": [channel]})
        async with Peer(guarded_rtc_server, token=own, query={"session": "abc"}) as peer:
            assert (await peer.read())["channel"] == channel  # the token's own
            connected = await peer.ask(type="connect")
            assert (connected["user"], connected["session"]) == ("ann", "abc")
            refused = await peer.ask(type="subscribe", channel="other", ref=1)
            assert refused["code"] == "forbidden"

    run(test())


def test_token_that_expires_ends_it(guarded_rtc_server: Server) -> None:
    async def test() -> None:
        for ending in endings("ann"):
            async with contextlib.AsyncExitStack() as entering:
                with ending as text:
                    peer = await entering.enter_async_context(Peer(guarded_rtc_server, token=text))
                    stack = entering.pop_all()
                    break
        async with stack:
            assert (await peer.read_closing())["code"] == 4002

    run(test())


def test_user_who_is_revoked_is_cut(guarded_rtc_server: Server) -> None:
    async def test() -> None:
        async with Peer(guarded_rtc_server, token=token("mallory")) as peer:
            await peer.ask(type="connect")
            with Http(guarded_rtc_server) as http:
                done = http.post("/v1/admin/revoke", {"user": "mallory"}, headers=[bearer(token("root"))])
                assert done.status == 200
            assert (await peer.read_closing())["code"] == 4502

    run(test())


def test_delete_ends_it_for_its_user_only(guarded_rtc_server: Server) -> None:
    async def test() -> None:
        async with Peer(guarded_rtc_server, token=token("ann")) as peer:
            await peer.ask(type="connect")
            with Http(guarded_rtc_server) as http:
                other = http.request("DELETE", peer.location, headers=[bearer(token("bob"))])
                assert other.status == 404
                assert (await peer.ask(type="ping"))["type"] == "pong"
                own = [bearer(token("ann"))]
                assert http.request("DELETE", peer.location, headers=own).status == 200
                assert http.request("DELETE", peer.location, headers=own).status == 404
            closing = await peer.read_closing()
            assert (closing["type"], closing["code"]) == ("closing", 1000)

    run(test())


def test_ephemeral_messages_go_over_the_unreliable_channel(rtc_server: Server, channel: str) -> None:
    async def test() -> None:
        async with Peer(rtc_server) as peer:
            await peer.subscribe(channel)
            rtc_server.publish(channel, "here and gone", ephemeral=True)
            assert await peer.read_data(1) == ["here and gone"]
            rtc_server.publish(channel, "kept")
            assert await peer.read_data(1) == ["kept"]
            assert [push["data"] for push in peer.lost] == ["here and gone"]

    run(test())


def test_ephemeral_message_too_long_for_one_datagram_channel_message_comes_reliably(
    rtc_server: Server, channel: str
) -> None:
    long = "x" * 80_000

    async def test() -> None:
        async with Peer(rtc_server) as peer:
            await peer.subscribe(f"large:{channel}")
            rtc_server.publish(f"large:{channel}", long, ephemeral=True)
            assert await peer.read_data(1) == [long]
            assert peer.lost == []

    run(test())


def test_subscription_that_asks_for_it_is_read_unreliably(rtc_server: Server, channel: str) -> None:
    async def test() -> None:
        async with Peer(rtc_server) as peer:
            await peer.subscribe(channel, unreliable=True)
            await peer.subscribe(f"{channel}.sure")
            rtc_server.publish(channel, "position")
            rtc_server.publish(f"{channel}.sure", "score")
            assert sorted(await peer.read_data(2)) == ["position", "score"]
            assert [push["data"] for push in peer.lost] == ["position"]
            # Read again without it, nothing may be lost.
            await peer.ask(type="unsubscribe", channel=channel)
            await peer.subscribe(channel)
            rtc_server.publish(channel, "sure")
            assert await peer.read_data(1) == ["sure"]
            assert len(peer.lost) == 1

    run(test())


def test_without_the_unreliable_channel_everything_is_reliable(rtc_server: Server, channel: str) -> None:
    async def test() -> None:
        async with Peer(rtc_server, unreliable=False) as peer:
            await peer.subscribe(channel, unreliable=True)
            rtc_server.publish(channel, "ephemeral", ephemeral=True)
            rtc_server.publish(channel, "kept")
            assert await peer.read_data(2) == ["ephemeral", "kept"]

    run(test())


def test_unreliable_subscription_on_a_websocket_is_read_too(rtc_server: Server, channel: str) -> None:
    with WebSocket(rtc_server) as wire:
        wire.say(type="subscribe", channel=channel, unreliable=True)
        assert wire.read()["type"] == "subscribed"
        rtc_server.publish(channel, "sure")
        assert wire.read()["data"] == "sure"


def test_ephemeral_publish_over_the_unreliable_channel_is_not_answered(rtc_server: Server, channel: str) -> None:
    async def test() -> None:
        async with Peer(rtc_server) as peer, Peer(rtc_server) as other:
            await other.subscribe(channel)
            await peer.ask(type="connect")
            assert peer.unreliable is not None
            peer.unreliable.send(peer.encode(type="publish", channel=channel, data=1, ephemeral=True, ref=7))
            assert await other.read_data(1) == [1]
            assert (await peer.ask(type="ping", ref=8))["ref"] == 8, "nothing came before"

    run(test())


@pytest.mark.parametrize(
    "command",
    [{"type": "publish", "data": 1}, {"type": "subscribe"}, {"type": "ping"}],
    ids=["not ephemeral", "subscribe", "ping"],
)
def test_nothing_else_goes_over_the_unreliable_channel(
    rtc_server: Server, channel: str, command: dict[str, object]
) -> None:
    async def test() -> None:
        async with Peer(rtc_server) as peer:
            await peer.ask(type="connect")
            assert peer.unreliable is not None
            fields = {} if command["type"] == "ping" else {"channel": channel}
            peer.unreliable.send(peer.encode(**command, **fields, ref=9))
            error = await peer.read()
            assert (error["type"], error["code"], error["ref"]) == ("error", "bad_request", 9)

    run(test())


@pytest.mark.parametrize("packed", [False, True])
def test_long_payloads_go_in_parts_both_ways(rtc_server: Server, channel: str, packed: bool) -> None:
    name, long = f"large:{channel}", "€" * 100_000

    async def test() -> None:
        async with Peer(rtc_server, packed=packed) as peer:
            await peer.subscribe(name)
            command = peer.encode(type="publish", channel=name, data=long, ref=1)
            payload = command.encode() if isinstance(command, str) else command
            pieces = [payload[at : at + 60_000] for at in range(0, len(payload), 60_000)]
            for piece in pieces[:-1]:
                peer.channel.send(b"\1" + piece)
            peer.channel.send(b"\0" + pieces[-1])
            pushes = {(push := await peer.read())["type"]: push for _ in range(2)}
            assert pushes["message"]["data"] == long
            assert peer.messages > 5

    run(test())


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"{}", 1003),
        ("{", 1007),
        (b"\1" + b"x" * 65_536, 1009),
    ],
    ids=["binary on JSON", "not JSON", "too long"],
)
def test_what_is_no_message_of_the_session_ends_it(rtc_server: Server, message: bytes | str, code: int) -> None:
    async def test() -> None:
        async with Peer(rtc_server) as peer:
            await peer.ask(type="connect")
            peer.channel.transport._remote_max_message_size = 0  # this peer sends what it may not
            peer.channel.send(message)
            assert (await peer.read_closing())["code"] == code

    run(test())


def test_message_between_the_parts_of_another_ends_it(rtc_server: Server) -> None:
    async def test() -> None:
        async with Peer(rtc_server) as peer:
            peer.channel.send(b"\1{")
            peer.say(type="ping")
            assert (await peer.read_closing())["code"] == 1002

    run(test())


def test_drain_tells_when_to_come_back(start_server: Callable[..., Server]) -> None:
    server = start_server(rtc=RTC)

    async def test() -> None:
        async with Peer(server) as peer:
            await peer.ask(type="connect")
            server.terminate()
            closing = await peer.read_closing()
            assert (closing["code"], closing["reconnect_in_ms"]) == (1012, 0)
            await peer.ended.wait()

    run(test())
    assert server.wait() == 0


def test_peer_that_dies_is_noticed_by_its_silence(start_server: Callable[..., Server], channel: str) -> None:
    """Long before its ICE would: others see the member leave."""
    server = start_server(rtc={**RTC, "rtc_ping_s": 1.5}, limits={"presence_grace_s": 0.1})

    async def test() -> None:
        async with Peer(server) as peer:
            assert (await peer.ask(type="connect"))["heartbeat_ms"] == 1500
            await peer.ask(type="presence", channel=channel, enter=True)
            with WebSocket(server) as watcher:
                watcher.say(type="presence", channel=channel, watch=True)
                while (push := watcher.read())["type"] != "presence":
                    pass
                assert len(push["members"]) == 1
                peer.fall_silent()
                while (push := watcher.read())["type"] != "leave":
                    pass
        with Http(server) as http:
            metrics = http.get("/metrics").body.decode()
        assert 'code="4000"' in metrics

    run(test())


def test_reader_that_takes_nothing_is_a_cursor_that_lags(rtc_server: Server, channel: str) -> None:
    """Its messages stay in the log, not in the server's memory; then it gets them all."""
    name, data = f"large:{channel}", "x" * 50_000

    async def test() -> None:
        async with Peer(rtc_server) as peer:
            await peer.subscribe(name)
            sctp: Any = peer.channel.transport
            receive, sctp._handle_data = sctp._handle_data, _ignore
            before = rtc_server.rss
            for number in range(400):
                rtc_server.publish(name, [number, data])
            grown = rtc_server.rss - before
            sctp._handle_data = receive
            got = [(await peer.read())["data"][0] for _ in range(400)]
            assert got == list(range(400))
            # 20 MB are in the log, and in the tail that all readers share; a queue of the connection's own would be
            # as much again.
            assert grown < 60_000_000

    async def _ignore(data: bytes) -> None:
        """Nothing is acknowledged."""

    run(test())


def test_connections_are_counted_by_their_transport(rtc_server: Server) -> None:
    async def test() -> None:
        async with Peer(rtc_server) as peer:
            await peer.ask(type="connect")
            with Http(rtc_server) as http:
                lines = http.get("/metrics").body.decode().splitlines()
        (line,) = [line for line in lines if line.startswith("tellwire_connections{") and "webrtc" in line]
        assert float(line.rpartition(" ")[2]) >= 1

    run(test())
