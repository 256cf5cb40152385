"""Following goes on from its cursor, against a server whose connections break as a script says."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tellwire.cli import follow as following
from tellwire.cli.certificates import accepted
from tellwire.cli.client import Target
from tellwire.cli.follow import Notice, backoff_s, follow

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Script:
    """What a connection is sent, and how it ends: ``finished``, ``broken`` in the middle of a chunk, or ``silent``.

    ``on_asked`` is called once the request is there.
    """

    lines: tuple[dict[str, Any] | str, ...] = ()
    end: str = "broken"
    head: bytes = HEAD
    on_asked: Callable[[], object] = lambda: None


def connected(cursor: str, heartbeat_ms: int = 60_000) -> dict[str, Any]:
    epoch = cursor.partition(".")[0]
    return {"type": "connected", "epoch": epoch, "cursor": cursor, "heartbeat_ms": heartbeat_ms}


def message(seq: int, data: Any = None) -> dict[str, Any]:
    return {
        "type": "message",
        "channel": "news",
        "seq": seq,
        "id": str(seq),
        "time": 1,
        "event": "message",
        "data": data,
    }


class FaultyServer:
    """A server that plays one script per connection, and remembers what it was asked."""

    def __init__(self, scripts: list[Script]) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: queue.Queue[dict[str, list[str]]] = queue.Queue()
        self._silent: list[socket.socket] = []
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def _play(self) -> None:
        for script in self._scripts:
            peer, _ = self._listener.accept()
            request = b""
            while b"\r\n\r\n" not in request:
                request += peer.recv(65_536)
            script.on_asked()
            self.asked.put(parse_qs(urlsplit(request.split()[1].decode()).query))
            answer = script.head
            for line in script.lines:
                text = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)).encode() + b"\n"
                answer += b"%x\r\n%s\r\n" % (len(text), text)
            # All at once: between two of them there is no silence.
            peer.sendall(answer + {"broken": b"ff\r\n{", "finished": b"0\r\n\r\n"}.get(script.end, b""))
            if script.end == "silent":
                self._silent.append(peer)
            else:
                peer.close()

    def close(self) -> None:
        self._thread.join(30)
        for peer in (*self._silent, self._listener):
            peer.close()


@pytest.fixture
def play() -> Iterator[Callable[..., FaultyServer]]:
    servers: list[FaultyServer] = []

    def start(*scripts: Script) -> FaultyServer:
        servers.append(FaultyServer(list(scripts)))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Followed:
    """What following a server brings until its script is at an end, and how long it waited between connections."""

    def __init__(self, server: FaultyServer, count: int, **options: Any) -> None:
        self.waits: list[float] = []
        self.data: list[int] = []
        self.notices: list[str] = []
        self.fatal = False
        with closing(
            follow(Target(server.url, None, accepted(None)).client, ("news",), sleep=self.waits.append, **options)
        ) as items:
            for item in items:
                if isinstance(item, Notice):
                    self.notices.append(item.text)
                    self.fatal = item.fatal
                else:
                    self.data.append(item.get("seq", 0))
                if len(self.data) == count:
                    break
        self.since = [server.asked.get().get("since", ["?"])[0] for _ in range(server.asked.qsize())]


def test_broken_stream_goes_on_after_its_last_message(play: Callable[..., FaultyServer]) -> None:
    server = play(
        Script((connected("k.10"), message(11), "", message(14))),
        Script((connected("k.14"), message(15))),
        Script((connected("k.15"), message(16)), end="silent"),
    )
    seen = Followed(server, 4)
    assert seen.data == [11, 14, 15, 16]
    assert seen.since == ["?", "k.14", "k.15"]
    assert sum("connected again, going on from k." in notice for notice in seen.notices) == 2


def test_stream_without_messages_goes_on_where_it_was_placed(play: Callable[..., FaultyServer]) -> None:
    server = play(Script((connected("k.10"),)), Script((connected("k.10"), message(11)), end="silent"))
    assert Followed(server, 1).since == ["?", "k.10"]


def test_last_is_asked_only_until_there_is_a_cursor(play: Callable[..., FaultyServer]) -> None:
    server = play(Script((connected("k.7"), message(8))), Script((connected("k.8"), message(9)), end="silent"))
    seen = Followed(server, 2, last=3)
    assert (seen.data, seen.since) == ([8, 9], ["?", "k.8"])


def test_cursor_of_another_log_goes_on_in_the_new_one(play: Callable[..., FaultyServer]) -> None:
    gap = {"type": "gap", "from": "k.11", "to": "new.2", "reason": "epoch", "channels": ["news"]}
    server = play(
        Script((connected("k.10"), message(11), gap, message(3))),
        Script((connected("new.3"), message(4)), end="silent"),
    )
    seen = Followed(server, 3)
    assert seen.since == ["?", "new.3"]
    assert seen.notices[0] == "gap (epoch): between k.11 and new.2 messages of news may be missing"


def test_ephemeral_message_moves_no_cursor(play: Callable[..., FaultyServer]) -> None:
    fleeting = {"type": "message", "channel": "news", "data": 1, "ephemeral": True}
    server = play(Script((connected("k.10"), fleeting)), Script((connected("k.10"), message(11)), end="silent"))
    assert Followed(server, 2).since == ["?", "k.10"]


def test_server_that_says_when_is_obeyed(play: Callable[..., FaultyServer]) -> None:
    bye = {"type": "closing", "code": 1012, "reason": "draining", "reconnect_in_ms": 3210}
    server = play(
        Script((connected("k.10"), bye), end="finished"), Script((connected("k.10"), message(11)), end="silent")
    )
    seen = Followed(server, 1)
    assert seen.waits == [3.21]
    assert seen.notices[0].startswith("draining; connecting again in 3.2 s")


def test_server_that_ends_the_stream_is_asked_again(play: Callable[..., FaultyServer]) -> None:
    server = play(Script((connected("k.10"),), end="finished"), Script((connected("k.10"), message(11)), end="silent"))
    assert Followed(server, 1).data == [11]


def test_silent_server_is_given_up_after_missed_heartbeats(play: Callable[..., FaultyServer]) -> None:
    server = play(
        Script((connected("k.10", heartbeat_ms=20), message(11)), end="silent"),
        Script((connected("k.11"), message(12)), end="silent"),
    )
    seen = Followed(server, 2)
    assert seen.notices[0].startswith("the server has fallen silent")
    assert seen.since == ["?", "k.11"]


def test_silence_is_measured_by_the_server_s_heartbeats_alone(
    play: Callable[..., FaultyServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its first timeout, for the answer to come, must not go on to hold for the stream.
    monkeypatch.setattr(following, "CONNECT_TIMEOUT_S", 2.0)
    server = play(
        Script((connected("k.10", heartbeat_ms=1000),), end="silent"),
        Script((connected("k.10"), message(11)), end="silent"),
    )
    seen = Followed(server, 1)
    assert seen.notices[0].startswith("the server has fallen silent")


def test_server_that_never_answers_is_given_up(
    play: Callable[..., FaultyServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CONNECT_TIMEOUT_S", 0.2)
    # Who has asked knows how long it waits; the next one has the time it needs.
    silent = Script(head=b"", end="silent", on_asked=monkeypatch.undo)
    server = play(silent, Script((connected("k.10"), message(11)), end="silent"))
    assert Followed(server, 1).notices[0].startswith("the server does not answer")


@pytest.mark.parametrize("status", [b"400 Bad Request", b"403 Forbidden", b"404 Not Found"])
def test_request_that_is_refused_is_not_tried_again(play: Callable[..., FaultyServer], status: bytes) -> None:
    body = b'{"detail":"not for you."}'
    head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
    seen = Followed(play(Script(head=head, end="closed")), 1)
    assert (seen.fatal, seen.notices, seen.waits) == (True, ["not for you."], [])


def test_overloaded_server_is_tried_again(play: Callable[..., FaultyServer]) -> None:
    head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    server = play(
        Script(head=head, end="closed"),
        Script(head=head, end="closed"),
        Script((connected("k.10"), message(11)), end="silent"),
    )
    seen = Followed(server, 1)
    assert [int(wait) for wait in seen.waits] == [1, 2]


def test_only_a_line_feed_ends_a_line(play: Callable[..., FaultyServer]) -> None:
    server = play(Script((connected("k.10"), message(11, "a\u2028b\x85c\x1cd")), end="silent"))
    assert Followed(server, 1).data == [11]


def test_backoff_doubles_up_to_a_minute_with_jitter() -> None:
    for attempt, least in enumerate([1, 2, 4, 8, 16, 32, 60, 60, 60]):
        waits = [backoff_s(attempt) for _ in range(200)]
        assert all(least <= wait <= least + 0.5 for wait in waits)
        assert len(set(waits)) > 100
    assert backoff_s(10_000) <= 60.5
