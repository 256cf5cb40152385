"""Applications with Tellwire inside, in processes of their own, and clients that know the prefix they are mounted at.

The clients are other people's: httpx and websockets.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

import httpx
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tellwire.protocol.sse import Event, EventParser
from tests.serving import ROOT, WATCHDOG_S, written


class Host:
    """A server process with an application: that of a file, as ``app``.

    Args:
        file: Where the application is.
        kind: What serves it: uvicorn or hypercorn.
        arguments: Further arguments of the process, for the application.
    """

    def __init__(self, file: Path, kind: str = "uvicorn", *arguments: str) -> None:
        self._log = TemporaryFile()  # noqa: SIM115  # lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.application.host", kind, str(file), *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(WATCHDOG_S)
            raise RuntimeError(f"the application did not start: {self.log}")
        self.port = int(line)
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has written to standard error."""
        return written(self._log)

    def read_line(self) -> str:
        """Return the next line that it writes to standard output; empty at its end."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().rstrip("\n")

    def kill(self) -> list[str]:
        """Stop it without a word (SIGKILL); return what else it wrote to standard output."""
        self._process.kill()
        return self._rest()

    def terminate(self) -> list[str]:
        """Ask it to stop (SIGTERM); return what else it wrote to standard output."""
        self._process.terminate()
        return self._rest()

    def _rest(self) -> list[str]:
        assert self._process.stdout is not None
        lines = self._process.stdout.read().decode().splitlines()
        self._process.wait(WATCHDOG_S)
        return lines

    def stop(self) -> int:
        """Ask it to stop (SIGTERM), if it still runs; return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(WATCHDOG_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait(WATCHDOG_S)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log.close()


class Client:
    """Somebody with cookies, or a token, at an application that has Tellwire under a prefix."""

    def __init__(self, url: str, prefix: str = "/realtime", token: str | None = None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=WATCHDOG_S)
        self.prefix = prefix

    def poll(self, *channels: str, **parameters: Any) -> list[Any]:
        """Return what the messages of a poll carry."""
        page = self.get("/v1/messages", channel=list(channels), **{"since": "earliest", **parameters})
        assert page.status_code == 200, page.text
        return [message["data"] for message in page.json()["messages"]]

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """Ask for a path under the prefix."""
        return self.http.get(self.prefix + path, params=parameters)

    def post(self, path: str, value: Any) -> httpx.Response:
        """Post JSON to a path under the prefix."""
        return self.http.post(self.prefix + path, json=value)

    @contextmanager
    def events(self, channel: str, **parameters: Any) -> Iterator[Iterator[Event]]:
        """Read a channel over SSE."""
        query = {"channel": channel, **parameters}
        with self.http.stream("GET", f"{self.prefix}/v1/events", params=query) as response:
            assert response.status_code == 200, response.read()
            parser = EventParser()
            yield (event for piece in response.iter_bytes() for event in parser.feed(piece))

    @contextmanager
    def socket(self, query: str = "") -> Iterator[Socket]:
        """Open a WebSocket."""
        headers = {name: self.http.headers[name] for name in ("authorization",) if name in self.http.headers}
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies.jar)
        if cookies:
            headers["cookie"] = cookies
        url = str(self.http.base_url).replace("http", "ws", 1).rstrip("/") + f"{self.prefix}/v1/ws?{query}"
        protocol = Subprotocol("tellwire.v1.json")
        with connect(url, subprotocols=[protocol], additional_headers=headers, proxy=None) as connection:
            yield Socket(connection)

    def close(self) -> None:
        """Go away; may be called twice."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Socket:
    """A WebSocket, in JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._asked = 0
        self._passed: list[dict[str, Any]] = []

    def ask(self, type: str, **fields: Any) -> dict[str, Any]:  # noqa: A002  # the command's own field
        """Send a command; return its answer."""
        self._asked += 1
        self.connection.send(json.dumps({"type": type, "ref": self._asked, **fields}))
        return self.answer(self._asked)

    def say(self, type: str, **fields: Any) -> None:  # noqa: A002  # as above
        """Send a command."""
        self.connection.send(json.dumps({"type": type, **fields}))

    def answer(self, ref: int | str) -> dict[str, Any]:
        """Return the answer to a command that was sent with a ref."""
        return self._until(lambda push: push.get("ref") == ref)

    def read(self, type: str = "message") -> dict[str, Any]:  # noqa: A002  # as above
        """Return the next message, or another push."""
        return self._until(lambda push: push["type"] == type)

    def _until(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for place, push in enumerate(self._passed):
            if fits(push):
                return self._passed.pop(place)
        while True:
            push = json.loads(self.connection.recv(timeout=WATCHDOG_S))
            if fits(push):
                return dict(push)
            self._passed.append(push)
