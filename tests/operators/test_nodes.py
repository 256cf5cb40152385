"""Operators and several nodes on one log: whichever of them is asked, it tells of all and does it on all."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psutil
import pytest

from tests.guarded import SECRET, bearer, token
from tests.readers import LineReader, LongPollReader, SocketReader
from tests.redis_servers import RedisServer, needs_redis, redis_server
from tests.serving import Server
from tests.wires import Http, Response, WebSocket

pytestmark = needs_redis

OPS = bearer(token("ops", can={"admin": ["*"]}))


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


_prefixes = itertools.count()


class Pair(NamedTuple):
    """Two nodes, and one more."""

    one: Server
    two: Server
    start: Callable[..., Server]


@pytest.fixture
def pair(redis: RedisServer, start_server: Callable[..., Server]) -> Pair:
    return make_pair(redis, start_server, node_lease_s=60.0)


def make_pair(redis: RedisServer, start_server: Callable[..., Server], *, node_lease_s: float) -> Pair:
    """Start two nodes; who stands still for that long is taken for dead, and one that is dead for that long is gone."""
    broker = f"{redis.url}?prefix=nodes-{next(_prefixes)}"

    def start(name: str) -> Server:
        return start_server(
            server={"broker": broker, "node_name": name},
            limits={"presence_grace_s": 0.2, "node_lease_s": node_lease_s},
            auth={"token_key": SECRET},
        )

    return Pair(start("one"), start("two"), start)


def get(server: Server, operation: str, **query: Any) -> dict[str, Any]:
    """Look at something, and wait for nodes that take their time."""
    answer = call(server, "GET", operation, {"timeout": 10, **query})
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json()
    return found


def call(server: Server, method: str, operation: str, query: dict[str, Any], body: Any = None) -> Response:
    text = "&".join(f"{name}={value}" for name, value in query.items())
    with Http(server) as http:
        if method == "POST":
            return http.post(f"/v1/admin/{operation}?{text}", body, headers=[OPS])
        return http.get(f"/v1/admin/{operation}?{text}", headers=[OPS])


def post(server: Server, operation: str, **body: Any) -> dict[str, Any]:
    answer = call(server, "POST", operation, {"timeout": 10}, body)
    assert answer.status == 200, answer
    done: dict[str, Any] = answer.json()
    return done


def names(server: Server, **query: Any) -> dict[str, bool]:
    return {node["name"]: node["answered"] for node in get(server, "nodes", **query)["nodes"]}


def test_nodes_know_of_each_other_from_their_start_to_their_end(pair: Pair) -> None:
    assert names(pair.one) == names(pair.two) == {"one": True, "two": True}
    third = pair.start("three")
    assert names(pair.one) == {"one": True, "two": True, "three": True}
    third.stop()
    assert names(pair.two) == {"one": True, "two": True}, "who ends by itself is gone at once"
    pair.two.kill()
    silent = get(pair.one, "nodes", timeout=0.3)
    assert [each["name"] for each in silent["unanswered"]] == ["two"]
    assert {node["name"]: node["answered"] for node in silent["nodes"]} == {"one": True, "two": False}
    assert next(node for node in silent["nodes"] if node["name"] == "two")["version"], "what it said of itself last"


def test_node_that_is_dead_is_gone_when_its_lease_is_over(
    redis: RedisServer, start_server: Callable[..., Server]
) -> None:
    pair = make_pair(redis, start_server, node_lease_s=3.0)
    pair.two.kill()
    while "two" in names(pair.one, timeout=0.3):
        pass
    assert get(pair.one, "nodes")["unanswered"] == []


def test_connections_and_channels_are_those_of_all_nodes(pair: Pair) -> None:
    ann, bob = token("ann"), token("bob")
    with (
        SocketReader(pair.one, "news", token=ann),
        SocketReader(pair.two, "news", token=ann),
        LineReader(pair.two, "news", "sport", token=bob),
    ):
        for server in pair[:2]:
            found = get(server, "connections")
            assert sorted(each["user"] for each in found["connections"]) == ["ann", "ann", "bob"]
            assert (found["total"], found["unanswered"]) == (3, [])
            assert get(server, "connections", user="ann")["total"] == 2
            assert get(server, "connections", channel="sport")["total"] == 1
            assert get(server, "connections", node="two")["total"] == 2
            assert get(server, "connections", limit=1)["total"] == 3
            channels = get(server, "channels")
            assert [(each["channel"], each["readers"], each["nodes"]) for each in channels["channels"]] == [
                ("news", 3, 2),
                ("sport", 1, 1),
            ]
            assert channels["total"] == 2
        node = get(pair.one, "nodes", node="two")["nodes"]
        assert [(each["name"], each["connections"]) for each in node] == [("two", {"websocket": 1, "stream": 1})]
        assert get(pair.one, "connections", node=node[0]["node"])["total"] == 2, "an id does as well as a name"
        assert get(pair.one, "stats")["name"] == "one"


def test_channels_are_sorted_by_what_is_asked_for(pair: Pair) -> None:
    text = token("ann")
    with (
        SocketReader(pair.one, "busy", token=text) as busy,
        SocketReader(pair.one, "read", token=text),
        SocketReader(pair.two, "read", token=text),
    ):
        for number in range(20):
            post(pair.two, "publish", channel="busy", data=number)
        busy.read_data(20)
        by_rate = get(pair.two, "channels", sort="rate")["channels"]
        assert [each["channel"] for each in by_rate] == ["busy", "read"]
        assert by_rate[0]["rate"] > by_rate[1]["rate"] == 0
        by_readers = get(pair.two, "channels", sort="readers", limit=1)
        assert ([each["channel"] for each in by_readers["channels"]], by_readers["total"]) == (["read"], 2)


def test_members_are_told_with_their_nodes(pair: Pair) -> None:
    with WebSocket(pair.one) as here, WebSocket(pair.two) as there:
        for wire, user in ((here, "ann"), (there, "bob")):
            wire.ask(type="connect", token=token(user, info={"from": user}), session=user)
            wire.ask(type="presence", channel="room", enter=True, state={"mood": user})
        found = get(pair.one, "presence", channel="room")
        ids = {node["node"]: node["name"] for node in get(pair.two, "nodes")["nodes"]}
        assert [(each["user"], ids[each["node"]], each["state"]) for each in found["members"]] == [
            ("ann", "one", {"mood": "ann"}),
            ("bob", "two", {"mood": "bob"}),
        ]
        assert (found["clients"], found["users"]) == (2, 2)


def test_presence_and_direct_messages_reach_across_nodes(pair: Pair) -> None:
    with WebSocket(pair.one) as here, WebSocket(pair.two) as there:
        clients = []
        for wire, user in ((here, "ann"), (there, "bob")):
            clients.append(wire.ask(type="connect", token=token(user), session=user)["client"])
            wire.ask(type="presence", channel="room", enter=True, watch=True)
        assert [here.read()["member"]["client"] for _ in clients] == clients
        assert there.read()["member"]["client"] == clients[1]
        for wire, to, other in ((here, clients[1], there), (there, clients[0], here)):
            assert wire.ask(type="send", channel="room", to=to, data="psst")["type"] == "sent"
            signal = other.read()
            assert (signal["type"], signal["data"]) == ("signal", "psst")


def test_disconnect_counts_on_all_nodes(pair: Pair) -> None:
    with (
        SocketReader(pair.one, "news", token=token("ann")) as first,
        SocketReader(pair.two, "news", token=token("ann")) as second,
        SocketReader(pair.two, "news", token=token("bob")) as other,
    ):
        assert post(pair.one, "disconnect", user="ann", reason="enough") == {"connections": 2, "unanswered": []}
        for reader in (first, second):
            closing = reader.read()
            assert (closing["type"], closing["code"], closing["reason"]) == ("closing", 1001, "enough")
        post(pair.one, "publish", channel="news", data=1)
        assert other.read_data(1) == [1]


def test_unsubscribe_takes_out_of_one_channel_on_all_nodes(pair: Pair) -> None:
    ann = token("ann")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(SocketReader(pair.one, "news", "sport", token=ann))
        second = stack.enter_context(SocketReader(pair.two, "news", token=ann, session="s"))
        assert second.wire.ask(type="presence", channel="news", enter=True)["clients"] == 1
        line = stack.enter_context(LineReader(pair.two, "news", token=ann))
        lines = stack.enter_context(LineReader(pair.two, "news", "sport", token=ann))
        other = stack.enter_context(SocketReader(pair.one, "news", token=token("bob"), presence="watch"))
        poll = stack.enter_context(Http(pair.one))
        poll.send_request("GET", "/v1/messages?channel=news&wait=30", headers=[bearer(ann)])
        while get(pair.one, "connections", user="ann")["total"] < 5:
            pass
        assert post(pair.one, "unsubscribe", user="ann", channel="news") == {"readings": 4, "unanswered": []}
        ended = {"type": "unsubscribed", "channel": "news", "code": "forbidden"}
        for reader in (first, second, line, lines):
            told = reader.read()
            assert {name: told[name] for name in ended} == ended
        while (push := other.read())["type"] == "join":
            pass  # it may have been told of that before it asked, or after
        assert push["type"] == "leave", "who is taken out is no member any more"
        post(pair.two, "publish", channel="news", data="news")
        post(pair.two, "publish", channel="sport", data="sport")
        for reader in (first, lines):
            assert reader.read_data(1) == ["sport"]
        assert other.read_data(1) == ["news"]
        assert poll.read_response().json()["messages"][0]["data"] == "news", "a poll asks anew each time"
        assert get(pair.one, "channels", prefix="news")["channels"][0]["readers"] == 1
        with SocketReader(pair.one, "news", token=ann) as again:  # it may still read, so it may come back
            post(pair.two, "publish", channel="news", data=2)
            assert again.read_data(1) == [2]


def test_drain_of_another_node_ends_just_that(pair: Pair) -> None:
    with SocketReader(pair.two, "news", token=token("ann")) as reader, Http(pair.two) as kept:
        kept.get("/readyz")
        answer = post(pair.one, "drain", node="two")
        assert [(each["name"], each["connections"]) for each in answer["draining"]] == [("two", 1)]
        closing = reader.read()
        assert (closing["code"], closing["reconnect_in_ms"]) == (1012, 0)
    assert pair.two.wait() == 0
    assert names(pair.one) == {"one": True}


def test_readyz_says_draining_from_then_on(redis: RedisServer, start_server: Callable[..., Server]) -> None:
    server = start_server(server={"broker": f"{redis.url}?prefix=ready"}, limits={"drain_delay_s": 600})
    with Http(server) as http:
        assert http.get("/readyz").json() == {"ready": True, "draining": False}
        assert http.post("/v1/admin/drain", {}).status == 200
        while (answer := http.get("/readyz")).status == 200:
            pass
        assert (answer.status, answer.json()) == (503, {"ready": False, "draining": True})
        (node,) = http.get("/v1/admin/nodes").json()["nodes"]
        assert (node["ready"], node["draining"]) == (False, True)
        server.interrupt()  # who has seen enough asks once more
    assert server.wait() == 0


def test_node_that_stands_still_is_named(pair: Pair) -> None:
    process = psutil.Process(pair.two.pid)
    process.suspend()
    try:
        found = get(pair.one, "connections", timeout=0.3)
        assert [each["name"] for each in found["unanswered"]] == ["two"]
        done = call(pair.one, "POST", "disconnect", {"timeout": 0.3}, {"user": "nobody"}).json()
        assert [each["name"] for each in done["unanswered"]] == ["two"]
    finally:
        process.resume()
    while not names(pair.one).get("two"):
        pass


def test_operators_see_something_while_redis_is_away(
    tmp_path_factory: pytest.TempPathFactory, start_server: Callable[..., Server]
) -> None:
    with redis_server(tmp_path_factory.mktemp("own"), "--appendonly", "yes") as redis:
        settings = {"broker": f"{redis.url}?timeout=3"}
        one, two = (start_server(server={**settings, "node_name": name}) for name in ("one", "two"))
        with Http(one) as http:
            assert len(http.get("/v1/admin/nodes?timeout=10").json()["nodes"]) == 2
            redis.kill()
            found = http.get("/v1/admin/nodes?timeout=0.5").json()
            assert {node["name"]: node["answered"] for node in found["nodes"]} == {"one": True, "two": False}
            redis.start()
            while http.get("/v1/admin/nodes").json()["unanswered"]:
                pass
        assert two.stop() == 0


@pytest.mark.parametrize(
    ("method", "operation", "query", "body", "status", "says"),
    [
        ("GET", "nodes", {"node": "nobody"}, None, 404, "no node is called 'nobody'; there are one, two"),
        ("GET", "nodes", {"timeout": "11"}, None, 400, "timeout is at most 10 seconds"),
        ("GET", "nodes", {"timeout": "soon"}, None, 400, "not a number of seconds"),
        ("GET", "connections", {"limit": "0"}, None, 400, "limit"),
        ("GET", "channels", {"sort": "name"}, None, 400, "none of readers, rate, lag"),
        ("GET", "presence", {}, None, 400, "give ?channel=NAME, once"),
        ("GET", "presence", {"channel": "$nodes"}, None, 400, "$nodes"),
        ("POST", "unsubscribe", {}, {"user": "ann"}, 400, "channel"),
        ("POST", "unsubscribe", {}, {"channel": "news"}, 400, "give one of user and client"),
        ("POST", "unsubscribe", {}, {"channel": "news", "user": "a", "client": "b"}, 400, "give one of"),
        ("POST", "unsubscribe", {}, {"channel": "$control:nodes", "user": "a"}, 400, "$control"),
        ("POST", "drain", {}, {"node": "nobody"}, 404, "no node is called 'nobody'"),
        ("POST", "drain", {}, {"node": 1}, 400, "drain"),
    ],
)
def test_what_makes_no_sense_is_refused(
    shared_pair: tuple[Server, Server], method: str, operation: str, query: Any, body: Any, status: int, says: str
) -> None:
    answer = call(shared_pair[0], method, operation, query, body)
    assert answer.status == status, answer
    assert says in answer.json()["detail"]


@pytest.fixture(scope="module")
def shared_pair(redis: RedisServer) -> Iterator[tuple[Server, Server]]:
    settings = {"broker": f"{redis.url}?prefix=shared"}
    with contextlib.ExitStack() as stack:
        servers = [
            Server(server={**settings, "node_name": name}, auth={"token_key": SECRET}, limits={"drain_s": 0.1})
            for name in ("one", "two")
        ]
        for server in servers:
            stack.callback(server.close)
        yield servers[0], servers[1]


def test_two_nodes_of_one_name_are_told_apart_by_id(redis: RedisServer, start_server: Callable[..., Server]) -> None:
    settings = {"broker": f"{redis.url}?prefix=twins", "node_name": "twin"}
    one, two = start_server(server=settings), start_server(server=settings)
    with Http(one) as http:
        ids = {node["node"] for node in http.get("/v1/admin/nodes?timeout=10").json()["nodes"]}
        assert len(ids) == 2
        answer = http.post("/v1/admin/drain", {"node": "twin"})
        assert (answer.status, answer.code) == (400, "bad_request")
        assert all(each in answer.json()["detail"] for each in ids)
        (mine,) = (each for each in ids if http.get("/v1/admin/stats").json()["node"] == each)
        (other,) = ids - {mine}
        answer = http.post("/v1/admin/drain?timeout=10", {"node": other})
        assert [each["node"] for each in answer.json()["draining"]] == [other]
    assert two.wait() == 0


@pytest.mark.parametrize("may", ["nodes", "unsubscribe", "presence", "drain"])
def test_each_operation_has_a_right_of_its_own(shared_pair: tuple[Server, Server], may: str) -> None:
    doors: dict[str, tuple[str, str, Any]] = {
        "nodes": ("GET", "/v1/admin/nodes", None),
        "presence": ("GET", "/v1/admin/presence?channel=room", None),
        "unsubscribe": ("POST", "/v1/admin/unsubscribe", {"channel": "room", "user": "nobody"}),
        "drain": ("POST", "/v1/admin/drain", {"node": "nobody"}),
    }
    with Http(shared_pair[0]) as http:
        for name, (method, path, body) in doors.items():
            for rights in ({"admin": [may]}, {"subscribe": ["*"]}, None):
                headers = [] if rights is None else [bearer(token(can=rights))]
                answer = http.get(path, headers=headers) if method == "GET" else http.post(path, body, headers=headers)
                if rights is None:
                    assert answer.code == "unauthorized"
                elif name != may or "admin" not in rights:
                    assert answer.code == "forbidden"
                else:
                    assert answer.status == (404 if name == "drain" else 200)


def test_poll_readers_of_each_node_go_on_after_an_unsubscribe(shared_pair: tuple[Server, Server]) -> None:
    with LongPollReader(shared_pair[0], "polled", token=token("ann")) as reader:
        post(shared_pair[1], "unsubscribe", user="ann", channel="polled")
        post(shared_pair[1], "publish", channel="polled", data=1)
        assert reader.read_data(1) == [1]
