"""Data between two pages: over every transport and across nodes, with reloads, glare, and no way but the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.clients.room.conftest import Person
from tests.redis_servers import RedisServer, needs_redis, redis_server
from tests.serving import Server

Pair = Callable[..., tuple[Person, Person]]

TALK = """(count) => {
    const data = room.dataChannel(peer());
    for (let number = 0; number < count; number += 1) data.send(String(number));
    data.send(new Uint8Array([1, 2, 255]));
}"""


# What may be dropped, until the page is closed.
QUICKEN = "() => setInterval(() => peer() && room.dataChannel(peer(), { unreliable: true }).send('quick'), 50)"

# Each of them takes the other for the one that was there before.
BOTH_CALL = """{
    const { parse } = JSON;
    let own;
    JSON.parse = (text, ...more) => {
        const value = parse(text, ...more);
        if (value?.type === "presence") own = value.client;
        for (const member of [value?.member, ...(value?.members ?? [])]) {
            if (member?.entered) member.entered = member.client === own ? 2 : 1;
        }
        return value;
    };
}"""


def talk(first: Person, second: Person, count: int = 500) -> None:
    """Send both ways at once; all of it has to come, in order."""
    for each in (first, second):
        each.run("() => { heard.length = 0; }")
    for each in (first, second):
        each.run(TALK, count)
    for each in (first, second):
        each.wait("heard.filter((text) => !String(text).startsWith('unreliable')).length === x", count + 1)
        heard = each.run("() => heard.map((data) => typeof data === 'string' ? data : Array.from(data).join())")
        assert [text for text in heard if not text.startswith("unreliable")] == [*map(str, range(count)), "1,2,255"]


@pytest.mark.parametrize("transport", ["websocket", "sse", "longpoll", "poll"])
def test_two_pages_find_each_other_over_any_transport(pair: Pair, transport: str) -> None:
    first, second = pair(transports=[transport])
    for each in (first, second):
        each.wait_path("direct")
    talk(first, second)
    for each in (first, second):
        each.run(QUICKEN)
    for each in (first, second):
        each.wait("heard.includes('unreliable quick')")
    # The later one calls.
    assert [each.run("() => peer().isCaller") for each in (first, second)] == [False, True]
    assert first.errors == second.errors == []
    second.run("() => room.leave()")
    first.wait("room.peers.size === 0 && left.length === 1")


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@needs_redis
def test_two_pages_find_each_other_across_nodes(
    redis: RedisServer, start_server: Callable[..., Server], someone: Callable[..., Person]
) -> None:
    first, second = (someone(start_server(server={"broker": redis.url})) for _ in range(2))
    for each in (first, second):
        each.join()
    for each in (first, second):
        each.wait_path("direct")
    talk(first, second)


def test_a_page_that_reloads_finds_its_room_again(pair: Pair) -> None:
    first, second = pair()
    for each in (first, second, first):
        first.wait_path("direct")
        second.wait_path("direct")
        names = [page.run("() => client.client") for page in (first, second)]
        each.reload()
        for page in (first, second):
            page.wait_path("direct")
        assert [page.run("() => client.client") for page in (first, second)] == names
        talk(first, second, 20)


def test_a_page_that_was_put_away_comes_in_again(pair: Pair) -> None:
    first, second = pair()
    first.wait_path("direct")
    second.wait_path("direct")
    # As for the way back, where the browser keeps the page.
    second.run("() => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert second.run("() => room.peers.size") == 0
    first.wait("peer()?.path !== 'direct'")
    second.run("() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    for each in (first, second):
        each.wait_path("direct")
    talk(first, second, 20)
    assert first.errors == second.errors == []


def test_both_call_at_once(pair: Pair) -> None:
    first, second = pair({"state": {"name": "ann"}}, {"state": {"name": "bob"}})
    for each in (first, second):
        each.wait_path("direct")
    assert first.run("() => peer().state") == {"name": "bob"}
    # New tracks on both sides in the same moment, and away again, many times over.
    flip = """async (at) => {
        await new Promise((resolve) => setTimeout(resolve, at - Date.now()));
        for (let round = 0; round < 10; round += 1) {
            const stream = document.createElement("canvas").captureStream(5);
            room.share(`round ${round % 3}`, stream);
            await new Promise((resolve) => setTimeout(resolve, 40));
            if (round % 2) room.unshare(`round ${round % 3}`);
        }
    }"""
    at = first.run("() => Date.now()") + 300
    for each in (first, second):
        each.run(f"(at) => void (window.flipped = ({flip})(at))", at)
    for each in (first, second):
        each.run("() => flipped")
    kept = first.run("() => [...room.local.keys()].sort()")
    for each in (first, second):
        each.wait(
            "peer().tracks.size === x.length && peer().pc.signalingState === 'stable'"
            " && [...peer().tracks.values()].map(({ kind }) => kind).sort().join() === x.join()",
            kept,
        )
    talk(first, second, 50)
    # The places of what is over are used again.
    assert first.run("() => peer().pc.getTransceivers().length") <= 12
    assert first.errors == second.errors == []


def test_both_begin_although_one_was_named(someone: Callable[..., Person], room: str) -> None:
    """First calls in which both offer at once, as with two nodes whose clocks differ: each has to come up."""
    for number in range(3):
        people = [someone(channel=f"{room}-{number}") for _ in range(2)]
        for person in people:
            person.page.add_init_script(BOTH_CALL)
        for person in people:
            person.join()
        for person in people:
            person.wait_path("direct")
        talk(people[0], people[1], 5)
        for person in people:
            person.page.close()


def test_without_any_way_the_server_carries_data_and_files(pair: Pair) -> None:
    first, second = pair(iceTransportPolicy="relay", connectMs=1000)
    for each in (first, second):
        each.wait_path("channel")
        assert each.run("() => paths") == ["channel"]
    talk(first, second)
    for each in (first, second):
        each.run(QUICKEN)
    for each in (first, second):
        each.wait("heard.includes('unreliable quick')")
    assert first.errors == second.errors == []


def test_without_webrtc_the_server_carries_data(pair: Pair) -> None:
    first, second = pair(direct=False, transports=["poll"])
    for each in (first, second):
        each.wait_path("channel")
    talk(first, second, 50)
    assert first.run("() => peer().path") == "channel"


def test_three_pages_are_all_connected_and_a_fourth_is_too_many(someone: Callable[..., Person]) -> None:
    people = [someone() for _ in range(4)]
    for person in people[:3]:
        person.join(maxPeers=2)
    for person in people[:3]:
        person.wait("[...room.peers.values()].filter(({ path }) => path === 'direct').length === 2")
    people[3].join(maxPeers=2)
    people[0].wait("errors.some((text) => text.startsWith('too_many_peers'))")
    assert people[0].run("() => room.peers.size") == 2
