"""Publishers who say one thing after the other, each under its id until it is acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

from tellwire.client import Client, connect
from tellwire.errors import TellwireError
from tests.chaos.nodes import BREATH_S, PACE_S, TRANSIENT
from tests.client.test_network import QUICK
from tests.wires import WATCHDOG_S, At, Closed, Http, Refused, Response, WebSocket


class Failed(Exception):
    """A publish that was answered with an error; which may be tried again, says the check."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        assert code in TRANSIENT, (code, detail)
        if code == "unavailable":
            assert "again" in detail, detail


class Said(NamedTuple):
    """What became of a message that was published: the errors until it was acknowledged, and its place."""

    id: str
    channel: str
    errors: list[str]
    position: str


def failed(answer: Response) -> Failed:
    """Say what an answer says, which may be a proxy's own, where its server ended at that very moment."""
    if answer.headers["content-type"] != "application/problem+json":
        assert answer.status in (502, 504), answer
        return Failed("connection_lost", f"the proxy answered {answer.status}")
    return Failed(answer.code, answer.json()["detail"])


class Mouth:
    """A publisher in a thread; `say` publishes once, and returns the position or raises Failed."""

    def __init__(self, name: str, nodes: Sequence[At], channels: Sequence[str]) -> None:
        self.name = name
        self.said: list[Said] = []
        self.errors = 0
        self.failure: str | None = None
        self._channels = channels
        self._nodes = itertools.cycle(nodes)
        self._wire: Http | None = None
        self._stopped = threading.Event()
        self.turn = threading.Lock()
        """Who has it, has nothing of this publisher under way."""
        self.thread = threading.Thread(target=self._run, daemon=True)

    def stop(self) -> None:
        """Let it say no more than it has begun."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            for number in itertools.count():
                if self._stopped.wait(PACE_S):
                    return
                with self.turn:
                    self.say(f"{self.name}-{number}", self._channels[number % len(self._channels)], number)
        except Exception:
            self.failure = traceback.format_exc()
        finally:
            self.close()

    def say(self, id_: str, channel: str, data: Any) -> None:
        """Publish something until it is acknowledged."""
        errors: list[str] = []
        deadline = time.monotonic() + WATCHDOG_S
        while True:
            assert time.monotonic() < deadline, f"{id_} was not taken: {errors[-3:]}"
            try:
                position = self.publish(next(self._nodes) if self._wire is None else None, channel, id_, data)
            except Failed as exc:
                errors.append(str(exc))
                self.errors += 1
                time.sleep(BREATH_S)
            except (Closed, OSError) as exc:
                self.close()
                errors.append(f"connection_lost: {exc!r}")
                self.errors += 1
                time.sleep(BREATH_S)
            else:
                self.said.append(Said(id_, channel, errors, position))
                return

    def close(self) -> None:
        """Close the connection that there is."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def publish(self, node: At | None, channel: str, id_: str, data: Any) -> str:
        """Publish over HTTP; `node` is where to connect to, None to use the connection there is."""
        if node is not None:
            self._wire = Http(node)
        assert self._wire is not None
        answer = self._wire.post("/v1/messages", {"channel": channel, "data": data, "id": id_})
        if answer.status != 200:
            self.close()  # the next node may do better
            raise failed(answer)
        return str(answer.json()["position"])


class SocketMouth(Mouth):
    """A publisher over WebSocket."""

    def publish(self, node: At | None, channel: str, id_: str, data: Any) -> str:
        if node is not None:
            try:
                self._wire = WebSocket(node)
            except Refused as exc:
                raise failed(exc.response) from None
        assert isinstance(self._wire, WebSocket)
        answer = self._wire.ask(type="publish", channel=channel, data=data, id=id_)
        if answer["type"] == "error":
            self.close()
            raise Failed(answer["code"], answer["message"])
        assert answer["type"] == "published", answer
        return str(answer["position"])


class ClientMouth(Mouth):
    """A publisher with the Python client, which tries again by itself."""

    def _run(self) -> None:
        asyncio.run(self._talk(next(self._nodes)))

    async def _talk(self, node: At) -> None:
        try:
            async with connect(f"http://127.0.0.1:{node.port}", settings=QUICK) as client:
                for number in itertools.count():
                    if self._stopped.is_set():
                        return
                    await asyncio.sleep(PACE_S)
                    id_, channel = f"{self.name}-{number}", self._channels[number % len(self._channels)]
                    with self.turn:
                        await self._insist(client, channel, id_, number)
        except Exception:
            self.failure = traceback.format_exc()

    async def _insist(self, client: Client, channel: str, id_: str, data: Any) -> None:
        errors: list[str] = []
        while True:
            try:
                published = await client.publish(channel, data, id=id_)
            except TellwireError as exc:
                if exc.code not in TRANSIENT:
                    raise
                errors.append(f"{exc.code}: {exc}")
                self.errors += 1
                await asyncio.sleep(BREATH_S)
            else:
                self.said.append(Said(id_, channel, errors, published.position or ""))
                return
