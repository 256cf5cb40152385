"""What nodes ask each other, and how an answer comes: in parts, each small enough for any broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

PART_BYTES = 128 * 1024
"""About how much of an answer is said at once: less than any broker's bound on a message."""


class Question(msgspec.Struct, omit_defaults=True):
    """What a node asks of others; ``to`` are the ids of those that are meant, None means all."""

    id: str
    asker: str
    what: str
    to: tuple[str, ...] | None = None
    wanted: msgspec.Raw = msgspec.Raw(b"null")


class Part(msgspec.Struct, omit_defaults=True):
    """A piece of one node's answer; parts come in order, and the last one says so."""

    id: str
    node: str
    number: int
    items: list[msgspec.Raw]
    is_last: bool = False
    head: msgspec.Raw = msgspec.Raw(b"null")


class Said(NamedTuple):
    """One node's answer: its own fields, and a list."""

    node: str
    head: Any
    items: list[Any]


decode_part = msgspec.json.Decoder(Part).decode
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode


def in_parts(id_: str, node: str, head: Any, items: Iterable[Any]) -> Iterator[Part]:
    """Split a node's answer to a question."""
    part = Part(id_, node, 0, [])
    size = 0
    for item in items:
        raw = msgspec.Raw(msgspec.json.encode(item))
        if size and size + len(raw) > PART_BYTES:
            yield part
            part = Part(id_, node, part.number + 1, [])
            size = 0
        part.items.append(raw)
        size += len(raw)
    part.is_last = True
    part.head = msgspec.Raw(msgspec.json.encode(head))
    yield part


class Asked:
    """A question that waits for its answers."""

    def __init__(self, expected: Iterable[str]) -> None:
        self.missing = set(expected)
        self.parts: dict[str, list[Part]] = {}
        self.done = asyncio.Event()

    def take(self, part: Part) -> None:
        parts = self.parts.setdefault(part.node, [])
        if part.number != len(parts) or (parts and parts[-1].is_last):
            return  # twice, or after one that was lost: then it counts as no answer
        parts.append(part)
        if part.is_last:
            self.missing.discard(part.node)
            if not self.missing:
                self.done.set()

    def said(self) -> Iterator[Said]:
        """Return the answers that are whole; also of nodes that were not known, and are not waited for."""
        for node, parts in self.parts.items():
            if parts and parts[-1].is_last:
                items = [_decode(raw) for part in parts for raw in part.items]
                yield Said(node, _decode(parts[-1].head), items)
