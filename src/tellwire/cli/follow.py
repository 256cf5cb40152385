"""Following channels over NDJSON, across drops: the cursor goes along, so nothing is missed and nothing repeated."""

from __future__ import annotations

import contextlib
import json
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from tellwire.errors import comes_back

BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 60.0
JITTER_S = 0.5
"""1, 2, 4, 8, 16 ... at most 60 s, plus up to 500 ms at random, so that a thousand clients do not return together."""

DEAD_AFTER = 2.5
"""Heartbeats that may be missed before a silent server is taken for dead."""

CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Notice:
    """Something that whoever reads should know; after a fatal one nothing more comes."""

    text: str
    fatal: bool = False


class _Dropped(Exception):
    """The stream ended; ``wait_s`` is when the server wants its client back, None where it did not say."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def backoff_s(attempt: int) -> float:
    """Return how long to wait before another attempt, the first being 0."""
    return float(min(BACKOFF_FIRST_S * 2 ** min(attempt, 10), BACKOFF_MAX_S) + random.uniform(0, JITTER_S))


def follow(
    make_client: Callable[..., httpx.Client],
    channels: tuple[str, ...],
    *,
    since: str | None = None,
    last: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Generator[dict[str, Any] | Notice, None, None]:
    """Yield the messages of channels for ever, and notices of drops and gaps between them.

    `make_client` makes the HTTP client of each connection, with the timeout that it is given. Wrong requests (4xx), and
    a stream that the server closed for good, end it with a fatal notice; what httpx and the system raise is tried
    again, and what else the client raises goes on to the caller.
    """
    attempt = 0
    epoch = ""
    cursor = since
    while True:
        query: dict[str, Any] = {"channel": channels}
        if cursor is not None:
            query["since"] = cursor
        elif last is not None:
            query["last"] = last
        try:
            with make_client(timeout=CONNECT_TIMEOUT_S) as client:
                for push in _stream(client, query):
                    kind = push["type"]
                    if kind == "connected":
                        if attempt:
                            yield Notice(f"connected again, going on from {cursor}")
                        attempt = 0
                        epoch, cursor = push["epoch"], push["cursor"]
                    elif kind == "message":
                        if "seq" in push:
                            cursor = f"{epoch}.{push['seq']}"
                        yield push
                    elif kind == "gap":
                        yield Notice(
                            f"gap ({push['reason']}): between {push['from']} and {push['to']} messages of "
                            f"{', '.join(push['channels'])} may be missing"
                        )
                        if push["reason"] == "epoch":
                            epoch, cursor = push["to"].partition(".")[0], push["to"]
                    elif kind == "unsubscribed":
                        channels = tuple(name for name in channels if name != push["channel"])
                        says = f"the server ended the reading of {push['channel']} ({push.get('code', 'forbidden')})"
                        yield Notice(says, fatal=not channels)
                        if not channels:
                            return
                    elif kind == "closing":
                        if not comes_back(push["code"]):
                            raise _Refused(push["reason"])
                        wait_ms = push.get("reconnect_in_ms")
                        raise _Dropped(push["reason"], None if wait_ms is None else wait_ms / 1000)
            raise _Dropped("the stream ended")
        except _Refused as exc:
            yield Notice(str(exc), fatal=True)
            return
        except (_Dropped, httpx.HTTPError, OSError) as exc:
            wait_s = exc.wait_s if isinstance(exc, _Dropped) else None
            if wait_s is None or attempt:
                # What the server asked for counts once: if it is not back by then, the backoff does.
                wait_s = backoff_s(attempt)
            attempt += 1
            yield Notice(f"{_why(exc)}; connecting again in {wait_s:.1f} s")
            sleep(wait_s)


class _Refused(Exception):
    """The server will not answer this request, however often it is asked."""


def _why(exc: Exception) -> str:
    if isinstance(exc, httpx.ReadTimeout):
        return "the server does not answer"
    return str(exc) or type(exc).__name__


def _lines(response: httpx.Response) -> Iterator[bytes]:
    """Yield the lines of a body: only LF ends one, while httpx's own would also end them at U+2028 within a string."""
    rest = b""
    for chunk in response.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


class _Watchdog:
    """Cuts a connection on which nothing was heard for `limit_s`.

    httpx takes a timeout for reading when a body begins; how often the server's heart beats is known only afterwards.
    """

    def __init__(self, response: httpx.Response, limit_s: float) -> None:
        self._socket: socket.socket = response.extensions["network_stream"].get_extra_info("socket")
        self._changed = threading.Condition()
        self._limit_s: float | None = limit_s
        self._heard = time.monotonic()
        self.has_cut = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def heard(self) -> None:
        """Something came; the time begins anew."""
        self._heard = time.monotonic()

    def pause(self) -> None:
        """Do not cut until something is heard again."""
        self._heard = math.inf

    def change(self, limit_s: float | None) -> None:
        """Wait for another time from now on; None ends the watch."""
        with self._changed:
            self._limit_s = limit_s
            self._changed.notify()
        if limit_s is None:
            self._thread.join()

    def _watch(self) -> None:
        with self._changed:
            while self._limit_s is not None:
                rest = self._heard + self._limit_s - time.monotonic()
                if rest <= 0:
                    self.has_cut = True
                    with contextlib.suppress(OSError):  # it is closed already
                        self._socket.shutdown(socket.SHUT_RDWR)
                    return
                self._changed.wait(min(rest, self._limit_s))


def _stream(client: httpx.Client, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the pushes of one connection; raises _Refused, _Dropped, httpx.HTTPError."""
    request = client.build_request("GET", "/v1/stream", params=query)
    request.extensions["timeout"] = timeouts = httpx.Timeout(CONNECT_TIMEOUT_S).as_dict()
    response = client.send(request, stream=True)
    # From here on the watchdog looks after silence.
    timeouts["read"] = None
    watchdog = _Watchdog(response, CONNECT_TIMEOUT_S)
    try:
        if not response.is_success:
            raise _refusal(response)
        for line in _lines(response):
            watchdog.heard()
            if line:
                push: dict[str, Any] = json.loads(line)
                if push["type"] == "connected":
                    watchdog.change(push["heartbeat_ms"] / 1000 * DEAD_AFTER)
                # Whoever reads our output may be slow: that is not the server's silence.
                watchdog.pause()
                yield push
                watchdog.heard()
    except httpx.HTTPError:
        if not watchdog.has_cut:
            raise
    finally:
        watchdog.change(None)
        response.close()
    if watchdog.has_cut:
        raise _Dropped("the server has fallen silent")


def _refusal(response: httpx.Response) -> _Refused | _Dropped:
    """Return what an answer that is no stream means: give up, or try again."""
    response.read()
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the server answered {response.status_code} {response.reason_phrase}"
    if response.status_code < 500 and response.status_code != 429:
        return _Refused(detail)
    return _Dropped(detail)
