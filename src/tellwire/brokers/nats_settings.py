"""What a stream of JetStream is to be like, and how several nodes agree on whose it is.

Its description ends in the epoch of what lies in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from typing import Any

import msgspec
from nats.aio.client import Client

from tellwire.brokers.base import new_epoch
from tellwire.brokers.nats_link import Refused, ask
from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import Unavailable
from tellwire.message import SEQ_MAX
from tellwire.names import Namespaces

_log = logging.getLogger("tellwire")

_DESCRIBED = re.compile(r".*, namespaces ([0-9a-f]+), floor (\d+), ")
_NS = 1_000_000_000

_STREAM_NOT_FOUND = 10059
_STREAM_NAME_IN_USE = 10058
_EPOCH = re.compile(r"^Tellwire's, .*epoch ([a-z0-9]{1,32})$")

_INFO_S = 1.5
"""Seconds after which nobody answers any more what a stream is like."""
_LOOKS, _LOOK_S = 20, 0.1
"""How often a stream that lacks something is looked at: a new leader has what was acknowledged, but reads it first."""


class _State(msgspec.Struct):
    messages: int = 0
    last_seq: int = 0


class StreamInfo(msgspec.Struct):
    """What JetStream tells of a stream."""

    config: dict[str, Any]
    state: _State

    @property
    def description(self) -> str:
        return str(self.config.get("description", ""))

    @property
    def epoch(self) -> str:
        """The epoch of what lies in it; empty where it is none of Tellwire's."""
        found = _EPOCH.match(self.description)
        return found[1] if found else ""


_infos = msgspec.json.Decoder(StreamInfo)


class StreamSettings:
    """Settings of one stream.

    Args:
        config: Those that are its own, as JetStream's API has them.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.name = str(config["name"])
        self._config = config
        self._former: set[str] = set()

    async def look(self, client: Client, place: NatsPlace) -> StreamInfo:
        """Ask what the stream is like; raises Refused, Unavailable."""
        return _infos.decode(await ask(client, place, f"STREAM.INFO.{self.name}", wait_s=_INFO_S))

    async def find(self, client: Client, place: NatsPlace, known: tuple[str, int] | None) -> StreamInfo:
        """Find the stream, or make it; raises Refused, Unavailable.

        `known` is the epoch, and the place in it, that this node was fed last. A stream that is older than that was
        rolled back, and gets another epoch.
        """
        looks = 0
        while True:
            try:
                info = await self.look(client, place)
            except Refused as exc:
                if exc.code != _STREAM_NOT_FOUND:
                    raise
                await self._make(client, place)
                continue
            epoch = info.epoch
            if not epoch:
                raise Unavailable(f"{place} has a stream {self.name} that is none of Tellwire's; name another prefix=")
            changed: dict[str, Any] = {}
            if known is not None and epoch == known[0] and info.state.last_seq < known[1] and looks < _LOOKS:
                looks += 1
                await asyncio.sleep(_LOOK_S)
                continue
            if epoch in self._former or (known is not None and epoch == known[0] and info.state.last_seq < known[1]):
                _log.warning("%s: the stream %s is an older one, or lost its newest messages", place, self.name)
                changed["description"] = self.describe(new_epoch())
            else:
                for name in ("max_age", "duplicate_window"):
                    if int(info.config.get(name, 0)) < self._config[name]:
                        changed[name] = self._config[name]
                changed = changed or await self.inspect(client, place, info)
            if not changed:
                if known is not None and epoch != known[0]:
                    self._former.add(known[0])
                return info
            await self.change(client, place, info, **changed)

    async def change(self, client: Client, place: NatsPlace, info: StreamInfo, **changed: Any) -> None:
        """Change settings of a stream; raises Refused, Unavailable."""
        await ask(client, place, f"STREAM.UPDATE.{self.name}", **{**info.config, **changed})

    async def inspect(self, client: Client, place: NatsPlace, info: StreamInfo) -> dict[str, Any]:
        """Look at the stream that was found; return the settings that are to be changed."""
        return {}

    def describe(self, epoch: str) -> str:
        """Describe the stream."""
        return f"Tellwire's, epoch {epoch}"

    async def _make(self, client: Client, place: NatsPlace) -> None:
        config = {
            "description": self.describe(new_epoch()),
            "retention": "limits",
            "discard": "old",
            "storage": place.storage,
            "num_replicas": place.replicas,
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_msg_size": -1,
            **self._config,
        }
        try:
            await ask(client, place, f"STREAM.CREATE.{self.name}", **config)
        except Refused as exc:
            if exc.code != _STREAM_NAME_IN_USE:  # else another node was quicker
                raise


class LogSettings(StreamSettings):
    """The stream of a log; its description tells what of it was dropped, and by which namespaces.

    Args:
        place: What the log is called.
        namespaces: Bounds of every namespace.
        window_s: Seconds for which every message stays, because JetStream knows its id by it.
    """

    def __init__(self, place: NatsPlace, namespaces: Namespaces, window_s: float) -> None:
        age_s = max(namespace.history_age_s for namespace in namespaces) + window_s
        super().__init__(
            {
                "name": f"{place.prefix}-log",
                "subjects": [f"{place.prefix}.log.*"],
                "max_age": int(min(age_s * _NS, SEQ_MAX)),
                "duplicate_window": int(window_s * _NS),
            }
        )
        bounds = sorted(
            (each.name, each.history_messages, each.history_age_s, each.history_bytes) for each in namespaces
        )
        self._digest = hashlib.sha256(repr(bounds).encode()).hexdigest()[:16]
        self._floor = 0

    def describe(self, epoch: str) -> str:
        return f"Tellwire's, namespaces {self._digest}, floor {self._floor}, epoch {epoch}"

    async def inspect(self, client: Client, place: NatsPlace, info: StreamInfo) -> dict[str, Any]:
        """Have other namespaces than those that the log had begin where the former ones had dropped something.

        A channel may belong to another one by now, so nobody could tell any more what it lacks.
        """
        found = _DESCRIBED.match(info.description)
        if found is not None and found[1] == self._digest:
            self._floor = int(found[2])
            return {}
        if found is not None and int(found[2]):
            await ask(client, place, f"STREAM.PURGE.{self.name}", seq=int(found[2]) + 1)
        self._floor = 0
        return {"description": self.describe(info.epoch)}

    async def note_floor(self, client: Client, place: NatsPlace, epoch: str, floor: int) -> None:
        """Write down up to where channels were dropped; raises Refused, Unavailable."""
        if floor <= self._floor:
            return
        info = await self.look(client, place)
        found = _DESCRIBED.match(info.description)
        if found is not None and found[1] == self._digest and info.epoch == epoch:
            self._floor = max(floor, int(found[2]))
            await self.change(client, place, info, description=self.describe(epoch))
