"""The JavaScript client in a Node process of its own (driver.js), driven from a test."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("driver.js")

WATCHDOG_S = 60.0
"""Seconds after which something that should happen is taken to have failed; no test measures a time."""


class ClientError(Exception):
    """What was asked of the client failed, with the code in ``args[0]``."""


class Driver:
    """One client.

    Args:
        url: Of the server.
        options: Those of the client's constructor, as ``tokens`` a list that its token function gives out, the last
            of them again and again, and as ``isImpatient`` whether it comes back at once when it lost its connection.
    """

    def __init__(self, url: str, **options: Any) -> None:
        # Node 20 has a WebSocket behind this flag; newer ones have it anyway, and know the flag.
        self._process = subprocess.Popen(
            ["node", "--experimental-websocket", "--no-warnings", str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._next = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self.events: deque[dict[str, Any]] = deque()
        """What happened and was not waited for yet."""
        self.messages: dict[str, list[Any]] = {}
        """The data of the messages that came, by channel."""
        self.gaps: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.do("open", url=url, **options)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def _take(self) -> None:
        """Take one line of the client's."""
        line = self._lines.get(timeout=WATCHDOG_S)
        assert line is not None, "the client's process has ended"
        if "ask" in line:
            self._answers[line["ask"]] = line
            return
        assert line["on"] != "unhandled", line
        if line["on"] == "message":
            self.messages.setdefault(line["channel"], []).append(line["data"])
        elif line["on"] == "gap":
            self.gaps.append(line["gap"])
        else:
            self.events.append(line)

    def begin(self, what: str, **fields: Any) -> int:
        """Ask for something; return what `end` takes."""
        self._next += 1
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"ask": self._next, "do": what, **fields}) + "\n")
        self._process.stdin.flush()
        return self._next

    def end(self, number: int) -> Any:
        """Wait for the answer; raise ClientError where it failed."""
        while number not in self._answers:
            self._take()
        answer = self._answers.pop(number)
        if "error" in answer:
            raise ClientError(answer["error"], answer["message"])
        return answer["result"]

    def do(self, what: str, **fields: Any) -> Any:
        """Ask for something, and wait for the answer."""
        return self.end(self.begin(what, **fields))

    def wait_for(self, name: str, matches: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """Wait for an event, and forget those before it."""
        while True:
            while self.events:
                event = self.events.popleft()
                if event["on"] == name and matches(event):
                    return event
            self._take()

    def wait_connected(self, transport: str) -> None:
        """Wait until the client is connected by this transport."""
        self.wait_for("state", lambda event: event["state"] == "connected" and event["transport"] == transport)

    def wait_messages(self, channel: str, count: int) -> list[Any]:
        """Wait until as many messages have come; return their data."""
        while len(self.messages.get(channel, ())) < count:
            self._take()
        return self.messages[channel]

    def close(self) -> None:
        """End the process; the client's own close comes first, which has to leave nothing to be done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.poll() is None:
            self.do("close")
        self._process.stdin.close()
        self._process.wait(WATCHDOG_S)
        self._reader.join()
        self._process.stdout.close()
        while not self._lines.empty():
            line = self._lines.get()
            assert line is None or line.get("on") != "unhandled", line
