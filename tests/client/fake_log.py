"""The log of the fake server: positions, ids, gaps, as the protocol has them."""

from __future__ import annotations

from typing import Any


class FakeLog:
    """One log in memory; of each channel the newest `history` messages are kept."""

    def __init__(self) -> None:
        self.epoch = "aaaa"
        self.messages: list[dict[str, Any]] = []
        self.history: int | None = None
        self._ids: dict[tuple[str, str], str] = {}

    @property
    def cursor(self) -> str:
        """The newest position."""
        return f"{self.epoch}.{len(self.messages)}"

    def wipe(self, epoch: str) -> None:
        """Lose everything."""
        self.epoch = epoch
        self.messages = []
        self._ids = {}

    def data(self, channel: str) -> list[Any]:
        """Return what a channel has."""
        return [message["data"] for message in self.messages if message["channel"] == channel]

    def append(
        self,
        channel: str,
        data: Any,
        *,
        id: str | None = None,  # noqa: A002
        ephemeral: bool = False,
        **fields: Any,
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the message, None for one that is there already, and the answer."""
        message = {
            "type": "message",
            "channel": channel,
            "event": fields.get("event", "message"),
            "data": data,
            "time": 1,
        }
        if ephemeral:
            return {**message, "id": "", "ephemeral": True}, {"position": None, "duplicate": False}
        if id is not None and (known := self._ids.get((channel, id))):
            return None, {"position": known, "duplicate": True}
        head = max((each["seq"] for each in self.messages if each["channel"] == channel), default=0)
        if fields.get("expect") not in (None, f"{self.epoch}.{head}"):
            error = {"code": "conflict", "message": "a newer message", "head": f"{self.epoch}.{head}"}
            return None, {"error": error}
        seq = len(self.messages) + 1
        position = f"{self.epoch}.{seq}"
        self.messages.append({**message, "seq": seq, "id": id or position})
        if id is not None:
            self._ids[channel, id] = position
        return self.messages[-1], {"position": position, "duplicate": False}

    def read(self, channels: list[str], since: str | int | None, last: int | None = None) -> dict[str, Any]:
        """Return what comes after a place: the messages, the place, the gap."""
        kept: list[dict[str, Any]] = []
        trimmed: list[dict[str, Any]] = []
        for name in channels:
            mine = [each for each in self.messages if each["channel"] == name]
            cut = len(mine) - self.history if self.history is not None else 0
            trimmed += mine[: max(cut, 0)]
            kept += mine[max(cut, 0) :]
        kept.sort(key=lambda each: int(each["seq"]))
        gap = None
        after = len(self.messages)
        lost_to = max((each["seq"] for each in trimmed), default=0)
        if last is not None:
            after = kept[-last]["seq"] - 1 if 0 < last <= len(kept) else after if last == 0 else 0
        elif since == "earliest":
            after = 0
        elif since not in (None, "now"):
            epoch, _, digits = str(since).rpartition(".")
            after = int(digits)
            if epoch not in ("", self.epoch) or after > len(self.messages):
                gap = {"from": since, "to": f"{self.epoch}.{lost_to}", "reason": "epoch", "channels": channels}
                after = 0
            elif lost_to > after:
                concerned = sorted({each["channel"] for each in trimmed if each["seq"] > after})
                gap = {"from": since, "to": f"{self.epoch}.{lost_to}", "reason": "trimmed", "channels": concerned}
        messages = [each for each in kept if each["seq"] > after]
        return {"messages": messages, "cursor": f"{self.epoch}.{after}", "gap": gap}

    def page(self, channels: list[str], since: str | None, last: int | None, limit: int) -> dict[str, Any]:
        """Return the answer to a poll."""
        found = self.read(channels, since, last)
        some = found["messages"][:limit]
        is_all = len(some) == len(found["messages"])
        cursor = self.cursor if is_all else f"{self.epoch}.{some[-1]['seq']}"
        return {"messages": some, "gap": found["gap"], "cursor": cursor}
