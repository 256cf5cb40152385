"""The table of the transports that are measured; to add one is to write its reader and to name it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tellwire.compare.polling import LongPollReader, PollReader
from tellwire.compare.publishers import HttpPublisher, PackedWebSocketPublisher, Publisher, WebSocketPublisher
from tellwire.compare.reader import Reader
from tellwire.compare.site import Site
from tellwire.compare.streams import NdjsonReader, SseReader
from tellwire.compare.websocket import PackedWebSocketReader, WebSocketReader


class Wire(NamedTuple):
    """A transport."""

    key: str
    title: str
    reader: Callable[..., Reader]
    publisher: Callable[[Site], Publisher]
    is_stream: bool = False
    """Whether it is one answer without an end, which a proxy may keep to itself."""
    is_paced: bool = False
    """Whether the reader itself decides when it hears of something."""


WIRES = (
    Wire("poll", "Short polling", PollReader, HttpPublisher, is_paced=True),
    Wire("longpoll", "Long polling", LongPollReader, HttpPublisher),
    Wire("sse", "Server-Sent Events", SseReader, HttpPublisher, is_stream=True),
    Wire("ndjson", "NDJSON stream", NdjsonReader, HttpPublisher, is_stream=True),
    Wire("websocket", "WebSocket, JSON", WebSocketReader, WebSocketPublisher),
    Wire("websocket-msgpack", "WebSocket, MessagePack", PackedWebSocketReader, PackedWebSocketPublisher),
)

BY_KEY = {wire.key: wire for wire in WIRES}
